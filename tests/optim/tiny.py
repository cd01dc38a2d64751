"A tiny Learner whose batches come in a fixed order, and the same training written as a plain loop."
import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from torch import nn

from fastmatch.learner.base import ListingLearner

N, BS = 24, 4


class Tiny(nn.Module):
    "Two groups: a body with a norm, a head. A bias before the norm would have gradients of rounding alone."
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x): return self.head(self.body(x))

    def param_groups(self):
        return {'image': list(self.body.parameters()), 'head': list(self.head.parameters())}


def split(model): return list(model.param_groups().values())


class Items(list):
    "A list that `export` can empty."
    def new_empty(self): return Items()


def data(seed=0):
    "`N` pairs of an input (5,) and a class."
    generator = torch.Generator().manual_seed(seed)
    return Items([(torch.randn(5, generator=generator), torch.randint(3, (), generator=generator))
                  for _ in range(N)])


def learner(opt_func, path=None, seed=0, model=None, **kwargs):
    "This package's Learner of a `Tiny`, or of another model on the same data."
    torch.manual_seed(seed)
    items = data()
    train = DataLoader(items, bs=BS, shuffle=False, num_workers=0)
    valid = DataLoader(Items(items[:8]), bs=BS, num_workers=0)
    return ListingLearner(DataLoaders(train, valid, device='cpu'), model or Tiny(), nn.CrossEntropyLoss(),
                          opt_func=opt_func, splitter=split, path=path, **kwargs)


def fit(learn, how, *args, **kwargs):
    "`learn.fit_...` without output."
    with learn.no_bar(), learn.no_logging(): return getattr(learn, how)(*args, **kwargs)


def weights(learn):
    "All weights of a Learner or a model as one vector."
    return torch.cat([param.detach().flatten() for param in getattr(learn, 'model', learn).parameters()])


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
    optimizer = opt_func(split(model), lr=1.)
    for param in model.parameters():
        if param.ndim == 1: optimizer.state[param]['do_wd'] = False
    if wd is not None: optimizer.set_hyper('wd', wd)
    for step, lr in enumerate(lrs):
        optimizer.set_hyper('lr', [float(rate) for rate in np.broadcast_to(lr, 2)])
        if moms is not None: optimizer.set_hyper('mom', float(moms[step]))
        start = step * BS % N
        inputs, targets = (torch.stack(values) for values in zip(*items[start:start + BS]))
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)
