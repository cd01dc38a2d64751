"A tiny Learner whose batches come in a fixed order, and the same training written as a plain loop."
import numpy as np
import torch
from fastai.callback import schedule  # noqa: F401
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch import nn

N, BS = 24, 4


class Tiny(nn.Module):
    "Two groups: a body with a norm, a head. A bias before the norm would have gradients of rounding alone."
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh()), nn.Linear(6, 3)

    def forward(self, x): return self.head(self.body(x))
    def param_groups(self): return {'image': list(self.body.parameters()), 'head': list(self.head.parameters())}


def split(model): return list(model.param_groups().values())


class Items(list):
    "A list that `export` can empty."
    def new_empty(self): return Items()


def data(seed=0):
    gen = torch.Generator().manual_seed(seed)
    return Items([(torch.randn(5, generator=gen), torch.randint(3, (), generator=gen)) for _ in range(N)])


def learner(opt_func, path=None, seed=0, model=None, **kwargs):
    torch.manual_seed(seed)
    items = data()
    dls = DataLoaders(DataLoader(items, bs=BS, shuffle=False, num_workers=0), DataLoader(Items(items[:8]), bs=BS, num_workers=0), device='cpu')
    learn = Learner(dls, model or Tiny(), nn.CrossEntropyLoss(), opt_func=opt_func, splitter=split, path=path, **kwargs)
    return learn


def fit(learn, how, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return getattr(learn, how)(*args, **kwargs)


def weights(learn): return torch.cat([p.detach().flatten() for p in getattr(learn, 'model', learn).parameters()])


def by_hand(
    opt_func,
    lrs,  # (steps,) rate of each step, or (steps, groups)
    moms=None,  # (steps,) momentum of each step
    wd=None,
    seed=0,
):
    "Weights after the steps of a plain loop over the same batches: norms and biases aren't decayed."
    torch.manual_seed(seed)
    model, items = Tiny(), data()
    opt = opt_func(split(model), lr=1.)
    for p in model.parameters():
        if p.ndim == 1: opt.state[p]['do_wd'] = False
    if wd is not None: opt.set_hyper('wd', wd)
    for i, lr in enumerate(lrs):
        opt.set_hyper('lr', [float(o) for o in np.broadcast_to(lr, 2)])
        if moms is not None: opt.set_hyper('mom', float(moms[i]))
        at = i * BS % N
        x, y = torch.stack([o[0] for o in items[at:at + BS]]), torch.stack([o[1] for o in items[at:at + BS]])
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    return weights(model)
