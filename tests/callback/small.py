"A small image Learner with BatchNorm and dropout, mixed precision on the CPU, and what a run is judged by."
import contextlib
import random

import pandas as pd
import torch
from fastai.callback import schedule  # noqa: F401
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastcore.foundation import L
from torch import nn

from fastmatch.callback.learner_methods import CallbackMethods
from fastmatch.data.demo import demo_path
from fastmatch.optim import sgd
from fastmatch.schedule import ScheduledFits

N, BS = 24, 4


class SmallLearner(ScheduledFits, CallbackMethods, Learner):
    "fastai's Learner with this package's methods, as its own Learners have them."


def body_and_head(model):
    "The parameter groups of a model with a body and a head."
    return {'body': list(model.body.parameters()), 'head': list(model.head.parameters())}


class Net(nn.Module):
    "Two parameter groups; smooth, so that small differences stay small."
    def __init__(self, dropout=.3, norm=True, momentum=.1):
        super().__init__()
        batch_norm = nn.BatchNorm2d(4, momentum=momentum) if norm else nn.Identity()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, bias=not norm), batch_norm, nn.Tanh(), nn.AvgPool2d(2),
                                  nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(36, 3)
    def forward(self, images): return self.head(self.body(images))
    def param_groups(self): return body_and_head(self)


class Items(list):
    "A list that `export` can empty."
    def new_empty(self): return Items()


def data(n_items=N, seed=0):
    "`n_items` pictures of noise (1,8,8) with a bright corner for each of three classes."
    generator = torch.Generator().manual_seed(seed)
    items = Items()
    for i in range(n_items):
        target = torch.tensor(i % 3)
        image = torch.randn(1, 8, 8, generator=generator)
        image[0, :3, (target * 2):(target * 2) + 3] += 1.5
        items.append((image, target))
    return items


def make_learner(model=None, opt_func=sgd, path=None, seed=0, shuffle=False, bs=BS, n_items=N, loss=None,
                 device='cpu', **kwargs):
    "A `SmallLearner` on `data(n_items)`, validated on twelve other pictures."
    torch.manual_seed(seed)
    random.seed(seed)
    train_loader = DataLoader(data(n_items), bs=bs, shuffle=shuffle, num_workers=0)
    valid_loader = DataLoader(Items(data(12, 1)), bs=bs, num_workers=0)
    dls = DataLoaders(train_loader, valid_loader, device=device)
    return SmallLearner(dls, model or Net(), loss or CrossEntropyLossFlat(), opt_func=opt_func,
                        splitter=lambda model: list(model.param_groups().values()), path=path,
                        **{'wd': 0., **kwargs})


def fit(learner, method_name='fit', *args, **kwargs):
    "Call the learner's method `method_name` without output."
    with learner.no_bar(), learner.no_logging(), contextlib.redirect_stdout(None):
        return getattr(learner, method_name)(*args, **kwargs)


def few_listings(n_groups):
    "The sample's listings of the first `n_groups` groups of each fold."
    df = pd.read_csv(demo_path()/'listings.csv')
    by_fold = df.groupby('fold').label_group
    is_chosen = by_fold.transform(lambda groups: groups.isin(sorted(groups.unique())[:n_groups]))
    return df[is_chosen].reset_index(drop=True)


def weights(learner):
    "All weights as one vector."
    return torch.cat([weight.detach().flatten() for weight in learner.model.parameters()])


def everything(learner):
    "All weights and buffers as one float64 vector."
    return torch.cat([value.flatten().double() for value in learner.model.state_dict().values()])


class CpuAmp(MixedPrecision):
    "fastai's MixedPrecision, whose autocast is hard-wired to CUDA, through torch's for the CPU."
    def __init__(self, amp_mode='fp16', **kwargs):
        super().__init__(amp_mode, **kwargs)
        self.given = dict(kwargs)

    def before_fit(self):
        is_half = self.amp_mode.value == 'fp16'
        self.autocast = torch.autocast('cpu', torch.float16 if is_half else torch.bfloat16)
        self.learn.scaler = torch.amp.GradScaler('cpu', **{**self.given, 'enabled': is_half})
        self.scales = L()


def amp(amp_mode, device='cpu', **kwargs):
    "Mixed precision on `device`: fastai's own where it works."
    return (CpuAmp if device == 'cpu' else MixedPrecision)(amp_mode, **kwargs)


class Steps(Callback):
    "Counts batches, steps and skipped steps; keeps each step's gradients, weights and loss scale."
    order = 90
    def before_fit(self):
        self.batches = self.n_steps = self.skipped = 0
        self.gradients = []
        self.scales = []
        self.weights = []

    def before_step(self):
        self.n_steps += 1
        gradients = [weight.grad for weight in self.learn.model.parameters() if weight.grad is not None]
        self.gradients.append(torch.cat([gradient.flatten() for gradient in gradients]))
        self.weights.append(weights(self.learn))

    def after_cancel_step(self): self.skipped += 1
    def after_batch(self):
        if not self.training: return
        self.batches += 1
        if getattr(self.learn, 'scaler', None) is not None: self.scales.append(self.learn.scaler.get_scale())


class Passes:
    "Notes every training forward of a model: its first input, and what its dropout dropped."
    def __init__(self, model):
        self.inputs = []
        self.masks = []
        model.register_forward_pre_hook(self.note_input)
        for module in model.modules():
            if isinstance(module, nn.Dropout): module.register_forward_hook(self.note_mask)

    def note_input(self, module, args):
        if module.training: self.inputs.append(args[0].detach().clone())

    def note_mask(self, module, args, output):
        if module.training: self.masks.append(output == 0)


def net(*args, **kwargs):
    "The same `Net` each time."
    torch.manual_seed(0)
    return Net(*args, **kwargs)
