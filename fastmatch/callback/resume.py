"Training that survives its process: the same call again goes on after the last epoch that was completed."
import atexit
import io
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

from ..core import InputError, write_atomically
from ..schedule import WarmUp
from .scoring import TrainedOn
from .state import Sleeper, learner_state, set_learner_state

# what fastai's callbacks and ours without a `state_dict` go on with; others begin each resumed fit as they begin any
KEPT = {Recorder: ('lrs', 'iters', 'losses', 'values'), TrackerCallback: ('best', 'wait', 'new_best'), ParamScheduler: ('hps',), WarmUp: ('done',),
        TrainedOn: ('ids',)}
PROCESS = uuid.uuid4().hex  # in a process that is still there nothing was killed: a call made twice in it is two calls
_finished = set()


@atexit.register
def _tidy():
    for f in _finished: f.unlink(missing_ok=True)


def _plain(x):
    "Of torch's and python's own types alone, so that it can be read back without pickle's dangers."
    if torch.is_tensor(x): return x.detach().as_subclass(torch.Tensor)
    if isinstance(x, np.generic): return x.item()
    if isinstance(x, np.ndarray): return {'array': torch.from_numpy(x.astype(np.int64) if x.dtype == np.uint32 else x.copy())}
    if isinstance(x, dict): return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, tuple): return tuple(map(_plain, x))
    if isinstance(x, Path): return str(x)
    if x is None or isinstance(x, (str, bytes, int, float, bool)): return x
    return [_plain(o) for o in x]


def _fingerprint(dl) -> int:
    "Of what a loader's listings are, as far as that can be told quickly."
    items = getattr(dl, 'items', None)
    if hasattr(items, 'to_csv'):
        from pandas.util import hash_pandas_object
        return zlib.crc32(hash_pandas_object(items.astype(str), index=False).to_numpy().tobytes())
    if items is None or not len(items) or not isinstance(items[0], (str, Path, int)): return dl.n or 0
    return zlib.crc32('\n'.join(map(str, items)).encode())


def _averages(recorder): return {'count': recorder.smooth_loss.count, 'val': recorder.smooth_loss.val}


class Resume(Sleeper):
    "Saves all that training needs after each epoch; the same call in a new process goes on there, on a CPU bit for bit. Give it to every fit of a script, or none."
    order = -1000  # before any other callback of the next epoch, and so after all of the last one

    def __init__(
        self,
        fname: str = 'resume',  # File in the Learner's folder for models: one for each training that may be under way there
    ):
        self.fname = fname

    @property
    def file(self) -> Path: return self.learn.path/self.learn.model_dir/f'{self.fname}.pth'

    def _stateful(self):
        "Each callback that has a state, by name."
        for cb in self.learn.cbs:
            # by its class: a callback answers names it lacks from the model, and that has a `state_dict` too
            if hasattr(type(cb), 'state_dict') or isinstance(cb, tuple(KEPT)): yield cb

    def _call(self) -> dict:
        "What makes a call the same call."
        opt, model = self.learn.opt, self.learn.model
        return dict(epochs=self.learn.n_epoch, batches=len(self.learn.dls.train), data=[_fingerprint(o) for o in self.learn.dls.loaders],
                    weights=zlib.crc32(repr([(k, tuple(p.shape), p.requires_grad) for k, p in model.named_parameters()]).encode()),
                    optimizer=type(getattr(opt, 'opt', opt)).__name__, rates=[float(h['lr']) for h in opt.hypers],
                    callbacks=sorted(cb.name for cb in self.learn.cbs if cb.name not in ('progress', 'resume')))

    def before_fit(self):
        self.run = not hasattr(self.learn, 'lr_finder') and not self.learn.lock.locked()
        if not self.run: return
        fits = self.learn.__dict__.setdefault('fits_begun', {})
        self._fit = fits[self.fname] = fits.get(self.fname, -1) + 1
        self._state, self._done, self._others, self._same = None, 0, {}, self._call()
        state = torch.load(self.file, map_location='cpu', weights_only=True) if self.file.exists() else None
        if state is None or state['process'] == PROCESS: return
        if state['fit'] < self._fit: return
        if state['fit'] > self._fit: self._done = self.learn.n_epoch  # a later fit of the script was reached
        else:
            if differ := [f'{k} were {state["call"][k]}, now {v}' for k, v in self._same.items() if state['call'][k] != _plain(v)]:
                raise InputError(f'{self.file} is of another call ({"; ".join(differ)}): delete it, or give Resume another fname')
            self._state, self._done = state, state['done']
        if state['threads'] != torch.get_num_threads():
            warnings.warn(f'resumed with {torch.get_num_threads()} threads, begun with {state["threads"]}: sums are rounded otherwise', stacklevel=2)
        print(f'Resume: {self._done} of {self.learn.n_epoch} epochs were done before; to train anew delete {self.file}')

    def before_epoch(self):
        if self.epoch < self._done:
            # nobody else hears of an epoch that is not there: trackers would look for its scores
            if not self._others:
                self._others = {cb: cb.run for cb in self.learn.cbs if cb is not self}
                for cb in self._others: cb.run = False
            # but for the bar, which can't begin in the middle
            for cb in self._others:
                if isinstance(cb, ProgressCallback): cb.before_epoch()
            raise CancelEpochException
        if self._others: self._wake()
        elif self.epoch: self._save(self.epoch)

    def _wake(self):
        for cb, run in self._others.items(): cb.run = run
        self._others = {}
        if self._state is not None: self._restore(self._state)

    def after_fit(self):
        # epochs that all were done, or none
        if self._others: self._wake()
        if self._done < self.learn.n_epoch or self._state is not None: self._save(self.learn.n_epoch)
        _finished.add(self.file)
        self._state = None

    def _save(self, done):
        cbs = [(cb.name, cb.state_dict() if hasattr(type(cb), 'state_dict') else
                {k: getattr(cb, k) for o, ks in KEPT.items() if isinstance(cb, o) for k in ks if k in cb.__dict__}) for cb in self._stateful()]
        for name, sd in cbs:
            # thousands of numbers as one tensor
            if name == 'recorder': sd.update(losses=torch.tensor([float(o) for o in sd['losses']]), smooth=_averages(self.learn.recorder))
        scaler = getattr(self.learn, 'scaler', None)
        state = dict(learner_state(self.learn), process=PROCESS, fit=self._fit, done=done, call=self._same, threads=torch.get_num_threads(), cbs=cbs,
                     scaler=None if scaler is None else scaler.state_dict(), epoch=self.learn.epoch, train_iter=self.learn.train_iter)
        buffer = io.BytesIO()
        torch.save(_plain(state), buffer)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, buffer.getvalue())

    def _restore(self, state):
        def back(x): return x['array'].numpy() if isinstance(x, dict) and set(x) == {'array'} else x
        state['random']['numpy'] = tuple(map(back, state['random']['numpy']))
        set_learner_state(self.learn, state)
        self.learn.epoch, self.learn.train_iter = max(self.learn.epoch, state['epoch']), state['train_iter']
        if state['scaler']: self.learn.scaler.load_state_dict(state['scaler'])
        for cb, (name, sd) in zip(self._stateful(), state['cbs'], strict=True):
            if hasattr(type(cb), 'state_dict'): cb.load_state_dict(sd)
            elif name == 'recorder':
                cb.smooth_loss.count, cb.smooth_loss.val = sd['smooth']['count'], sd['smooth']['val']
                cb.lrs, cb.iters, cb.losses, cb.values = sd['lrs'], sd['iters'], list(sd['losses']), sd['values']
            else:
                for k, v in sd.items(): setattr(cb, k, set(v) if k == 'ids' else v)
