"""Few labels: pseudo-labels for classes and groups, and learning from teachers.

Callbacks that belong to it are in `callback/`: `MeanTeacher`, `Teacher`.
"""
from .keep import Confidence, Everything, Margin, Quota
from .leaks import HeldOut
from .pseudo import pseudo_label, soft_labelled, with_pseudo_labels
from .rounds import PseudoRounds, class_report, label_report, pseudo_rounds

__all__ = ['Confidence', 'Everything', 'HeldOut', 'Margin', 'PseudoRounds', 'Quota', 'class_report',
           'label_report', 'pseudo_label', 'pseudo_rounds', 'soft_labelled', 'with_pseudo_labels']
