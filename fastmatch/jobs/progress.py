"What a job prints while it runs: its stages with their seconds, a bar over the steps, a line for each epoch."
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from fastai.callback.core import Callback
from tqdm.auto import tqdm

from ..core import InputError


class Stages:
    "Prints which stage runs and keeps the seconds that each took."
    def __init__(
        self,
        echo,  # Called with a line of text
        seconds=None,  # Dict to keep them in; default a new one
    ):
        self.echo = echo
        self.seconds = {} if seconds is None else seconds

    @contextmanager
    def __call__(
        self,
        name: str,  # Key in `seconds`
        what: str,  # The work in words, for the line that is printed
    ):
        self.echo(f'{what} ...')
        started_at = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started_at, 2)


class StepBar(Callback):
    "A bar over the steps of an epoch, in a terminal only; ends a training whose loss is no longer finite."
    def __init__(
        self,
        lr: float,  # Learning rate, for the message
    ):
        self.lr = lr

    def before_train(self):
        # disable=None: tqdm draws nothing where the output is not a terminal
        bar_title = f'epoch {self.epoch + 1}/{self.n_epoch}'
        self.bar = tqdm(total=len(self.dls.train), desc=bar_title, leave=False, disable=None)

    def after_batch(self):
        if not self.training: return
        self.bar.update()
        if torch.isfinite(self.loss): return
        raise InputError(f'lr={self.lr}: the loss is {self.loss.item()} in epoch {self.epoch + 1}, '
                         f'batch {self.iter + 1}; lower the rate')

    def after_train(self): self.bar.close()


def epoch_logger(
    learner,  # fastai Learner
    echo,  # Called with a line of text
):  # For `learn.logger`
    "A logger that prints each epoch's values in a line, without the notebook's bar."
    def log(values):
        if learner.epoch == 0:
            echo('  ' + ' '.join(f'{metric:>11}' for metric in learner.recorder.metric_names))
        cells = (f'{value:>11.4f}' if isinstance(value, float) else f'{value:>11}' for value in values)
        echo('  ' + ' '.join(cells))
    return log


def suggested_rate(
    learner,  # fastai Learner
    echo,  # Called with a line of text
) -> float:
    "The learning rate that `lr_find` suggests. The weights it saves meanwhile go into a temporary folder."
    earlier_path = learner.path
    with tempfile.TemporaryDirectory() as folder:
        learner.path = Path(folder)
        suggested_lr = float(learner.lr_find(show_plot=False).valley)
    learner.path = earlier_path
    echo(f'  lr_find: learning rate {suggested_lr:.2g}')
    return suggested_lr
