"Learning from probabilities: soft targets, and a teacher's logits beside the labels."
import torch.nn.functional as F

from ..core import InputError
from .base import Loss, upcast
from .classify import CrossEntropy


class SoftTarget(Loss):
    "torch's cross-entropy against probabilities (n,c): pseudo-labels, votes, mixed labels."
    def check(self, out, y):
        if out.shape != y.shape: raise InputError(f'logits {tuple(out.shape)} and probabilities {tuple(y.shape)}: one for each logit')

    def check_values(self, out, y):
        sums = y.sum(1)
        if len(y) and not (y.min() >= 0 and (sums - 1).abs().max() < 1e-2):
            raise InputError(f'probabilities from {y.min():g} to {y.max():g} with sums of rows from {sums.min():g} to {sums.max():g}: none below 0, sums of 1')

    def one(self, out, y): return F.cross_entropy(upcast(out), y.to(upcast(out)), reduction='none')
    activation, decodes = CrossEntropy.activation, CrossEntropy.decodes


class Distill(CrossEntropy):
    "Labels and a teacher's logits as a second target: (1-alpha) cross-entropy + alpha T^2 KL at temperature T, https://arxiv.org/abs/1503.02531"
    def __init__(
        self,
        t: float = 4.,  # Temperature both sides' logits are divided by (higher: more of the teacher's small probabilities)
        alpha: float = .5,  # Share of the teacher, 0 to 1
        **kwargs,  # `weight`, `s`, `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not (t > 0 and 0 <= alpha <= 1): raise InputError(f't={t}, alpha={alpha}: t above 0, alpha from 0 to 1')
        if self.weight is not None: raise InputError('weight: weigh the labels with a CrossEntropy(weight) in a SumLoss beside Distill(alpha=1)')
        self.t, self.alpha = t, alpha

    def check_values(self, out, y, teacher): super().check_values(out, y)

    def check(self, out, y, teacher):
        super().check(out, y)
        a, b = self.logits(out), self.logits(teacher)
        if a.shape != b.shape: raise InputError(f"the model's logits are {tuple(a.shape)}, the teacher's {tuple(b.shape)}")

    def one(self, out, y, teacher):
        student, teacher = F.log_softmax(self.logits(out) / self.t, 1), F.log_softmax(self.logits(teacher).detach() / self.t, 1)
        # T^2 keeps the soft part's gradient as large as the hard part's, whatever the temperature
        soft = self.t**2 * F.kl_div(student, teacher.to(student), reduction='none', log_target=True).sum(1)
        return (1 - self.alpha) * super().one(out, y) + self.alpha * soft
