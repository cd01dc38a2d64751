"Many models as one: trained fold by fold, blended, boosted, stacked; what they say of the labels themselves."
from .blend import find_blend
from .boost import ClassBoost, find_boost, find_class_thresholds
from .curate import class_needs, suspicious_labels, worth_labelling
from .ensemble import FoldEnsemble
from .folds import FoldRuns, load_folds, train_folds, train_full
from .out_of_fold import OutOfFold
from .review import Corrections, read_corrections, write_review
from .stacking import stack_models

__all__ = ['ClassBoost', 'Corrections', 'FoldEnsemble', 'FoldRuns', 'OutOfFold', 'class_needs', 'find_blend',
           'find_boost', 'find_class_thresholds', 'load_folds', 'read_corrections', 'stack_models',
           'suspicious_labels', 'train_folds', 'train_full', 'worth_labelling', 'write_review']
