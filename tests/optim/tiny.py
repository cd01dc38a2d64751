"A tiny Learner whose batches come in a fixed order, and the same training written as a plain loop."
import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from torch import nn

from fastmatch.learner.base import ListingLearner

N_ITEMS, BATCH_SIZE = 24, 4


class TinyNet(nn.Module):
    "Two groups: a body with a norm, a head. A bias before the norm would have gradients of rounding alone."
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, inputs): return self.head(self.body(inputs))

    def param_groups(self):
        return {'image': list(self.body.parameters()), 'head': list(self.head.parameters())}


def split(model): return list(model.param_groups().values())


class Items(list):
    "A list that `export` can empty."
    def new_empty(self): return Items()


def make_items(seed=0):
    "`N_ITEMS` pairs of an input (5,) and a class."
    generator = torch.Generator().manual_seed(seed)
    return Items([(torch.randn(5, generator=generator), torch.randint(3, (), generator=generator))
                  for _ in range(N_ITEMS)])


def make_learner(make_optimizer, folder=None, seed=0, model=None, learner_class=ListingLearner, **options):
    "A Learner of a `TinyNet`, or of another model on the same items, validated on the first eight of them."
    torch.manual_seed(seed)
    items = make_items()
    training = DataLoader(items, bs=BATCH_SIZE, shuffle=False, num_workers=0)
    validation = DataLoader(Items(items[:8]), bs=BATCH_SIZE, num_workers=0)
    loaders = DataLoaders(training, validation, device='cpu')
    return learner_class(loaders, model or TinyNet(), nn.CrossEntropyLoss(), opt_func=make_optimizer,
                         splitter=split, path=folder, **options)


def fit(learner, method, *arguments, **options):
    "Call the learner's `method`, such as 'fit_flat_cos', without output."
    with learner.no_bar(), learner.no_logging(): return getattr(learner, method)(*arguments, **options)


def weights_of(learner_or_model):
    "All weights as one vector."
    model = getattr(learner_or_model, 'model', learner_or_model)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained_by_hand(
    make_optimizer,
    rates,  # (steps,) rate of each step, or (steps, groups)
    momenta=None,  # (steps,) momentum of each step
    wd=None,
    seed=0,
):
    "Weights after the steps of a plain loop over the same batches: norms and biases aren't decayed."
    torch.manual_seed(seed)
    model, items = TinyNet(), make_items()
    optimizer = make_optimizer(split(model), lr=1.)
    for parameter in model.parameters():
        if parameter.ndim == 1: optimizer.state[parameter]['do_wd'] = False
    if wd is not None: optimizer.set_hyper('wd', wd)
    for step, step_rates in enumerate(rates):
        optimizer.set_hyper('lr', [float(rate) for rate in np.broadcast_to(step_rates, 2)])
        if momenta is not None: optimizer.set_hyper('mom', float(momenta[step]))
        start = step * BATCH_SIZE % N_ITEMS
        inputs, targets = (torch.stack(values) for values in zip(*items[start:start + BATCH_SIZE]))
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights_of(model)
