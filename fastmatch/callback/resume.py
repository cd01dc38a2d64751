"""Training that survives its process: the same call in a new one goes on after the last completed epoch."""
import atexit
import io
import os
import uuid
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import CancelEpochException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Recorder

from ..core import InputError
from ..processes import n_joined, process_number
from ..schedule import WarmUp
from ..schedule.fit import only_validating
from ..store import write_atomically
from .base import SkippableCallback, in_lr_find
from .state import learner_state, set_learner_state

# The attributes that callbacks without a `state_dict` go on with; other callbacks begin a resumed fit as any.
KEPT = {Recorder: ('lrs', 'iters', 'losses', 'values'), TrackerCallback: ('best', 'wait', 'new_best'),
        ParamScheduler: ('hps',), WarmUp: ('done',)}
# Marks the files that this process saves: it was not killed, so the same call made in it is a new training.
PROCESS = uuid.uuid4().hex
# Files of trainings that are done; they are deleted when the process ends.
_finished = set()


@atexit.register
def _delete_finished():
    for resume_file in _finished: resume_file.unlink(missing_ok=True)


def _to_plain(value):
    "`value` made of torch's and python's own types, so that it can be read back with `weights_only=True`."
    if torch.is_tensor(value): return value.detach().as_subclass(torch.Tensor)
    if isinstance(value, np.generic): return value.item()
    if isinstance(value, np.ndarray):
        # numpy keeps its random state in uint32, which torch hardly supports
        stored_array = value.astype(np.int64) if value.dtype == np.uint32 else value.copy()
        return {'array': torch.from_numpy(stored_array)}
    if isinstance(value, dict): return {key: _to_plain(nested_value) for key, nested_value in value.items()}
    if isinstance(value, tuple): return tuple(map(_to_plain, value))
    if isinstance(value, Path): return str(value)
    if value is None or isinstance(value, (str, bytes, int, float, bool)): return value
    return [_to_plain(nested_value) for nested_value in value]


def _fingerprint(loader) -> int:
    "A checksum of a loader's listings, as far as it can be computed quickly; else their number."
    items = getattr(loader, 'items', None)
    if hasattr(items, 'to_csv'):
        from pandas.util import hash_pandas_object
        return zlib.crc32(hash_pandas_object(items.astype(str), index=False).to_numpy().tobytes())
    if items is None or not len(items) or not isinstance(items[0], (str, Path, int)): return loader.n or 0
    return zlib.crc32('\n'.join(map(str, items)).encode())


def _has_state(callback) -> bool:
    # asked of the class: a callback looks up what it lacks in the model, which has a `state_dict` too
    return hasattr(type(callback), 'state_dict')


def _callback_state(callback) -> dict:
    "What a callback goes on with when a training is resumed."
    if _has_state(callback): return callback.state_dict()
    state = {}
    for callback_class, attributes in KEPT.items():
        if not isinstance(callback, callback_class): continue
        for attribute in attributes:
            if attribute in callback.__dict__: state[attribute] = getattr(callback, attribute)
    if callback.name == 'recorder':
        # thousands of numbers as one tensor
        state['losses'] = torch.tensor([float(loss) for loss in state['losses']])
        state['smooth'] = {'count': callback.smooth_loss.count, 'val': callback.smooth_loss.val}
    return state


def _set_callback_state(callback, saved_name, state):
    "Let a callback go on from what `_callback_state` returned; `saved_name` is the callback's in the file."
    if _has_state(callback): callback.load_state_dict(state)
    elif saved_name == 'recorder':
        callback.smooth_loss.count = state['smooth']['count']
        callback.smooth_loss.val = state['smooth']['val']
        callback.losses = list(state['losses'])
        for attribute in ('lrs', 'iters', 'values'): setattr(callback, attribute, state[attribute])
    else:
        for attribute, saved_value in state.items(): setattr(callback, attribute, saved_value)


def _shares_steps(learner) -> bool:
    "Whether a learner is going to train together with other processes."
    if not torch.distributed.is_initialized(): return False
    # importing accelerate takes a while, and few need it
    from .distributed import SharedTrainer
    return any(isinstance(callback, SharedTrainer) for callback in learner.cbs)


class Resume(SkippableCallback):
    """Saves all that training needs after each epoch, so that the same call in a new process goes on where it
    was killed.

    On a CPU the result is bit for bit that of a training that was not interrupted, if the number of threads
    is the same. Give it to every fit of a script or to none: fits are counted, and those that were done
    before are passed over. A call that differs (other epochs, data, weights, optimizer, rates or callbacks)
    raises `InputError`. The file is deleted when the process ends normally.
    """
    order = -1000  # before any other callback of the next epoch, and so after all of the last one

    def __init__(
        self,
        fname: str = 'resume',  # Name of the file, in the Learner's folder for models; one for each training
    ):
        self.fname = fname

    @property
    def file(self) -> Path:
        "Where the state is saved; of several processes each has a file."
        number = process_number()
        name = f'{self.fname}_{number}' if number else self.fname
        return self.learn.path/self.learn.model_dir/f'{name}.pth'

    def _read(self):
        "The latest state that was saved, of several processes the latest that all of them have; or None."
        files = [self.file, self.file.with_suffix('.next')]
        states = [torch.load(file, map_location='cpu', weights_only=True) for file in files if file.exists()]
        by_progress = {(state['fit'], state['done']): state for state in states}
        if _shares_steps(self.learn):
            have = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(have, list(by_progress))
            of_all = set.intersection(*map(set, have))
            by_progress = {progress: by_progress[progress] for progress in of_all}
        return by_progress[max(by_progress)] if by_progress else None

    def _stateful_callbacks(self) -> list:
        "The Learner's callbacks whose state is saved."
        kinds = tuple(KEPT)
        callbacks = self.learn.cbs
        return [callback for callback in callbacks if _has_state(callback) or isinstance(callback, kinds)]

    def _describe_call(self) -> dict:
        "What must agree for a call to be the same call."
        optimizer = self.learn.opt
        parameters = [(weight_name, tuple(parameter.shape), parameter.requires_grad)
                      for weight_name, parameter in self.learn.model.named_parameters()]
        callback_names = [callback.name for callback in self.learn.cbs]
        return dict(epochs=self.learn.n_epoch, batches=len(self.learn.dls.train),
                    data=[_fingerprint(loader) for loader in self.learn.dls.loaders],
                    weights=zlib.crc32(repr(parameters).encode()),
                    optimizer=type(getattr(optimizer, 'opt', optimizer)).__name__,
                    rates=[float(hypers['lr']) for hypers in optimizer.hypers],
                    callbacks=sorted(name for name in callback_names if name not in ('progress', 'resume')))

    def before_fit(self):
        self.run = not in_lr_find(self.learn) and not only_validating(self.learn)
        if not self.run: return
        # the number of this fit among those of the script
        fit_numbers = self.learn.__dict__.setdefault('fits_begun', {})
        self._fit_number = fit_numbers.get(self.fname, -1) + 1
        fit_numbers[self.fname] = self._fit_number
        self._state = None  # what to restore
        self._done = 0  # epochs that were done before
        self._others = {}  # callbacks that pass over those epochs -> their `run`
        self._call = self._describe_call()
        saved = self._read()
        if saved is None or saved['process'] == PROCESS: return
        if saved['fit'] < self._fit_number: return
        self._go_on_from(saved)

    def _go_on_from(self, saved_state):
        "Prepare to resume this fit from a saved state, or to pass over it if a later one was reached."
        if saved_state['fit'] > self._fit_number: self._done = self.learn.n_epoch
        else:
            self._refuse_other_call(saved_state['call'])
            self._state = saved_state
            self._done = saved_state['done']
        n_threads = torch.get_num_threads()
        if saved_state['threads'] != n_threads:
            warnings.warn(f'resumed with {n_threads} threads, begun with {saved_state["threads"]}: '
                          'sums are rounded otherwise', stacklevel=3)
        print(f'Resume: {self._done} of {self.learn.n_epoch} epochs were done before; '
              f'to train anew delete {self.file}')

    def _refuse_other_call(self, saved_call):
        "Raise `InputError` where a saved call is not this one."
        differences = [f'{setting} were {saved_call[setting]}, now {current}'
                       for setting, current in self._call.items()
                       if saved_call[setting] != _to_plain(current)]
        if not differences: return
        raise InputError(f'{self.file} is of another call ({"; ".join(differences)}): '
                         'delete it, or give Resume another fname')

    def before_epoch(self):
        if self.epoch < self._done: self._pass_over_epoch()
        if self._others: self._wake_others()
        elif self.epoch: self._save(self.epoch)

    def _pass_over_epoch(self):
        "Skip an epoch that was done before, unseen by other callbacks: trackers would look for its scores."
        if not self._others:
            self._others = {callback: callback.run for callback in self.learn.cbs if callback is not self}
            for callback in self._others: callback.run = False
        # only the progress bar has to see it, as it can't begin in the middle
        for callback in self._others:
            if isinstance(callback, ProgressCallback): callback.before_epoch()
        raise CancelEpochException

    def _wake_others(self):
        "Let the other callbacks run again, and put everything back where it was."
        for callback, did_run in self._others.items(): callback.run = did_run
        self._others = {}
        if self._state is not None: self._restore(self._state)

    def after_fit(self):
        # all epochs were done before
        if self._others: self._wake_others()
        if self._done < self.learn.n_epoch or self._state is not None: self._save(self.learn.n_epoch)
        _finished.add(self.file)
        self._state = None

    def _save(self, epochs_done):
        "Write the state after `done` epochs to the file."
        loss_scaler = getattr(self.learn, 'scaler', None)
        callbacks = [(callback.name, _callback_state(callback)) for callback in self._stateful_callbacks()]
        full_state = dict(learner_state(self.learn), process=PROCESS, fit=self._fit_number, done=epochs_done,
                          call=self._call, threads=torch.get_num_threads(), cbs=callbacks,
                          scaler=None if loss_scaler is None else loss_scaler.state_dict(),
                          epoch=self.learn.epoch, train_iter=self.learn.train_iter)
        buffer = io.BytesIO()
        torch.save(_to_plain(full_state), buffer)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if n_joined() == 1: return write_atomically(self.file, buffer.getvalue())
        # a kill leaves a state that all processes have: the former until all have written the new one
        waiting = self.file.with_suffix('.next')
        write_atomically(waiting, buffer.getvalue())
        torch.distributed.barrier()
        os.replace(waiting, self.file)

    def _restore(self, saved_state):
        "Put Learner, loss scaler and callbacks where they were when `state` was saved."
        def to_numpy(part): return part['array'].numpy() if isinstance(part, dict) else part
        saved_state['random']['numpy'] = tuple(map(to_numpy, saved_state['random']['numpy']))
        set_learner_state(self.learn, saved_state)
        self.learn.epoch = max(self.learn.epoch, saved_state['epoch'])
        self.learn.train_iter = saved_state['train_iter']
        if saved_state['scaler']: self.learn.scaler.load_state_dict(saved_state['scaler'])
        for callback, (saved_name, state) in zip(self._stateful_callbacks(), saved_state['cbs'], strict=True):
            _set_callback_state(callback, saved_name, state)
