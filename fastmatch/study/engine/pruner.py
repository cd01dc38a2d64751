"Pruning as a fastai callback: one count of epochs over all fits of a trial, and a trial that is through is never pruned."
from fastai.callback.core import Callback

from .work import WrongStudy

LOWER = ('loss', 'error', 'mse', 'mae', 'perplexity', 'hamming')  # fastai's rule, and its metrics that the rule forgets
HIGHER = ('recall', 'precision', 'map@r', 'f1', 'fbeta', 'accuracy', 'score', 'auc', 'dice', 'jaccard', 'kappa', 'r2', 'matthews', 'pearson', 'spearman')


def direction_of(
    monitor: str,  # A recorded value
) -> str | None:  # 'minimize', 'maximize'; None for a name that says nothing
    "Which way a recorded value gets better, by its name."
    name = monitor.lower()
    if any(o in name for o in LOWER): return 'minimize'
    return 'maximize' if any(o in name for o in HIGHER) else None


def check_direction(
    monitor: str,  # A recorded value
    direction: str,  # The study's
):
    "Raise `WrongStudy` where a study would look for the worst."
    if direction_of(monitor) not in (None, direction):
        raise WrongStudy(f'monitor={monitor!r} gets better the other way: the study is to {direction} it, give direction={direction_of(monitor)!r}')


class PruneTrial(Callback):
    "Reports `monitor` after each epoch of a trial and ends it where the study's pruner says so, before its next epoch."
    order, remove_on_fetch = 70, True  # after Recorder and every tracker

    def __init__(
        self,
        trial,  # Optuna trial
        monitor: str = 'recall@1',  # A recorded value
    ):
        self.trial, self.monitor = trial, monitor
        # epochs of earlier fits; the values reported by step, the first epoch's being 1
        self.earlier, self.reported, self._asked = 0, {}, 0
        if (study := getattr(trial, 'study', None)) is not None: check_direction(monitor, study.direction.name.lower())

    @property
    def step(self) -> int: return max(self.reported, default=0)  # the last epoch reported, over all fits

    @property
    def value(self) -> float: return self.reported[self.step]  # its value

    def before_fit(self):
        self.run = not hasattr(self.learn, 'lr_finder') and not self.learn.lock.locked()
        if not self.run: return
        names = list(self.recorder.metric_names[1:])
        if self.monitor not in names: raise WrongStudy(f'monitor={self.monitor!r}: this Learner records {[o for o in names if o != "time"]}')
        self.idx = names.index(self.monitor)

    def _report(self):
        # a row for each epoch of this fit: those that Resume brought back are there too, those that `start_epoch` skipped have no scores
        for i, row in enumerate(self.recorder.values):
            if (step := self.earlier + i + 1) in self.reported or len(row) <= self.idx: continue
            self.reported[step] = float(row[self.idx])
            self.trial.report(self.reported[step], step)

    def before_epoch(self):
        # not after an epoch: only here is it known that the trial isn't through, whatever fits a recipe is made of
        self._report()
        if self.step == self._asked: return
        self._asked = self.step
        if not self.trial.should_prune(): return
        from optuna.exceptions import TrialPruned
        raise TrialPruned(f'after epoch {self.step}, {self.monitor} {self.value:.4f}')

    def after_epoch(self): self._report()

    def after_fit(self):
        # a tracker that ends a fit does so before the epoch's end comes to us
        self._report()
        # a fit may have ended early; one that Resume found done ran no epoch and counts with all
        self.earlier += self.learn.epoch + 1
