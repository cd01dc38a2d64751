"Averaged weights: EMA and SWA beside the live ones, snapshots at the ends of cycles, averages and soups of saved files."
import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import find_bs, to_device
from fastcore.basics import patch
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import InputError
from ..optim.lookahead import Watch
from .state import Sleeper, loader_state, randomness_kept, set_loader_state


def _norms(model): return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def update_bn(
    learn,  # Learner whose training batches are shown to its model, whatever they are made of
    norms: list | None = None,  # BatchNorms to renew; default all
):
    "Make BatchNorm's running statistics anew for the weights as they are now: torch's own update feeds a batch's first element alone."
    norms, dl, dls = _norms(learn.model) if norms is None else norms, learn.dls.train, learn.dls
    if not norms: return
    was = {m: m.training for m in learn.model.modules()}
    kept = {m: (m.momentum, m.running_mean.clone(), m.running_var.clone()) for m in norms}
    state = loader_state(dl)
    # dropout and the heads' losses stay out of it, as they do in validation
    learn.model.eval()
    for m in norms:
        m.train()
        m.reset_running_stats()
        m.momentum = None
    try:
        with randomness_kept():
            for b in dl:
                n_inp = getattr(dls, 'n_inp', 1 if len(b) == 1 else len(b) - 1)
                if find_bs(b) > 1: learn.model(*to_device(b[:n_inp], next(learn.model.parameters()).device))
    finally:
        set_loader_state(dl, state)
        for m, o in was.items(): m.training = o
        for m, (momentum, mean, var) in kept.items():
            m.momentum = momentum
            # one that only training passes through
            if m.num_batches_tracked == 0: m.running_mean.copy_(mean), m.running_var.copy_(var)


class Averaged(Sleeper):
    "Keeps an average beside the weights; it is in the model in validation and from the end of a fit until the next, which goes on from the live weights."
    order = 40  # before trackers save and load

    def before_fit(self):
        if others := [o for o in self.learn.cbs if isinstance(o, Averaged) and o is not self]:
            raise InputError(f'{type(self).__name__} and {type(others[0]).__name__} would both be in the model for validation: use one of them')
        self.run = not hasattr(self.learn, 'lr_finder')
        # the last fit broke off with live weights in the model; whether they are still there nobody knows
        if self.run and not self.__dict__.get('_inside', True) and not self.learn.lock.locked(): self._start()

    def _start(self):
        "Begin anew with the weights as they are."
        self._other, self._inside, self._n, self._watch = [o.detach().clone() for o in self._live()], False, 0, None

    def _live(self): return [*self.learn.model.parameters(), *(b for b in self.learn.model.buffers() if b.is_floating_point())]

    def before_train(self):
        live = self._live()
        if '_other' not in self.__dict__ or [o.shape for o in self._other] != [o.shape for o in live]: self._start()
        # loaded from somewhere else, the best model's for one
        elif self._inside and self._watch is not None and self._watch.changed(): self._start()
        self._other = [o.to(p.device) for o, p in zip(self._other, live)]
        if self._inside: self._swap()
        self._skipped, self._moving = False, False

    @torch.no_grad()
    def _swap(self):
        for p, o in zip(self._live(), self._other, strict=True):
            kept = p.clone()
            p.copy_(o)
            o.copy_(kept)
        self._inside = not self._inside

    def _show(self):
        "Put the average into the model."
        if '_other' not in self.__dict__ or self._inside or not self._n: return
        self._swap()
        self._remember()

    def _remember(self):
        self._watch = Watch(list(self.learn.model.parameters()))
        self._watch.leave()

    def after_cancel_step(self): self._skipped = True
    def before_validate(self): self._show()
    def after_fit(self): self._show()

    @torch.no_grad()
    def _blend(self, by):
        live = self._live()
        if {o.dtype for o in live} == {torch.float32}: torch._foreach_lerp_(self._other, live, by)
        else:
            for o, p in zip(self._other, live): o.lerp_(p, by)

    def state_dict(self):
        if '_other' not in self.__dict__: return {}
        return dict(other=[o.clone() for o in self._other], inside=self._inside, n=self._n)

    def load_state_dict(self, sd):
        if not sd: return
        self._other, self._inside, self._n = [o.clone() for o in sd['other']], sd['inside'], sd['n']
        self._remember()


class EMA(Averaged):
    "An exponential moving average of weights and BatchNorm's statistics, stepped with the optimizer (skipped steps don't count)."
    def __init__(
        self,
        decay: float = .99,  # Share of the average kept at each step: it looks back over about 1/(1-decay) steps
        warmup: bool = True,  # Less at first, (1+t)/(10+t), so that what training began with is soon forgotten
    ):
        if not 0 <= decay < 1: raise InputError(f'decay={decay}: 0 or above, below 1')
        self.decay, self.warmup = decay, warmup

    def after_step(self):
        skipped, self._skipped = self._skipped, False
        if skipped: return
        self._n += 1
        self._blend(1 - min(self.decay, (1 + self._n) / (10 + self._n) if self.warmup else 1.))


class SWA(Averaged):
    "The mean of the weights at the ends of the last epochs, with BatchNorm's statistics made anew for it, https://arxiv.org/abs/1803.05407"
    def __init__(
        self,
        start: float = .75,  # Share of training after which epochs count
    ):
        if not 0 <= start < 1: raise InputError(f'start={start}: 0 or above, below 1')
        self.start = start

    def before_fit(self):
        super().before_fit()
        # each fit's mean is its own
        if self.run and not self.learn.lock.locked() and '_other' in self.__dict__: self._n = 0

    def after_step(self):
        self._moving = self._moving or not self._skipped
        self._skipped = False

    def after_train(self):
        self._norms = [m for m in _norms(self.learn.model) if m.training]
        if not self._moving or (self.epoch + 1) / self.n_epoch <= self.start: return
        self._moving = False
        self._n += 1
        self._blend(1 / self._n)

    def before_validate(self):
        # earlier the mean is judged no better than the weights, and its statistics would cost a pass each
        if self.epoch == self.n_epoch - 1 and not self.learn.lock.locked(): self._show()

    def _show(self):
        inside = self.__dict__.get('_inside', True)
        super()._show()
        if not inside and self._inside: update_bn(self.learn, self.__dict__.get('_norms'))

    def after_fit(self):
        super().after_fit()
        self.__dict__.pop('_norms', None)


class Snapshots(Sleeper):
    "Saves the model at the end of each cycle, https://arxiv.org/abs/1704.00109: the live weights, but beside `EMA` or `SWA` the last file holds the average."
    order, run_valid = 66, False  # after the scheduler has set the rate

    def __init__(
        self,
        fname: str = 'snapshot',  # `files` are `fname_0.pth` and so on, where `learn.save` puts them
    ):
        self.fname = fname

    def before_fit(self):
        self.run = not hasattr(self.learn, 'lr_finder') and not self.learn.lock.locked()
        if self.run: self.files, self._rate, self._fell = [], None, False

    def before_batch(self):
        rate = float(self.opt.hypers[-1]['lr'])
        # a rise after a fall; a warm-up rises from the start
        if self._rate is not None and rate > self._rate and self._fell: self._save()
        self._fell = self._rate is not None and (rate < self._rate or (self._fell and rate == self._rate))
        self._rate = rate

    def _save(self): self.files.append(self.learn.save(f'{self.fname}_{len(self.files)}', with_opt=False))

    def after_fit(self):
        if self._rate is not None: self._save()

    def state_dict(self): return dict(files=[str(o) for o in self.files], rate=self._rate, fell=self._fell)

    def load_state_dict(self, sd):
        from pathlib import Path
        self.files, self._rate, self._fell = [Path(o) for o in sd['files']], sd['rate'], sd['fell']


def _read(learn, file) -> dict:
    state = torch.load(file, map_location=next(learn.model.parameters()).device, weights_only=True)
    return state['model'] if set(state) == {'model', 'opt'} else state


def _mean(states) -> dict:
    "The mean of state dicts, summed in float64; what isn't floating point is the last one's."
    n, total = 0, {}
    for sd in states:
        n += 1
        for k, v in sd.items(): total[k] = (total[k] + v.double() if k in total else v.double()) if v.is_floating_point() else v
    if not n: raise InputError('no files to average')
    return {k: (v / n).to(sd[k].dtype) if v.is_floating_point() else v for k, v in total.items()}


@patch
def each_weights(
    self: Learner,
    files,  # Weights saved by `learn.save`, `SaveModelCallback` or `Snapshots`
):
    "The Learner with each file's weights in turn, then its own again: `sum(o.get_preds()[0] for o in learn.each_weights(files)) / len(files)`"
    own = {k: v.clone() for k, v in self.model.state_dict().items()}
    try:
        for f in files:
            self.model.load_state_dict(_read(self, f))
            yield self
    finally: self.model.load_state_dict(own)


@patch
def average_weights(
    self: Learner,
    files,  # As for `each_weights`
):
    "Load the mean of saved weights, and make BatchNorm's statistics anew for it."
    self.model.load_state_dict(_mean(_read(self, f) for f in files))
    update_bn(self)


@patch
def greedy_soup(
    self: Learner,
    files,  # As for `each_weights`
    monitor: str = 'valid_loss',  # A recorded value of validation
    comp=None,  # `np.less` or `np.greater`; default by the name, as fastai's trackers
) -> tuple[list, float]:  # (files that went in, the score of their mean)
    "Load the mean of those files that, taken from the best down, don't make it worse, https://arxiv.org/abs/2203.05482"
    comp = comp or (np.less if 'loss' in monitor or 'error' in monitor else np.greater)

    def score():
        values = list(self.validate())
        names = [o for o in self.recorder.metric_names if o not in ('epoch', 'train_loss', 'time')]
        if monitor not in names: raise InputError(f'monitor={monitor!r}: this Learner records {names}')
        return float(values[names.index(monitor)])

    files = list(files)
    alone = [score() for _ in self.each_weights(files)]
    # weights without a score are none to begin with
    order = sorted((i for i, o in enumerate(alone) if not np.isnan(o)), key=lambda i: alone[i], reverse=comp is np.greater)
    if files and not order: raise InputError(f'{monitor} is NaN with each of {len(files)} files')
    kept, best = [], None
    for i in order:
        self.average_weights([files[j] for j in [*kept, i]])
        now = score()
        if best is None or now == best or comp(now, best): kept, best = [*kept, i], now
    self.average_weights([files[j] for j in kept])
    return [files[j] for j in kept], best
