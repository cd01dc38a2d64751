"Schedules and recipes on fastai's Learner: `learn.fit_flat_cos`, `fit_steps`, `fit_cycles`, `fit_gradual`, ... and batch sizes."
from ..schedule import curves
from .batches import GradientAccumulation
from .fit import Plateau, WarmUp, named_rates
from .recipes import Still, between, layered_rates

__all__ = ['GradientAccumulation', 'Plateau', 'Still', 'WarmUp', 'between', 'curves', 'layered_rates', 'named_rates']
