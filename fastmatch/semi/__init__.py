"""Few labels: pseudo-labels for classes and groups, and learning from teachers.

Callbacks that belong to it are in `callback/`: `MeanTeacher`, `StoredTeacher`, `TeacherEmbeddings`,
`Teacher`.
"""
from ..data.outputs import TeacherOutputs, mean_outputs, outputs_of_predictions
from .distil import teacher_outputs
from .groups import pseudo_groups, with_pseudo_groups
from .keep import Confidence, Everything, Margin, Quota
from .leaks import HeldOut
from .pseudo import pseudo_label, soft_labelled, with_pseudo_labels
from .rounds import PseudoRounds, class_report, label_report, pseudo_rounds

__all__ = ['Confidence', 'Everything', 'HeldOut', 'Margin', 'PseudoRounds', 'Quota', 'TeacherOutputs',
           'class_report', 'label_report', 'mean_outputs', 'outputs_of_predictions', 'pseudo_groups',
           'pseudo_label', 'pseudo_rounds', 'soft_labelled', 'teacher_outputs', 'with_pseudo_groups',
           'with_pseudo_labels']
