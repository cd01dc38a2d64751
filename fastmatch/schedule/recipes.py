"Recipes for fine-tuning: the head first, groups thawed one by one, blocks that really stay still, a rate between two suggestions."
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.schedule import minimum, steep
from fastai.learner import Learner
from fastcore.basics import patch

from ..core import InputError, preview
from .fit import named_rates

FACTOR = 2.6  # rate of a group over that of the group below it, https://arxiv.org/abs/1801.06146


def layered_rates(
    lr: float,  # Rate of the last group
    n: int,  # Groups
    factor: float = FACTOR,  # Each group below has its rate divided by this
) -> list[float]:
    "Rates falling from the head down."
    return [lr / factor**(n - 1 - i) for i in range(n)]


def _n_groups(learn):
    if learn.opt is None: learn.create_opt()
    n = len(learn.opt.param_lists)
    if n < 2: raise InputError('the model is one parameter group, nothing can be frozen below the head: give the Learner a splitter')
    return n


@patch
def fit_head_first(
    self: Learner,
    head_epochs: int,  # Epochs of the last group alone
    n_epoch: int,  # Epochs of all groups after that
    lr,  # Rate of the head, then of all: a number, or a dict by name of group
    div: float = 2.,  # Rates of the second part are those of the first by this (fastai's fine_tune)
    fit: str = 'fit_flat_cos',  # Method that trains either part
    **kwargs,  # For it
):
    "Train the head on frozen encoders, then everything."
    _n_groups(self)
    rates = named_rates(self.model, lr) if isinstance(lr, dict) else lr
    self.freeze()
    getattr(self, fit)(head_epochs, rates, **kwargs)
    self.unfreeze()
    getattr(self, fit)(n_epoch, [o / div for o in rates] if isinstance(rates, list) else rates / div, **kwargs)


@patch
def fit_gradual(
    self: Learner,
    lr: float,  # Rate of the head in the first stage
    epochs: int | list[int] = 1,  # Epochs of each stage (the head, then one group more each); a number is for every stage
    factor: float = FACTOR,  # Each group below has its rate divided by this
    decay: float = 2.,  # Rates of a stage are those of the one before by this
    fit: str = 'fit_flat_cos',  # Method that trains each stage
    **kwargs,  # For it
):
    "Thaw the groups one by one from the head down, with rates layered by `factor`, https://arxiv.org/abs/1801.06146"
    n = _n_groups(self)
    epochs = [epochs] * n if isinstance(epochs, int) else list(epochs)
    if len(epochs) != n: raise InputError(f'epochs={epochs}: one number for each of the {n} stages')
    for stage, n_epoch in enumerate(epochs):
        self.freeze_to(-1 - stage if stage < n - 1 else 0)
        getattr(self, fit)(n_epoch, layered_rates(lr / decay**stage, n, factor), **kwargs)


class Still(Callback):
    "Keeps frozen groups, and modules given by name, still: no step, and BatchNorm that neither learns nor moves its running statistics."
    run_after = TrainEvalCallback

    def __init__(
        self,
        *names: str,  # Modules by the start of their names, e.g. 'encoders.image.body.conv_stem', 'encoders.image.body.blocks.0'
    ):
        self.names = names

    def before_fit(self):
        named = dict(self.learn.model.named_modules())
        if missing := [o for o in self.names if o not in named]:
            raise InputError(f'no module {missing}: this model has {preview([k for k in named if k], 12)}')
        frozen = {p for pg in self.opt.param_lists[:self.opt.frozen_idx] for p in pg}
        # whole modules, so that a norm without weights is still with the block it is in
        tops = [m for k, m in named.items() if k in self.names or (list(m.parameters()) and all(p in frozen for p in m.parameters()))]
        self._was = {p: p.requires_grad for m in tops for p in m.parameters()}
        self._still = {o for m in tops for o in m.modules() if hasattr(o, 'running_mean')}
        for p in self._was: p.requires_grad_(False)

    def before_train(self):
        for m in self._still: m.eval()

    def after_fit(self):
        # only what this fit stilled: the groups keep what freeze_to gave them
        for p, rg in self.__dict__.pop('_was', {}).items(): p.requires_grad_(rg)
        self.__dict__.pop('_still', None)


def between(
    lrs,  # (n,) rates of lr_find
    losses,  # (n,) losses
    num_it,  # Unused: fastai's form
):
    "Suggest the rate halfway (in decades) between the steepest fall and a tenth of the minimum's: `learn.lr_find(suggest_funcs=between)`"
    lr = (steep(lrs, losses, num_it)[0] * minimum(lrs, losses, num_it)[0])**.5
    return lr, (lr, losses[int(torch.as_tensor([abs(o - lr) for o in lrs]).argmin())])
