"PyTorch's learning-rate schedulers in a fastai training, over any optimizer."
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler

from ..core import InputError
from .fit import only_validating


class TorchSchedule(Callback):
    """Lets a scheduler of `torch.optim.lr_scheduler` set the rates, and the momentum where it cycles that
    too: `learn.fit(10, 1e-3, cbs=TorchSchedule(partial(CosineAnnealingLR, T_max=10)))`.

    PyTorch's schedulers take PyTorch's optimizers alone. Here they get one that stands in for the learner's,
    with the same parameter groups and rates; what they set there is set in the learner's.
    """
    order, run_valid = ParamScheduler.order, False

    def __init__(
        self,
        make_scheduler,  # (torch optimizer) -> scheduler, e.g. `partial(StepLR, step_size=3)`
        by: str = 'epoch',  # When the scheduler takes a step: 'epoch' or 'batch' (`OneCycleLR`, `CyclicLR`)
    ):
        if by not in ('epoch', 'batch'): raise InputError(f"by={by!r}: choose 'epoch' or 'batch'")
        self.make_scheduler = make_scheduler
        self.by = by

    def before_fit(self):
        # lr_find has a schedule of its own, and a validation has no rates
        self.run = not hasattr(self.learn, 'lr_finder') and not only_validating(self.learn)
        if not self.run: return
        others = [type(callback).__name__ for callback in self.learn.cbs
                  if callback is not self and 'lr' in scheduled_hypers(callback)]
        if others:
            raise InputError(f'TorchSchedule and {others[0]} would both set the rate: train by learn.fit, '
                             'which has no schedule')
        groups = [dict(params=[torch.zeros(1, requires_grad=True)], lr=float(hypers['lr']),
                       momentum=float(hypers.get('mom') or 0.)) for hypers in self.opt.hypers]
        self._momenta = [group['momentum'] for group in groups]
        self._stand_in = torch.optim.SGD(groups, lr=groups[0]['lr'])
        self._scheduler = self.make_scheduler(self._stand_in)
        if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise InputError("torch's ReduceLROnPlateau wants a score in each step: use this package's "
                             'Plateau, or learn.fit_plateau')
        self._n_steps = 0

    def before_batch(self):
        # counted from the start of the schedule, also where the fit begins in the middle (`start_epoch`)
        n_wanted = self.epoch if self.by == 'epoch' else self.epoch * self.n_iter + self.iter
        while self._n_steps < n_wanted:
            self._stand_in.step()
            self._scheduler.step()
            self._n_steps += 1
        self.opt.set_hyper('lr', [float(group['lr']) for group in self._stand_in.param_groups])
        momenta = [float(group['momentum']) for group in self._stand_in.param_groups]
        if momenta == self._momenta: return
        self.opt.set_hyper('mom', momenta)
        self._momenta = momenta

    def after_fit(self):
        self.run = True
        for attribute in ('_stand_in', '_scheduler', '_momenta'): self.__dict__.pop(attribute, None)


def scheduled_hypers(callback) -> set:
    "The hyper-parameters that a callback sets in each batch."
    if isinstance(callback, TorchSchedule): return {'lr'}
    return set(callback.scheds) if isinstance(callback, ParamScheduler) else set()
