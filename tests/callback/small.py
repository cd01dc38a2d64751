"A small image Learner with BatchNorm and dropout, mixed precision on the CPU, and what a run is judged by."
import contextlib

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

from fastmatch.optim import sgd
from fastmatch.schedule import fit as _fit  # noqa: F401

N, BS = 24, 4


class Net(nn.Module):
    "Two groups; smooth, so that small differences stay small."
    def __init__(self, p=.3, norm=True, momentum=.1):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, bias=not norm), nn.BatchNorm2d(4, momentum=momentum) if norm else nn.Identity(), nn.Tanh(),
                                  nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(p))
        self.head = nn.Linear(36, 3)
    def forward(self, x): return self.head(self.body(x))
    def param_groups(self): return {'body': list(self.body.parameters()), 'head': list(self.head.parameters())}


class Items(list):
    def new_empty(self): return Items()


def data(n=N, seed=0):
    "Noise with a bright corner for each class."
    gen = torch.Generator().manual_seed(seed)
    res = Items()
    for i in range(n):
        y = torch.tensor(i % 3)
        x = torch.randn(1, 8, 8, generator=gen)
        x[0, :3, (y * 2):(y * 2) + 3] += 1.5
        res.append((x, y))
    return res


def learner(model=None, opt_func=sgd, path=None, seed=0, shuffle=False, bs=BS, n=N, loss=None, device='cpu', **kwargs):
    torch.manual_seed(seed)
    import random
    random.seed(seed)
    items = data(n)
    dls = DataLoaders(DataLoader(items, bs=bs, shuffle=shuffle, num_workers=0), DataLoader(Items(data(12, 1)), bs=bs, num_workers=0), device=device)
    return Learner(dls, model or Net(), loss or CrossEntropyLossFlat(), opt_func=opt_func, splitter=lambda m: list(m.param_groups().values()), path=path,
                   **{'wd': 0., **kwargs})


def fit(learn, how='fit', *args, **kwargs):
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(None): return getattr(learn, how)(*args, **kwargs)


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])
def everything(learn): return torch.cat([v.flatten().double() for v in learn.model.state_dict().values()])


class CpuAmp(MixedPrecision):
    "fastai's MixedPrecision, whose autocast is hard-wired to CUDA, through torch's for the CPU."
    def __init__(self, amp_mode='fp16', **kwargs):
        super().__init__(amp_mode, **kwargs)
        self.given = dict(kwargs)

    def before_fit(self):
        half = self.amp_mode.value == 'fp16'
        self.autocast = torch.autocast('cpu', torch.float16 if half else torch.bfloat16)
        self.learn.scaler, self.scales = torch.amp.GradScaler('cpu', **{**self.given, 'enabled': half}), L()


def amp(mode, device='cpu', **kwargs):
    "Mixed precision on `device`: fastai's own where it works."
    return (CpuAmp if device == 'cpu' else MixedPrecision)(mode, **kwargs)


class Steps(Callback):
    "Counts batches, steps and skipped steps, and keeps each step's gradients, weights and loss scale as the optimizer saw them."
    order = 90
    def before_fit(self): self.batches = self.n_steps = self.skipped = 0; self.grads, self.scales, self.seen = [], [], []
    def before_step(self):
        self.n_steps += 1
        self.grads.append(torch.cat([p.grad.flatten() for p in self.learn.model.parameters() if p.grad is not None]))
        self.seen.append(weights(self.learn))
    def after_cancel_step(self): self.skipped += 1
    def after_batch(self):
        if not self.training: return
        self.batches += 1
        if getattr(self.learn, 'scaler', None) is not None: self.scales.append(self.learn.scaler.get_scale())


class Passes:
    "Notes every training forward of a model: its first input, and what its dropout dropped."
    def __init__(self, model):
        self.inputs, self.masks = [], []
        model.register_forward_pre_hook(lambda m, args: self.inputs.append(args[0].detach().clone()) if m.training else None)
        for m in model.modules():
            if isinstance(m, nn.Dropout): m.register_forward_hook(lambda m, args, out: self.masks.append(out == 0) if m.training else None)


def net(*args, **kwargs):
    "The same `Net` each time."
    torch.manual_seed(0)
    return Net(*args, **kwargs)
