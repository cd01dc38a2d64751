"Many models as one: trained fold by fold, blended, boosted for small classes, stacked."
from .blend import find_blend
from .boost import ClassBoost, find_boost, find_class_thresholds
from .ensemble import FoldEnsemble
from .folds import FoldRuns, load_folds, train_folds, train_full
from .out_of_fold import OutOfFold
from .stacking import stack_models

__all__ = ['ClassBoost', 'FoldEnsemble', 'FoldRuns', 'OutOfFold', 'find_blend', 'find_boost',
           'find_class_thresholds', 'load_folds', 'stack_models', 'train_folds', 'train_full']
