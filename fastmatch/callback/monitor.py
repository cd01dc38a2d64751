"A check before a training that the values which callbacks watch are recorded."
from fastai.callback.core import Callback
from fastai.callback.tracker import TrackerCallback

from ..core import InputError
from .base import in_lr_find, only_validating


class MonitorCheck(Callback):
    "Raises `InputError` where a tracker (`SaveModelCallback`, ...) watches a value that is not recorded."
    order = TrackerCallback.order - 1  # after the Recorder has its names, before a tracker looks for its own

    def before_fit(self):
        if in_lr_find(self.learn) or only_validating(self.learn) or not hasattr(self, 'recorder'): return
        # the time of an epoch is shown and not kept
        recorded = [name for name in self.recorder.metric_names[1:] if name != 'time']
        for callback in self.learn.cbs:
            if not isinstance(callback, TrackerCallback) or callback.monitor in recorded: continue
            raise InputError(f'{type(callback).__name__}: monitor={callback.monitor!r}: '
                             f'this Learner records {recorded}')
