"""`fit_*`: train a Learner along any curve of the learning rate.

All of them take a warm-up, one rate or a rate for each parameter group (by position or by name), and can
start in the middle of a schedule. Each is a function of the learner and a method of this package's Learners.
"""
import numpy as np
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import ReduceLROnPlateau, TrackerCallback
from fastai.learner import Learner
from fastcore.foundation import L

from ..core import InputError, checks_options
from . import curves
from .rates import check_epochs, for_optimizer, rates_as_given


def _full_rates(learner, lr) -> np.ndarray:
    "Set the optimizer to the rates that `lr` stands for, and return them, one for each parameter group."
    if learner.opt is None: learner.create_opt()
    learner.opt.set_hyper('lr', for_optimizer(learner, learner.lr if lr is None else lr))
    return np.array([hypers['lr'] for hypers in learner.opt.hypers])


def fit_curve(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs in all, the warm-up and those before `start_epoch` included
    lr=None,  # Full rate: a number, fastai's slice, a list, or a dict by name of group; default the learner's
    curve=None,  # Share of training done -> factor on the rate, see `schedule.curves`; default flat
    warmup: float = 0.,  # Epochs of warm-up at the start; `curve` covers the rest
    multiplier: float = 1.,  # Above 1: warm up from the full rate to this multiple of it
    wd=None,  # Weight decay; default the learner's
    cbs=None,  # More callbacks
    reset_opt: bool = False,  # Start with a new optimizer
    start_epoch: int = 0,  # Skip the epochs before this one: the rate is then as if they had been done
):
    "Train with the learning rate following any curve, after a warm-up; other `fit_*` bring a curve along."
    check_epochs(n_epoch)
    if reset_opt: learner.create_opt()
    full_rates = _full_rates(learner, lr)
    rate_factor = curves.warmed(curve or curves.flat(), warmup / n_epoch, multiplier)
    scheduler = ParamScheduler({'lr': lambda progress: full_rates * rate_factor(progress)})
    with rates_as_given(learner, lr):
        learner.fit(n_epoch, cbs=[scheduler, *L(cbs)], wd=wd, start_epoch=start_epoch)


def fit_flat_cos(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs in all
    lr=None,  # Full rate: a number, fastai's slice, a list, or a dict by name of group; default the learner's
    div_final: float = 1e5,  # The last rate is the full rate divided by this
    pct_start: float = .75,  # Share of training (after the warm-up) at the full rate
    wd=None,  # Weight decay; default the learner's
    cbs=None,  # More callbacks
    reset_opt: bool = False,  # Start with a new optimizer
    start_epoch: int = 0,  # Skip the epochs before this one; the schedule goes on where they would have ended
    warmup: float = 0.,  # Epochs of warm-up at the start
    multiplier: float = 1.,  # Above 1: warm up from the full rate to this multiple of it
):
    """Train at a flat rate, then along a cosine down.

    It takes the arguments of fastai's method of the same name, and adds a warm-up, rates by name of group,
    and a `start_epoch` that continues the schedule (fastai's begins it anew).
    """
    curve = curves.flat_cos(pct_start, div_final)
    fit_curve(learner, n_epoch, lr, curve, warmup, multiplier, wd, cbs, reset_opt, start_epoch)


@checks_options(fit_curve)
def fit_cos(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs in all
    lr=None,  # Full rate, in any form that `fit_curve` takes
    floor: float = 0.,  # Factor on the rate at the end
    **kwargs,  # Further arguments of `fit_curve`: `warmup`, `cbs`, `wd`, ...
):
    "Train along one cosine from the full rate down to `floor` times it."
    fit_curve(learner, n_epoch, lr, curves.cycles([1.], floor), **kwargs)


@checks_options(fit_curve)
def fit_steps(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs in all
    lr=None,  # Full rate, in any form that `fit_curve` takes
    # When the rate changes: epochs (integers) or shares of training below 1; default .5 and .75, and with
    # `values` evenly
    at: tuple | None = None,
    gamma: float = .1,  # Factor on the rate at each fall
    warmup: float = 0.,  # Epochs of warm-up at the start
    values: list | None = None,  # The rates themselves in place of `lr` and `gamma`: [5e-4, 1e-4, 1e-5]
    **kwargs,  # Further arguments of `fit_curve`
):
    """Train at a rate that falls by the same factor at given moments, or that goes through listed values.

    Listed values are those of one learning rate, the first of them before the first moment of `at`.
    """
    check_epochs(n_epoch)
    if values is not None:
        if lr is not None: raise InputError(f'lr={lr} and values={values}: give one of them')
        if not len(values) or not min(values) > 0:
            raise InputError(f'values={values}: one rate at least, all above 0')
        lr, gamma = values[0], [rate / values[0] for rate in values[1:]]
    if at is None: at = (.5, .75) if values is None else [i / len(values) for i in range(1, len(values))]
    falls_at = [moment / n_epoch if isinstance(moment, int) else moment for moment in at]
    warmup_share = warmup / n_epoch
    if falls_at and min(falls_at) < warmup_share:
        raise InputError(f'at={at}: the rate can\'t fall before the warm-up of {warmup} epochs is over')
    after_warmup = [(share - warmup_share) / (1 - warmup_share) for share in falls_at]
    fit_curve(learner, n_epoch, lr, curves.steps(after_warmup, gamma), warmup, **kwargs)


@checks_options(fit_curve)
def fit_exp(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs in all
    lr=None,  # Full rate, in any form that `fit_curve` takes
    end: float = 1e-2,  # Factor on the rate at the end
    **kwargs,  # Further arguments of `fit_curve`
):
    "Train at a rate that falls exponentially, from the full rate to `end` times it."
    fit_curve(learner, n_epoch, lr, curves.exponential(end), **kwargs)


@checks_options(fit_curve)
def fit_cycles(
    learner,  # fastai `Learner`
    n_cycles: int,  # Number of cosines down
    cycle_len: float = 1,  # Epochs of the first cycle
    lr=None,  # Full rate, in any form that `fit_curve` takes
    mult: float = 1,  # Length of each cycle relative to the cycle before it
    floor: float = 0.,  # Factor on the rate at the end of each cycle
    decay: float = 1.,  # Height of each cycle relative to the cycle before it
    warmup: int = 0,  # Epochs of warm-up, which come before the cycles and are not part of them
    **kwargs,  # Further arguments of `fit_curve`
):
    "Train along cosine cycles with warm restarts (https://arxiv.org/abs/1608.03983)."
    lengths = [cycle_len * mult**cycle_number for cycle_number in range(n_cycles)]
    check_epochs(n_cycles, 'n_cycles')
    n_epoch = round(sum(lengths))
    if abs(n_epoch - sum(lengths)) > 1e-6:
        raise InputError(f'{n_cycles} cycles of {lengths} epochs end in mid-epoch, after {sum(lengths):g}')
    fit_curve(learner, n_epoch + warmup, lr, curves.cycles(lengths, floor, decay), warmup, **kwargs)


def only_validating(learner) -> bool:
    "Whether the learner runs for `validate` or `get_preds` alone, for which fastai sends a fit's events too."
    return learner.lock.locked()


def check_monitor(
    learner,  # fastai `Learner` in a training, whose Recorder knows what it records
    monitor: str,  # Name of a value to watch
    watcher: str,  # Name of the callback that watches it, for the message
):
    "Raise `InputError` unless the learner's Recorder records `monitor`."
    # the time of an epoch is shown and not kept
    recorded_names = [name for name in learner.recorder.metric_names[1:] if name != 'time']
    if monitor not in recorded_names:
        raise InputError(f'{watcher}: monitor={monitor!r}: this Learner records {recorded_names}')


class WarmUp(Callback):
    "Raises the rates over the first epochs and then leaves them alone: a warm-up before `Plateau`."
    order, run_valid = ParamScheduler.order, False

    def __init__(
        self,
        epochs: float,  # Length of the warm-up
        multiplier: float = 1.,  # Above 1: warm up from the full rate to this multiple of it
    ):
        self.epochs = epochs
        self.multiplier = multiplier

    def before_fit(self):
        if only_validating(self.learn): return
        self.lrs = np.array([hypers['lr'] for hypers in self.opt.hypers])
        # `fit(0)` has no batch to warm up in
        share = self.epochs / self.n_epoch if self.n_epoch else 0.
        self.curve = curves.warmed(curves.flat(), share, self.multiplier)
        self.done = False

    def before_batch(self):
        if self.done: return
        self.done = self.pct_train + curves.ROUNDING >= self.epochs / self.n_epoch
        self.opt.set_hyper('lr', self.lrs * self.curve(self.pct_train if not self.done else 1.))


class Plateau(ReduceLROnPlateau):
    """Divides the learning rate when a monitored value stops improving.

    Unlike fastai's `ReduceLROnPlateau` it sets the rate by `set_hyper`, which reaches every optimizer, and it
    leaves the epochs of a warm-up out.
    """
    @checks_options(ReduceLROnPlateau)
    def __init__(
        self,
        monitor: str = 'valid_loss',  # Name of a recorded value
        warmup: float = 0.,  # Epochs at the start that don't count
        **kwargs,  # fastai's: `comp`, `min_delta`, `patience`, `factor`, `min_lr`
    ):
        super().__init__(monitor, **kwargs)
        self.warmup = warmup

    def before_fit(self):
        check_monitor(self.learn, self.monitor, type(self).__name__)
        super().before_fit()

    def after_epoch(self):
        # an epoch that `start_epoch` skipped has no scores
        if self.epoch + 1 <= self.warmup or len(self.recorder.values[-1]) <= self.idx: return
        TrackerCallback.after_epoch(self)
        self.wait = 0 if self.new_best else self.wait + 1
        if self.wait < self.patience: return
        self.wait = 0
        self.opt.set_hyper('lr', [max(hypers['lr'] / self.factor, self.min_lr) for hypers in self.opt.hypers])


@checks_options(Learner.fit)
def fit_plateau(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs in all
    lr=None,  # Full rate, in any form that `fit_curve` takes
    monitor: str = 'valid_loss',  # Name of a recorded value, e.g. 'map@r'
    patience: int = 1,  # Epochs without a gain before the rate falls
    factor: float = 10.,  # The rate is divided by this
    min_lr: float = 0.,  # The rate never falls below this
    warmup: float = 0.,  # Epochs of warm-up at the start; the monitored value does not count in them
    multiplier: float = 1.,  # Above 1: warm up from the full rate to this multiple of it
    cbs=None,  # More callbacks
    reset_opt: bool = False,  # Start with a new optimizer
    **kwargs,  # `wd`, `start_epoch`
):
    "Train at a rate that falls whenever `monitor` has stopped improving."
    check_epochs(n_epoch)
    if reset_opt: learner.create_opt()
    full_rates = _full_rates(learner, lr)
    if not 0 <= warmup < n_epoch: raise InputError(f'warmup={warmup} of {n_epoch} epochs')
    warmup_callbacks = [WarmUp(warmup, multiplier)] if warmup else []
    plateau = Plateau(monitor, warmup, patience=patience, factor=factor, min_lr=min_lr)
    with rates_as_given(learner, lr):
        learner.fit(n_epoch, list(full_rates), cbs=[*warmup_callbacks, plateau, *L(cbs)], **kwargs)
