"`fit_*` on the Learner: any curve of the rate, with warm-up, rates by named group, and a start in mid-run."
import numpy as np
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import ReduceLROnPlateau, TrackerCallback
from fastai.learner import Learner
from fastcore.basics import patch
from fastcore.foundation import L

from ..core import InputError
from ..schedule import curves

# a name that may stand for another where the model has no group of that name
ALIASES = {'text': 'title'}


def named_rates(
    model,  # With `param_groups()`: names and parameters, as `MatchNet` has
    rates: dict[str, float],  # A rate for each group
) -> list[float]:
    "Rates in the order of the model's groups."
    if not hasattr(model, 'param_groups'): raise InputError(f'rates by name ask for a model with `param_groups()`; {type(model).__name__} has none')
    names = list(model.param_groups())
    given = {ALIASES.get(k, k) if k not in names else k: v for k, v in rates.items()}
    if len(given) < len(rates): raise InputError(f'rates={list(rates)}: two of them are of the same group')
    if set(given) != set(names): raise InputError(f'rates are given for {list(rates)}; the groups are {names}')
    return [given[k] for k in names]


def _full_rates(learn, lr) -> np.ndarray:
    if learn.opt is None: learn.create_opt()
    if isinstance(lr, dict): lr = named_rates(learn.model, lr)
    learn.opt.set_hyper('lr', learn.lr if lr is None else lr)
    return np.array([h['lr'] for h in learn.opt.hypers])


@patch
def fit_curve(
    self: Learner,
    n_epoch: int,  # Epochs in all
    lr=None,  # Rate, fastai's slice, a list, or a dict by name of group; default the Learner's
    curve=None,  # Factor on the rate by share of training, see `curves`; default flat
    warmup: float = 0.,  # Epochs of warm-up at the start
    multiplier: float = 1.,  # See `curves.warmed`
    wd=None,  # Weight decay; default the Learner's
    cbs=None,  # More callbacks
    reset_opt: bool = False,  # Start with a new optimizer
    start_epoch: int = 0,  # Skip the epochs before this one: the rate is then as if they had been done
):
    "Fit with the rate following `curve` after a warm-up."
    if reset_opt: self.create_opt()
    lrs = _full_rates(self, lr)
    f = curves.warmed(curve or curves.flat(), warmup / n_epoch, multiplier)
    self.fit(n_epoch, cbs=[ParamScheduler({'lr': lambda pos: lrs * f(pos)}), *L(cbs)], wd=wd, start_epoch=start_epoch)


@patch
def fit_flat_cos(
    self: Learner,
    n_epoch: int,  # Epochs in all
    lr=None,  # Rate, fastai's slice, a list, or a dict by name of group; default the Learner's
    div_final: float = 1e5,  # The last rate is the full one by this
    pct_start: float = .75,  # Share of training (after the warm-up) at the full rate
    wd=None,  # Weight decay; default the Learner's
    cbs=None,  # More callbacks
    reset_opt: bool = False,  # Start with a new optimizer
    start_epoch: int = 0,  # Skip the epochs before this one (fastai's own doesn't)
    warmup: float = 0.,  # Epochs of warm-up at the start
    multiplier: float = 1.,  # See `curves.warmed`
):
    "Fit at a flat rate before a cosine annealing."
    self.fit_curve(n_epoch, lr, curves.flat_cos(pct_start, div_final), warmup, multiplier, wd, cbs, reset_opt, start_epoch)


@patch
def fit_cos(self: Learner, n_epoch, lr=None, floor=0., **kwargs):
    "Fit along one cosine down to `floor` times the rate; `kwargs` for `fit_curve`."
    self.fit_curve(n_epoch, lr, curves.cycles([1.], floor), **kwargs)


@patch
def fit_steps(
    self: Learner,
    n_epoch: int,  # Epochs in all
    lr=None,  # As in `fit_curve`
    at: tuple = (.5, .75),  # Where the rate falls: epochs (integers) or shares of training below 1
    gamma: float = .1,  # By what factor
    warmup: float = 0.,  # Epochs of warm-up at the start; epochs in `at` count from the start of training
    **kwargs,  # For `fit_curve`
):
    "Fit down a ladder of rates."
    shares = [o / n_epoch if isinstance(o, int) else o for o in at]
    pct = warmup / n_epoch
    if shares and min(shares) < pct: raise InputError(f'at={at}: the rate can\'t fall before the warm-up of {warmup} epochs is over')
    self.fit_curve(n_epoch, lr, curves.steps([(o - pct) / (1 - pct) for o in shares], gamma), warmup, **kwargs)


@patch
def fit_exp(self: Learner, n_epoch, lr=None, end=1e-2, **kwargs):
    "Fit with the rate falling exponentially to `end` times itself; `kwargs` for `fit_curve`."
    self.fit_curve(n_epoch, lr, curves.exponential(end), **kwargs)


@patch
def fit_cycles(
    self: Learner,
    n_cycles: int,  # Cosines down
    cycle_len: float = 1,  # Epochs of the first
    lr=None,  # As in `fit_curve`
    mult: float = 1,  # Length of each cycle against the one before
    floor: float = 0.,  # Factor on the rate at a cycle's end
    decay: float = 1.,  # Factor on each cycle's height against the one before
    warmup: int = 0,  # Epochs of warm-up, before the cycles
    **kwargs,  # For `fit_curve`
):
    "Fit cosine cycles with warm restarts."
    lengths = [cycle_len * mult**i for i in range(n_cycles)]
    n_epoch = round(sum(lengths))
    if abs(n_epoch - sum(lengths)) > 1e-6: raise InputError(f'{n_cycles} cycles of {lengths} epochs end in mid-epoch, after {sum(lengths):g}')
    self.fit_curve(n_epoch + warmup, lr, curves.cycles(lengths, floor, decay), warmup, **kwargs)


class WarmUp(Callback):
    "Raises the rate through the first epochs and then leaves it alone, for schedules that watch a score."
    order, run_valid = 60, False  # ParamScheduler's

    def __init__(
        self,
        epochs: float,  # How long
        multiplier: float = 1.,  # See `curves.warmed`
    ):
        self.epochs, self.multiplier = epochs, multiplier

    def before_fit(self):
        self.lrs = np.array([h['lr'] for h in self.opt.hypers])
        self.curve = curves.warmed(curves.flat(), self.epochs / self.n_epoch, self.multiplier)
        self.done = False

    def before_batch(self):
        if self.done: return
        self.done = self.pct_train + 1e-9 >= self.epochs / self.n_epoch
        self.opt.set_hyper('lr', self.lrs * self.curve(self.pct_train if not self.done else 1.))


class Plateau(ReduceLROnPlateau):
    "fastai's ReduceLROnPlateau through `set_hyper`, so that torch's optimizers hear of it too; it waits for a warm-up."
    def __init__(
        self,
        monitor: str = 'valid_loss',  # A recorded value
        warmup: float = 0.,  # Epochs at the start that don't count
        **kwargs,  # fastai's: `comp`, `min_delta`, `patience`, `factor`, `min_lr`
    ):
        super().__init__(monitor, **kwargs)
        self.warmup = warmup

    def before_fit(self):
        names = list(self.recorder.metric_names[1:])
        if self.monitor not in names: raise InputError(f'monitor={self.monitor!r}: this Learner records {names}')
        super().before_fit()

    def after_epoch(self):
        # an epoch skipped by `start_epoch` has no scores
        if self.epoch + 1 <= self.warmup or len(self.recorder.values[-1]) <= self.idx: return
        TrackerCallback.after_epoch(self)
        self.wait = 0 if self.new_best else self.wait + 1
        if self.wait < self.patience: return
        self.wait = 0
        self.opt.set_hyper('lr', [max(h['lr'] / self.factor, self.min_lr) for h in self.opt.hypers])


@patch
def fit_plateau(
    self: Learner,
    n_epoch: int,  # Epochs in all
    lr=None,  # As in `fit_curve`
    monitor: str = 'valid_loss',  # A recorded value, e.g. 'map@r'
    patience: int = 1,  # Epochs without a gain before the rate falls
    factor: float = 10.,  # It is divided by this
    min_lr: float = 0.,  # And never falls below
    warmup: float = 0.,  # Epochs of warm-up at the start
    multiplier: float = 1.,  # See `curves.warmed`
    cbs=None,  # More callbacks
    reset_opt: bool = False,  # Start with a new optimizer
    **kwargs,  # `wd`, `start_epoch`
):
    "Fit at a rate that falls when `monitor` stands still."
    if reset_opt: self.create_opt()
    lrs = _full_rates(self, lr)
    if not 0 <= warmup < n_epoch: raise InputError(f'warmup={warmup} of {n_epoch} epochs')
    ups = [WarmUp(warmup, multiplier)] if warmup else []
    self.fit(n_epoch, list(lrs), cbs=[*ups, Plateau(monitor, warmup, patience=patience, factor=factor, min_lr=min_lr), *L(cbs)], **kwargs)
