"Losses for rows that have several labels each, over logits (n,c) and targets of 0 and 1 (n,c)."
import torch
import torch.nn.functional as F

from ..core import InputError
from .base import Loss, upcast


class MultiLabel(Loss):
    """Base class of losses over logits (n,c) and targets of 0 and 1 (n,c); classes (n,) are taken as one
    label a row.

    A subclass implements `per_label`, the loss of each label of each row; the loss of a row is the mean of
    its labels.
    """
    def __init__(
        self,
        thresh: float = .5,  # Probability from which a label counts as predicted
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        self.thresh = thresh

    def check(self, output, targets):
        one_class_a_row = output.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
        if one_class_a_row: return super().check(output, targets)
        if output.shape != targets.shape:
            raise InputError(f'logits {tuple(output.shape)} and targets {tuple(targets.shape)}: '
                             'one target of 0 or 1 for each logit, or a class for each row')

    def check_values(self, output, targets):
        if targets.ndim < output.ndim: return super().check_values(output, targets)
        if targets.numel() and not (0 <= float(targets.min()) and float(targets.max()) <= 1):
            raise InputError(f'targets from {targets.min():g} to {targets.max():g}: they must be 0 or 1')

    def per_row(self, output, targets):
        logits = upcast(output)
        # a row with one class says yes to that class and no to all others
        if targets.ndim < logits.ndim: targets = F.one_hot(targets, logits.shape[1])
        return self.per_label(logits, targets.to(logits)).flatten(1).mean(1)

    def per_label(
        self,
        logits,  # float (n,c)
        targets,  # (n,c) of 0 and 1, of the logits' dtype
    ):  # (n,c)
        "The loss of each label of each row."
        raise NotImplementedError

    def activation(self, output): return output.sigmoid()
    def decodes(self, output): return output > self.thresh


class AsymmetricLoss(MultiLabel):
    """Binary cross-entropy in which easy negatives count much less than easy positives (ASL),
    https://arxiv.org/abs/2009.14119"""
    def __init__(
        self,
        gamma_pos: float = 1.,  # How much less easy positives count (1, 4 and .05 are the authors' code's)
        gamma_neg: float = 4.,  # How much less easy negatives count
        clip: float = .05,  # Negatives with a probability below this cost nothing
        **kwargs,  # `thresh`, `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not (gamma_pos >= 0 and gamma_neg >= 0 and 0 <= clip < 1):
            raise InputError(f'gamma_pos={gamma_pos}, gamma_neg={gamma_neg}, clip={clip}: '
                             'gammas at least 0, clip from 0 to 1')
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip

    def per_label(self, logits, targets):
        # powers of probabilities are worked out from their logs, so that no slope is infinite at a
        # probability of 0
        positive = (self.gamma_pos * F.logsigmoid(-logits)).exp() * F.logsigmoid(logits)
        if not self.clip:
            easiness = (self.gamma_neg * F.logsigmoid(logits)).exp()
            return -targets * positive - (1 - targets) * easiness * F.logsigmoid(-logits)
        one_minus_p = (logits.neg().sigmoid() + self.clip).clamp(max=1)
        shifted_p = (1 - one_minus_p).clamp(min=torch.finfo(logits.dtype).tiny)
        negative = shifted_p**self.gamma_neg * one_minus_p.log()
        return -targets * positive - (1 - targets) * negative


class MultiLabelFocalLoss(AsymmetricLoss):
    """Focal loss, binary cross-entropy in which easy labels count less, for several labels a row,
    https://arxiv.org/abs/1708.02002"""
    def __init__(
        self,
        gamma: float = 2.,  # How much less easy labels count (the paper's 2); 0 is binary cross-entropy
        alpha: float | None = None,  # Weight of positives, negatives have 1 - alpha; None: both 1
        **kwargs,  # `thresh`, `reduction`, `head_weights`
    ):
        super().__init__(gamma, gamma, 0., **kwargs)
        if alpha is not None and not 0 <= alpha <= 1: raise InputError(f'alpha={alpha}: from 0 to 1, or None')
        self.alpha = alpha

    def per_label(self, logits, targets):
        losses = super().per_label(logits, targets)
        if self.alpha is None: return losses
        return (self.alpha * targets + (1 - self.alpha) * (1 - targets)) * losses


class SoftFBeta(MultiLabel):
    """1 minus the F-beta score with probabilities in place of decisions, the mean over the classes of the
    batch, https://arxiv.org/abs/2108.10566; for tuning straight towards F-beta, with large batches."""
    compares_rows = True

    def __init__(
        self,
        beta: float = 1.,  # How many times as much recall counts as precision
        eps: float = 1e-6,  # Added above and below the fraction, so that an empty class costs 0
        **kwargs,  # `thresh`, `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not beta > 0: raise InputError(f'beta={beta}: above 0')
        self.beta = beta
        self.eps = eps

    def per_label(self, logits, targets):
        p = logits.sigmoid()
        b = self.beta**2
        true_positives = (p * targets).sum(0)
        false_positives = (p * (1 - targets)).sum(0)
        false_negatives = ((1 - p) * targets).sum(0)
        numerator = (1 + b) * true_positives + self.eps
        denominator = (1 + b) * true_positives + b * false_negatives + false_positives + self.eps
        # the score belongs to the whole batch: every row is given it
        return (1 - numerator / denominator).expand(len(logits), -1)
