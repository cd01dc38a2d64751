"Losses for learning from probabilities: soft targets, and a teacher's logits beside the labels."
import torch
import torch.nn.functional as F

from ..core import InputError
from .base import Loss, upcast
from .classify import CrossEntropy


class SoftTarget(Loss):
    """Cross-entropy of logits (n,c) with probabilities (n,c): for pseudo-labels, votes of several people,
    or mixed labels. `ClassifyDataLoaders` make such targets of a column for each class."""
    def check(self, output, targets):
        if not torch.is_tensor(output):
            raise InputError(f'SoftTarget reads logits; it got {type(output).__name__}: take a head that '
                             'returns logits, such as nn.Linear')
        if output.shape != targets.shape:
            raise InputError(f'logits {tuple(output.shape)} and probabilities {tuple(targets.shape)}: '
                             'one for each logit (ClassifyDataLoaders make them of a column for each class, '
                             "label_col=['cat', 'dog'])")

    def check_values(self, output, targets):
        row_sums = targets.sum(1)
        if len(targets) and not (targets.min() >= 0 and (row_sums - 1).abs().max() < 1e-2):
            raise InputError(f'probabilities from {targets.min():g} to {targets.max():g} with sums of rows '
                             f'from {row_sums.min():g} to {row_sums.max():g}: none below 0, sums of 1')

    def per_row(self, output, targets):
        logits = upcast(output)
        return F.cross_entropy(logits, targets.to(logits), reduction='none')

    activation = CrossEntropy.activation
    decodes = CrossEntropy.decodes


class Distill(CrossEntropy):
    """Learning from labels and from a teacher's logits, which are the second target: `loss(logits, labels,
    teacher)`.

    (1 - alpha) * cross-entropy + alpha * t^2 * KL divergence from the teacher, with both sides' logits
    divided by the temperature t, https://arxiv.org/abs/1503.02531

    The callback `Teacher` brings the teacher's logits in training.
    """
    n_targets = 2

    def __init__(
        self,
        t: float = 4.,  # Temperature; the higher, the more the teacher's small probabilities count
        alpha: float = .5,  # Share of the teacher, 0 to 1
        **kwargs,  # `s`, `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not (t > 0 and 0 <= alpha <= 1):
            raise InputError(f't={t}, alpha={alpha}: t above 0, alpha from 0 to 1')
        if self.weight is not None:
            raise InputError('weight: weigh the labels with a CrossEntropy(weight) in a SumLoss '
                             'beside Distill(alpha=1)')
        self.t = t
        self.alpha = alpha

    def check_values(self, output, targets, teacher): super().check_values(output, targets)

    def check(self, output, targets, teacher=None):
        if teacher is None:
            raise InputError("Distill compares with a teacher's logits, its second target: the callback "
                             'Teacher(learner) brings them')
        super().check(output, targets)
        ours, theirs = self.logits(output).shape, self.logits(teacher).shape
        if ours != theirs:
            raise InputError(f"the model's logits are {tuple(ours)}, the teacher's {tuple(theirs)}")

    def per_row(self, output, targets, teacher):
        student_log_p = F.log_softmax(self.logits(output) / self.t, 1)
        teacher_log_p = F.log_softmax(self.logits(teacher).detach() / self.t, 1)
        teacher_log_p = teacher_log_p.to(student_log_p)
        divergence = F.kl_div(student_log_p, teacher_log_p, reduction='none', log_target=True).sum(1)
        # t^2 keeps the teacher's gradient as large as that of the labels at any temperature
        from_teacher = self.t**2 * divergence
        return (1 - self.alpha) * super().per_row(output, targets) + self.alpha * from_teacher
