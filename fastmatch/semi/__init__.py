"""Few labels, many models: pseudo-labels for classes and groups, learning from teachers; models trained fold
by fold, blended, boosted for small classes, stacked; what they say of the labels themselves.

Callbacks that belong to it are in `callback/`: `MeanTeacher`, `StoredTeacher`, `TeacherEmbeddings`,
`Teacher`.
"""
from ..data.outputs import TeacherOutputs, mean_outputs, outputs_of_predictions
from .blend import blend_probabilities, find_blend
from .boost import ClassBoost, find_boost, find_class_thresholds
from .curate import class_needs, suspicious_labels, worth_labelling
from .distil import teacher_outputs
from .ensemble import FoldEnsemble
from .folds import FoldRuns, load_folds, train_folds, train_full
from .groups import pseudo_groups, with_pseudo_groups
from .keep import Confidence, Everything, Margin, Quota
from .leaks import HeldOut
from .out_of_fold import OutOfFold
from .pseudo import pseudo_label, soft_labelled, with_pseudo_labels
from .review import Corrections, read_corrections, write_review
from .rounds import PseudoRounds, class_report, label_report, pseudo_rounds
from .stacking import stack_models

__all__ = ['ClassBoost', 'Confidence', 'Corrections', 'Everything', 'FoldEnsemble', 'FoldRuns',
           'HeldOut', 'Margin', 'OutOfFold', 'PseudoRounds', 'Quota', 'TeacherOutputs', 'blend_probabilities',
           'class_needs', 'class_report', 'find_blend', 'find_boost', 'find_class_thresholds',
           'label_report', 'load_folds', 'mean_outputs', 'outputs_of_predictions', 'pseudo_groups',
           'pseudo_label', 'pseudo_rounds', 'read_corrections', 'soft_labelled', 'stack_models',
           'suspicious_labels', 'teacher_outputs', 'train_folds', 'train_full',
           'with_pseudo_groups', 'with_pseudo_labels', 'worth_labelling', 'write_review']
