"fastai's own methods of training, for Learners over listings: rates by name, and a short search for a rate."
from contextlib import nullcontext

import torch
from fastai.callback.schedule import ParamScheduler, SuggestionMethod
from fastai.learner import Learner
from fastcore.foundation import L

from ..callback.check import check_callbacks
from ..core import InputError, checks_options
from ..schedule.rates import check_epochs, for_optimizer, is_one_rate, rates_as_given
from .memory import freed_memory_kept

MOST_TRIED = 100  # rates that `lr_find` tries: fastai's default
FEWEST_TRIED = 30  # fewer give too rough a curve


def device_type(dls) -> str:
    "Where the batches of `dls` go: 'cpu', 'cuda', .... Loaders without a device leave them where they are."
    return 'cpu' if dls.device is None else torch.device(dls.device).type


class FastaiFits:
    "Mixin for subclasses of `Learner`, named before it."
    def fit(self, n_epoch, lr=None, wd=None, cbs=None, reset_opt=False, start_epoch=0):
        """fastai's `fit`; `lr` may also be a dict of rates by name of parameter group.

        Raises `InputError` for callbacks that can't train these learners, see `check_callbacks`."""
        # fastai trains nothing for 0 epochs, and for fewer
        if n_epoch != 0: check_epochs(n_epoch)
        check_callbacks(self, cbs)
        if self.opt is None: self.create_opt()
        given_rates = lr
        for scheduler in [*L(cbs), *self.cbs] if lr is None else []:
            if not isinstance(scheduler, ParamScheduler): continue
            # a schedule of one's own may be of one rate or of one for each group
            if callable(scheduler.scheds.get('lr')): given_rates = scheduler.scheds['lr'](0.)
        loss_func = self.loss_func
        keeps_memory = freed_memory_kept if device_type(self.dls) == 'cpu' else nullcontext
        try:
            with rates_as_given(self, given_rates), keeps_memory():
                super().fit(n_epoch, for_optimizer(self, lr), wd, cbs, reset_opt, start_epoch)
        except BaseException:
            # mixing and others put a loss of their own in its place, and put it back only where a fit ends
            self.loss_func = loss_func
            raise

    @checks_options(Learner.fit_one_cycle)
    def fit_one_cycle(self, n_epoch, lr_max=None, **kwargs):
        "fastai's `fit_one_cycle`; `lr_max` may also be a dict of rates by name of parameter group."
        with rates_as_given(self, lr_max):
            super().fit_one_cycle(n_epoch, for_optimizer(self, lr_max), **kwargs)

    @checks_options(Learner.fit_sgdr)
    def fit_sgdr(self, n_cycles, cycle_len, lr_max=None, **kwargs):
        "fastai's `fit_sgdr`; `lr_max` may also be a dict of rates by name of parameter group."
        check_epochs(n_cycles, 'n_cycles')
        check_epochs(cycle_len, 'cycle_len')
        with rates_as_given(self, lr_max):
            super().fit_sgdr(n_cycles, cycle_len, for_optimizer(self, lr_max), **kwargs)

    @checks_options(Learner.fine_tune, Learner.fit_one_cycle)
    def fine_tune(self, epochs, base_lr=2e-3, **kwargs):
        "fastai's `fine_tune`."
        if not is_one_rate(base_lr):
            raise InputError('base_lr: fine_tune makes the rates of all groups from one number; '
                             'fit_head_first takes rates by name, as a list or a slice')
        super().fine_tune(epochs, base_lr, **kwargs)

    def lr_find(self, start_lr=1e-7, end_lr=10, num_it=None, stop_div=True, show_plot=True,
                suggest_funcs=SuggestionMethod.Valley):
        """fastai's `lr_find`. `num_it`, the number of rates that are tried, is by default that of the batches
        of an epoch, 30 at least and 100 at most: on a small table a hundred would be many epochs."""
        if num_it is None: num_it = min(MOST_TRIED, max(FEWEST_TRIED, len(self.dls.train)))
        return super().lr_find(start_lr, end_lr, num_it, stop_div, show_plot, suggest_funcs)
