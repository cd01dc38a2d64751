"""Training to the best epoch, and what this folder adds to a Learner: a mixin for ours, and one function for
fastai's.

Importing this package changes nothing in fastai. Only `patch_callbacks`, which `fastmatch.all` calls, does:
it adds the methods of `CallbackMethods` to every Learner of the process.
"""
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.tracker import EarlyStoppingCallback, TrackerCallback
from fastcore.foundation import L

from ..core import InputError
from ..schedule.patch import patch_methods
from . import snapshots
from .state import learner_state, set_learner_state

# Names of classes and of states here are in the files of trainings that can be resumed: see `Resume`.


class _Best(TrackerCallback):
    "Notes in which epoch the monitored value was best."
    at = None

    def after_epoch(self):
        super().after_epoch()
        if self.new_best: self.at = self.epoch

    def state_dict(self): return dict(best=float(self.best), at=self.at)

    def load_state_dict(self, saved_state):
        self.best = saved_state['best']
        self.at = saved_state['at']


class _StopAfter(Callback):
    "Ends the fit after a given epoch."
    order = 70  # after trackers

    def __init__(self, last_epoch): self.last = last_epoch

    def after_epoch(self):
        if self.epoch >= self.last: raise CancelFitException

    def state_dict(self): return dict(last=self.last)
    def load_state_dict(self, saved_state): self.last = saved_state['last']


def fit_to_best(
    learner,  # fastai `Learner`
    n_epoch: int,  # Epochs of the first training, and length of the schedule in both
    lr=None,  # Learning rate, in any form that the method `fit` takes
    monitor: str = 'valid_loss',  # Name of a recorded value
    comp=None,  # `np.less` or `np.greater`, whichever is better; default by its name, as fastai's trackers do
    patience: int | None = None,  # Stop the first training after so many epochs without a gain; None: never
    fit: str = 'fit_flat_cos',  # Name of the learner's method that trains
    dls=None,  # What to train on the second time, e.g. all listings; default the same again
    cbs=None,  # More callbacks, for both trainings
    **kwargs,  # Further arguments of the method
) -> int:  # The best epoch, from 0
    """Train, then train again from the same start to the end of the epoch that was best.

    The second training may use other data: find the number of epochs on a split, then train on everything.
    """
    callbacks = L(cbs)
    if dls is not None and hasattr(learner, 'check_trainable'): learner.check_trainable(dls)
    if learner.opt is None: learner.create_opt()
    start_state = learner_state(learner)
    best_epoch = _Best(monitor, comp)
    stopping = [] if patience is None else [EarlyStoppingCallback(monitor, comp, patience=patience)]
    getattr(learner, fit)(n_epoch, lr, cbs=[*callbacks, best_epoch, *stopping], **kwargs)
    # without a recorded value this process resumes the second training, whose saved state knows where to stop
    if best_epoch.at is None and learner.recorder.values:
        scores = [epoch_values[best_epoch.idx] for epoch_values in learner.recorder.values]
        raise InputError(f'{monitor} was never better than nothing: {scores}')
    stop_after = _StopAfter(best_epoch.at)
    first_dls = learner.dls
    set_learner_state(learner, start_state)
    if dls is not None: learner.dls = dls
    try: getattr(learner, fit)(n_epoch, lr, cbs=[*callbacks, stop_after], **kwargs)
    finally: learner.dls = first_dls
    return stop_after.last


class CallbackMethods:
    "Mixin for subclasses of `Learner`, named before it: the functions of this folder that take a learner."
    fit_to_best = fit_to_best
    each_weights = snapshots.each_weights
    average_weights = snapshots.average_weights
    greedy_soup = snapshots.greedy_soup


def patch_callbacks():
    "Give every fastai `Learner` of this process the methods of `CallbackMethods`."
    patch_methods(CallbackMethods)
