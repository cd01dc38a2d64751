"""Learning-rate schedules, fine-tuning recipes and batch sizes for fastai Learners.

Every schedule is a plain function that takes the learner first: `fit_flat_cos(learner, 4, 2e-3, warmup=1)`.
The Learners of this package have the same functions as methods (`learner.fit_flat_cos(4, 2e-3, warmup=1)`),
see `patch.ScheduledFits`.
"""
from . import curves
from .batches import GradientAccumulation, largest_bs, noise_scale
from .fit import (
    Plateau,
    WarmUp,
    fit_cos,
    fit_curve,
    fit_cycles,
    fit_exp,
    fit_flat_cos,
    fit_plateau,
    fit_steps,
)
from .patch import ScheduledFits, patch_schedules
from .rates import named_rates, rate_factors
from .recipes import Still, between, fit_gradual, fit_head_first, layered_rates
from .torch_schedule import TorchSchedule

__all__ = [
    'GradientAccumulation', 'Plateau', 'ScheduledFits', 'Still', 'TorchSchedule', 'WarmUp', 'between',
    'curves', 'fit_cos', 'fit_curve', 'fit_cycles', 'fit_exp', 'fit_flat_cos', 'fit_gradual',
    'fit_head_first', 'fit_plateau', 'fit_steps', 'largest_bs', 'layered_rates', 'named_rates',
    'noise_scale', 'patch_schedules', 'rate_factors',
]
