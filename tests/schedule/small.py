"A small Learner with this package's schedules; its batches come in a fixed order."
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch import nn

from fastmatch.schedule import ScheduledFits

N, BS = 24, 4


class SmallLearner(ScheduledFits, Learner):
    "fastai's Learner with the schedules as methods."


class SmallNet(nn.Module):
    "Two parameter groups: a body with a norm, a head."
    def __init__(self):
        super().__init__()
        # a bias before the norm would have gradients of rounding alone
        self.body = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x): return self.head(self.body(x))
    def param_groups(self):
        return {'image': list(self.body.parameters()), 'head': list(self.head.parameters())}


class Items(list):
    "A list that `export` can empty."
    def new_empty(self): return Items()


def data(seed=0):
    "`N` random items of three classes."
    generator = torch.Generator().manual_seed(seed)
    items = Items()
    for _ in range(N):
        features = torch.randn(5, generator=generator)
        items.append((features, torch.randint(3, (), generator=generator)))
    return items


def split(model): return list(model.param_groups().values())


def learner(opt_func, path=None, seed=0, model=None, **kwargs):
    "A `SmallLearner` on `data()`, validated on its first eight items."
    torch.manual_seed(seed)
    items = data()
    train = DataLoader(items, bs=BS, shuffle=False, num_workers=0)
    valid = DataLoader(Items(items[:8]), bs=BS, num_workers=0)
    dls = DataLoaders(train, valid, device='cpu')
    return SmallLearner(dls, model or SmallNet(), nn.CrossEntropyLoss(), opt_func=opt_func, splitter=split,
                        path=path, **kwargs)


def fit(learn, how, *args, **kwargs):
    "Call the learner's method `how` without output."
    with learn.no_bar(), learn.no_logging(): return getattr(learn, how)(*args, **kwargs)


def weights(learn_or_model):
    "All weights as one vector."
    model = getattr(learn_or_model, 'model', learn_or_model)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
