"""Cross-entropy and focal loss for one class a row, over logits or over a cosine head's output, and
weights for rare classes."""
import torch
import torch.nn.functional as F

from ..core import HeadOutput, InputError, auto_scale
from .base import Loss, check_scale, check_smoothing, sampled_classes, target_columns, upcast


def class_counts(
    # `MatchDataLoaders`, `ClassifyDataLoaders`, or fastai's `DataLoaders` with a category as target
    dls,
) -> torch.Tensor:  # int64 (c,); float64 where the targets are probabilities
    """How many training rows each class has, in the order of the classes: with probabilities as targets how
    many are expected, the sum of its probabilities. Raises `InputError` where rows have several labels."""
    vocab = getattr(dls, 'vocab', None)
    if not vocab: raise InputError('dls: has no classes to count; give the counts themselves')
    # a matching vocabulary also holds the validation groups, after the training groups, which `n_groups`
    # counts; where fastai has several vocabularies, the target's is the last
    target_vocab = vocab[-1] if hasattr(vocab[-1], 'o2i') else vocab
    n_classes = getattr(dls, 'n_groups', None) or len(target_vocab)
    targets = [torch.as_tensor(target) for target in dls.train_ds.tls[-1]]
    if targets and targets[0].ndim:
        # a soft label is one class that isn't known for sure, and not several at once
        if getattr(dls, 'is_soft', False): return torch.stack(targets).double().sum(0)
        raise InputError('dls: its rows have several labels each; give the counts themselves')
    return torch.bincount(torch.stack(targets), minlength=n_classes)


# the formula of each `how` of `class_weights`, with n the rows of each class
WEIGHTS = {
    'inverse': lambda n, beta: 1 / n,
    'sqrt': lambda n, beta: (n.min() / n).sqrt(),
    'effective': lambda n, beta: (1 - beta) / (1 - beta**n)}


def class_weights(
    counts,  # (c,) rows of each class, or the dataloaders in which `class_counts` counts them
    how: str = 'sqrt',  # 'inverse': 1/n; 'sqrt': sqrt(min n / n), at most 1; 'effective': (1-beta)/(1-beta^n)
    beta: float = .999,  # Of 'effective': 0 makes all weights equal, near 1 is 1/n; the paper's .9 to .9999
) -> torch.Tensor:  # float64 (c,)
    """A weight for each class, larger for rarer classes; 'effective' is the effective number of
    https://arxiv.org/abs/1901.05555"""
    if how not in WEIGHTS: raise InputError(f'how={how!r}: choose one of {list(WEIGHTS)}')
    if not 0 <= beta < 1: raise InputError(f'beta={beta}: at least 0, below 1')
    class_sizes = torch.as_tensor(class_counts(counts) if hasattr(counts, 'train_ds') else counts).double()
    if class_sizes.ndim != 1:
        raise InputError(f'counts of shape {tuple(class_sizes.shape)}: give one number for each class')
    empty = (class_sizes <= 0).nonzero()
    if len(empty): raise InputError(f'class {int(empty[0])} has no training row: no weight follows from that')
    return WEIGHTS[how](class_sizes, beta)


class CrossEntropy(Loss):
    "PyTorch's cross-entropy, plain or weighted by class, for logits (n,c) or for the cosines of a head."
    def __init__(
        self,
        weight=None,  # (c,) weight of each class (for example `class_weights(dls)`), or None
        s: float | None = None,  # Scale of a head's cosines (not of logits); None: `auto_scale`, AdaCos' rule
        label_smoothing: float = 0.,  # Share of the target that is spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        # a plain attribute and not a buffer: a loss has nothing to save
        self.weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float64)
        if self.weight is not None and not _is_weight_vector(self.weight):
            raise InputError('weight must be one finite number >= 0 for each class')
        self.s = check_scale(s)
        self.label_smoothing = check_smoothing(label_smoothing)

    def logits(self, output):
        "Logits (n,c), float32 or float64: the output itself, or the scaled cosines of a head."
        if not isinstance(output, HeadOutput): return upcast(output)
        scale = auto_scale(output.cos.shape[1]) if self.s is None else self.s
        return scale * upcast(output.cos)

    def column_weights(self, logits, output):
        """`weight` of each column of `logits`, on their device and in their dtype; None where there are
        no weights."""
        if self.weight is None: return None
        classes = sampled_classes(output)
        if classes is None: complete = len(self.weight) == logits.shape[1]
        else: complete = len(self.weight) > int(classes[-1])
        if not complete:
            raise InputError(f'weight has {len(self.weight)} entries for {logits.shape[1]} classes')
        return (self.weight if classes is None else self.weight[classes.cpu()]).to(logits)

    def per_row(self, output, targets):
        logits = self.logits(output)
        return F.cross_entropy(logits, target_columns(output, targets), self.column_weights(logits, output),
                               reduction='none', label_smoothing=self.label_smoothing)

    def mean(self, row_losses, targets):
        # as PyTorch does: with class weights the sum is divided by the sum of the rows' weights, not by their
        # number
        if self.weight is None: return row_losses.mean()
        return row_losses.sum() / self.weight.to(row_losses)[targets].sum()

    # a dict comes from a matching model in evaluation and holds embeddings already
    def activation(self, output): return F.softmax(output, -1) if isinstance(output, torch.Tensor) else output
    def decodes(self, output): return output.argmax(-1) if isinstance(output, torch.Tensor) else output


def _is_weight_vector(weight) -> bool:
    return weight.ndim == 1 and bool((weight >= 0).all()) and bool(torch.isfinite(weight).all())


class FocalLoss(CrossEntropy):
    """Cross-entropy times (1 - p_t)**gamma, with p_t the probability of the row's class: rows that are easy
    already count less, https://arxiv.org/abs/1708.02002

    Class weights multiply the loss of a row and leave p_t as it is (fastai's `FocalLossFlat` puts them into
    p_t too).
    """
    def __init__(
        self,
        gamma: float = 2.,  # How much less easy rows count (the paper's 2); 0 is plain cross-entropy
        weight=None,  # (c,) weight of each class (the paper's alpha), or None
        s: float | None = None,  # Scale of a head's cosines; None: `auto_scale`, AdaCos' rule
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(weight, s, **kwargs)
        if not gamma >= 0: raise InputError(f'gamma={gamma}: at least 0')
        self.gamma = gamma

    def per_row(self, output, targets):
        logits = self.logits(output)
        columns = target_columns(output, targets)
        log_p = F.log_softmax(logits, 1).gather(1, columns[:, None]).squeeze(1)
        # 1 - p_t is worked out from the log and kept above 0: the power of exactly 0 has an infinite slope
        # for gamma < 1, and the gradient would be NaN
        one_minus_p = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        row_losses = -one_minus_p**self.gamma * log_p
        class_weighting = self.column_weights(logits, output)
        return row_losses if class_weighting is None else class_weighting[columns] * row_losses
