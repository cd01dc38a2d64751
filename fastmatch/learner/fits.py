"fastai's own methods of training, for Learners over listings: rates by name, and a short search for a rate."
from fastai.callback.schedule import SuggestionMethod
from fastai.learner import Learner
from fastcore.foundation import L

from ..callback.monitor import MonitorCheck
from ..core import InputError, checks_options
from ..schedule.fit import named_rates

MOST_TRIED = 100  # rates that `lr_find` tries: fastai's default
FEWEST_TRIED = 30  # fewer give too rough a curve


class FastaiFits:
    "Mixin for subclasses of `Learner`, named before it."
    def fit(self, n_epoch, lr=None, wd=None, cbs=None, reset_opt=False, start_epoch=0):
        "fastai's `fit`; `lr` may also be a dict of rates by name of parameter group."
        super().fit(n_epoch, self._rates(lr), wd, [*L(cbs), MonitorCheck()], reset_opt, start_epoch)

    @checks_options(Learner.fit_one_cycle)
    def fit_one_cycle(self, n_epoch, lr_max=None, **kwargs):
        "fastai's `fit_one_cycle`; `lr_max` may also be a dict of rates by name of parameter group."
        super().fit_one_cycle(n_epoch, self._rates(lr_max), **kwargs)

    @checks_options(Learner.fit_sgdr)
    def fit_sgdr(self, n_cycles, cycle_len, lr_max=None, **kwargs):
        "fastai's `fit_sgdr`; `lr_max` may also be a dict of rates by name of parameter group."
        super().fit_sgdr(n_cycles, cycle_len, self._rates(lr_max), **kwargs)

    @checks_options(Learner.fine_tune, Learner.fit_one_cycle)
    def fine_tune(self, epochs, base_lr=2e-3, **kwargs):
        "fastai's `fine_tune`."
        if isinstance(base_lr, dict):
            raise InputError('base_lr: fine_tune makes the rates of all groups from one number; '
                             'fit_head_first takes rates by name')
        super().fine_tune(epochs, base_lr, **kwargs)

    def lr_find(self, start_lr=1e-7, end_lr=10, num_it=None, stop_div=True, show_plot=True,
                suggest_funcs=SuggestionMethod.Valley):
        """fastai's `lr_find`. `num_it`, the number of rates that are tried, is by default that of the batches
        of an epoch, 30 at least and 100 at most: on a small table a hundred would be many epochs."""
        if num_it is None: num_it = min(MOST_TRIED, max(FEWEST_TRIED, len(self.dls.train)))
        return super().lr_find(start_lr, end_lr, num_it, stop_div, show_plot, suggest_funcs)

    def _rates(self, lr): return named_rates(self.model, lr) if isinstance(lr, dict) else lr
