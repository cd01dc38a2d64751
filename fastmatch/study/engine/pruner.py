"Pruning as a fastai callback: it counts epochs over all fits of a trial, and never prunes a finished trial."
from fastai.callback.core import Callback

from ...callback.base import in_lr_find
from ...schedule.fit import only_validating
from .work import WrongStudy

# Parts of names: 'loss' and 'error' as in fastai's trackers, the others are metrics that its rule forgets.
LOWER_IS_BETTER = ('loss', 'error', 'mse', 'mae', 'perplexity', 'hamming')
HIGHER_IS_BETTER = ('recall', 'precision', 'map@r', 'f1', 'fbeta', 'accuracy', 'score', 'auc', 'dice',
                    'jaccard', 'kappa', 'r2', 'matthews', 'pearson', 'spearman')


def direction_of(
    monitor: str,  # Name of a recorded value: 'valid_loss', 'recall@1'
) -> str | None:  # 'minimize' or 'maximize'; None where the name shows neither
    "Which way a recorded value gets better, by its name."
    lowercase_monitor = monitor.lower()
    if any(name_part in lowercase_monitor for name_part in LOWER_IS_BETTER): return 'minimize'
    return 'maximize' if any(name_part in lowercase_monitor for name_part in HIGHER_IS_BETTER) else None


def check_direction(
    monitor: str,  # Name of a recorded value
    direction: str,  # 'minimize' or 'maximize': the study's
):
    "Raise `WrongStudy` where a study would search for the worst value."
    better = direction_of(monitor)
    if better not in (None, direction):
        raise WrongStudy(f'monitor={monitor!r} gets better the other way: the study is to {direction} it, '
                         f'give direction={better!r}')


class PruneTrial(Callback):
    """Reports `monitor` to Optuna after each epoch of a trial, and ends the trial before its next epoch where
    the study's pruner says so.

    Add it to the Learner that a trial trains, `learn.add_cb(PruneTrial(trial, 'recall@1'))`;
    `learn.prune_trial.value` is then the trial's value. Whether another epoch follows is known only when it
    begins, so the pruner is asked at that moment: a finished trial can't be pruned."""
    order = 70  # after Recorder and every tracker
    remove_on_fetch = True

    def __init__(
        self,
        trial,  # Optuna trial
        monitor: str = 'recall@1',  # Name of a recorded value
    ):
        from optuna.trial import Trial
        self.trial, self.monitor = trial, monitor
        self.epochs_before = 0  # run in earlier fits of this trial
        self.reported = {}  # epoch, counted from 1 over all fits -> value
        self.last_asked = 0  # the epoch after which the pruner was asked last
        if isinstance(trial, Trial): check_direction(monitor, trial.study.direction.name.lower())

    @property
    def step(self) -> int:
        "The last epoch that was reported, counted over all fits; 0 before the first."
        return max(self.reported, default=0)

    @property
    def value(self) -> float:
        "The value of `monitor` after the last epoch."
        return self.reported[self.step]

    def before_fit(self):
        self.run = not in_lr_find(self.learn) and not only_validating(self.learn)
        if not self.run: return
        recorder_columns = list(self.recorder.metric_names[1:])
        if self.monitor not in recorder_columns:
            recorded = [column for column in recorder_columns if column != 'time']
            raise WrongStudy(f'monitor={self.monitor!r}: this Learner records {recorded}')
        self.column = recorder_columns.index(self.monitor)

    def _report_new_epochs(self):
        # The Recorder has a row for each epoch of this fit: those that Resume brought back are among them,
        # those that `start_epoch` skipped have no scores.
        for epoch, epoch_values in enumerate(self.recorder.values, start=self.epochs_before + 1):
            if epoch in self.reported or len(epoch_values) <= self.column: continue
            self.reported[epoch] = float(epoch_values[self.column])
            self.trial.report(self.reported[epoch], epoch)

    def before_epoch(self):
        self._report_new_epochs()
        if self.step == self.last_asked: return
        self.last_asked = self.step
        if not self.trial.should_prune(): return
        from optuna.exceptions import TrialPruned
        raise TrialPruned(f'after epoch {self.step}, {self.monitor} {self.value:.4f}')

    def after_epoch(self): self._report_new_epochs()

    def after_fit(self):
        # a tracker that ends a fit does so before this callback's `after_epoch` is called
        self._report_new_epochs()
        # the fit may have ended early; one that Resume found complete ran no epoch but counts in full
        self.epochs_before += self.learn.epoch + 1
