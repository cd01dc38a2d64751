"Cross-entropy and its kin over logits, or over a cosine head's scaled cosines; and losses of several labels a row."
import torch
import torch.nn.functional as F

from ..core import HeadOutput, InputError, auto_scale
from .base import Loss, check_scale, check_smoothing, columns, upcast


def class_counts(
    dls,  # `MatchDataLoaders`, or fastai's `DataLoaders` with a category as target
) -> torch.Tensor:  # int64 (c,)
    "Training listings of each class, in the order of the classes."
    vocab = getattr(dls, 'vocab', None)
    if not vocab: raise InputError('dls: has no classes to count; give the counts themselves')
    # training groups come first in a matching vocab; with several vocabularies the target's is the last
    n = getattr(dls, 'n_groups', None) or len(vocab[-1] if hasattr(vocab[-1], 'o2i') else vocab)
    y = [torch.as_tensor(o) for o in dls.train_ds.tls[-1]]
    if y and y[0].ndim: raise InputError('dls: its rows have several labels each; give the counts themselves')
    return torch.bincount(torch.stack(y), minlength=n)


WEIGHTS = {
    'inverse': lambda n, beta: 1 / n,
    'sqrt': lambda n, beta: (n.min() / n).sqrt(),
    'effective': lambda n, beta: (1 - beta) / (1 - beta**n)}


def class_weights(
    counts,  # (c,) listings of each class, or the dataloaders to count them in
    how: str = 'sqrt',  # 'inverse': 1/n; 'sqrt': sqrt(min n / n), 1 at most; 'effective': (1-beta)/(1-beta^n), https://arxiv.org/abs/1901.05555
    beta: float = .999,  # Of 'effective', 0 (all the same) to 1 (1/n); the paper's .9 to .9999
) -> torch.Tensor:  # float64 (c,)
    "A weight for each class, the rarer the larger."
    if how not in WEIGHTS: raise InputError(f'how={how!r}: choose one of {list(WEIGHTS)}')
    if not 0 <= beta < 1: raise InputError(f'beta={beta}: at least 0, below 1')
    n = torch.as_tensor(class_counts(counts) if hasattr(counts, 'train_ds') else counts).double()
    if n.ndim != 1: raise InputError(f'counts of shape {tuple(n.shape)}: give one number for each class')
    if len(empty := (n <= 0).nonzero()): raise InputError(f'class {int(empty[0])} has no training row: no weight follows from that')
    return WEIGHTS[how](n, beta)


class CrossEntropy(Loss):
    "torch's cross-entropy, plain or weighted by class, for logits or a cosine head."
    def __init__(
        self,
        weight=None,  # (c,) weight of each class (`class_weights(dls)`), or None
        s: float | None = None,  # Scale of a cosine head's cosines (logits are taken as they are); None: AdaCos' rule
        label_smoothing: float = 0.,  # Share of the target spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        # a plain attribute, not a buffer: a loss holds no state of its own
        self.weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float64)
        if self.weight is not None and not (self.weight.ndim == 1 and bool((self.weight >= 0).all()) and bool(torch.isfinite(self.weight).all())):
            raise InputError('weight must be one finite number >= 0 for each class')
        self.s, self.label_smoothing = check_scale(s), check_smoothing(label_smoothing)

    def logits(self, out):
        if not isinstance(out, HeadOutput): return upcast(out)
        return (auto_scale(out.cos.shape[1]) if self.s is None else self.s) * upcast(out.cos)

    def class_weight(self, logits, out):
        "`weight` of each column on the logits' device and dtype, checked against the number of classes."
        if self.weight is None: return None
        classes = out.extra.get('classes') if isinstance(out, HeadOutput) else None
        if len(self.weight) != logits.shape[1] if classes is None else len(self.weight) <= int(classes[-1]):
            raise InputError(f'weight has {len(self.weight)} entries for {logits.shape[1]} classes')
        return (self.weight if classes is None else self.weight[classes.cpu()]).to(logits)

    def one(self, out, y):
        x = self.logits(out)
        return F.cross_entropy(x, columns(out, y), self.class_weight(x, out), reduction='none', label_smoothing=self.label_smoothing)

    def mean(self, loss, y):
        # as torch does: with class weights the mean is over the weights of the rows, not over the rows
        return loss.mean() if self.weight is None else loss.sum() / self.weight.to(loss)[y].sum()

    # a dict is a matching model's: embeddings already
    def activation(self, out): return F.softmax(out, -1) if isinstance(out, torch.Tensor) else out
    def decodes(self, out): return out.argmax(-1) if isinstance(out, torch.Tensor) else out


class FocalLoss(CrossEntropy):
    "(1 - p_t)**gamma times the cross-entropy, https://arxiv.org/abs/1708.02002; p_t is not distorted by the class weights."
    def __init__(
        self,
        gamma: float = 2.,  # How far easy rows are turned down (the paper's 2); 0 is cross-entropy
        weight=None,  # (c,) weight of each class (the paper's alpha), or None
        s: float | None = None,  # Scale of a cosine head's cosines; None: AdaCos' rule
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(weight, s, **kwargs)
        if not gamma >= 0: raise InputError(f'gamma={gamma}: at least 0')
        self.gamma = gamma

    def one(self, out, y):
        x, at = self.logits(out), columns(out, y)
        logp = F.log_softmax(x, 1).gather(1, at[:, None]).squeeze(1)
        # 1 - p_t from the log keeps its gradient finite at p_t = 1, where a power of exactly 0 would give NaN for gamma < 1
        loss = -(-torch.expm1(logp)).clamp(min=torch.finfo(logp.dtype).tiny)**self.gamma * logp
        w = self.class_weight(x, out)
        return loss if w is None else w[at] * loss


class MultiLabel(Loss):
    "A loss over logits (n,c) and targets of 0 and 1 (n,c), or classes (n,); subclasses give `each(x, y)`, (n,c); a row's loss is its mean."
    def __init__(
        self,
        thresh: float = .5,  # Probability from which a label counts as predicted
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        self.thresh = thresh

    def check(self, out, y):
        if out.ndim == 2 and y.ndim == 1 and not y.is_floating_point(): return super().check(out, y)
        if out.shape != y.shape: raise InputError(f'logits {tuple(out.shape)} and targets {tuple(y.shape)}: one target of 0 or 1 for each logit, or a class for each row')

    def check_values(self, out, y):
        if y.ndim < out.ndim: return super().check_values(out, y)
        if y.numel() and not (0 <= float(y.min()) and float(y.max()) <= 1): raise InputError(f'targets from {y.min():g} to {y.max():g}: they must be 0 or 1')

    def one(self, out, y):
        x = upcast(out)
        # a row's one class is a yes to it and a no to each other
        return self.each(x, F.one_hot(y, x.shape[1]).to(x) if y.ndim < x.ndim else y.to(x)).flatten(1).mean(1)

    def activation(self, out): return out.sigmoid()
    def decodes(self, out): return out > self.thresh


class AsymmetricLoss(MultiLabel):
    "Turns easy negatives down more than positives (ASL), https://arxiv.org/abs/2009.14119"
    def __init__(
        self,
        gamma_pos: float = 1.,  # How far easy positives are turned down (1, 4 and .05 are the authors' code's)
        gamma_neg: float = 4.,  # How far easy negatives are
        clip: float = .05,  # Negatives below this probability cost nothing
        **kwargs,  # `thresh`, `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not (gamma_pos >= 0 and gamma_neg >= 0 and 0 <= clip < 1):
            raise InputError(f'gamma_pos={gamma_pos}, gamma_neg={gamma_neg}, clip={clip}: gammas at least 0, clip from 0 to 1')
        self.gamma_pos, self.gamma_neg, self.clip = gamma_pos, gamma_neg, clip

    def each(self, x, y):
        # powers of probabilities through their logs: no slope is infinite at 0
        pos = (self.gamma_pos * F.logsigmoid(-x)).exp() * F.logsigmoid(x)
        if not self.clip: return -y * pos - (1 - y) * (self.gamma_neg * F.logsigmoid(x)).exp() * F.logsigmoid(-x)
        rest = (x.neg().sigmoid() + self.clip).clamp(max=1)
        neg = (1 - rest).clamp(min=torch.finfo(x.dtype).tiny)**self.gamma_neg * rest.log()
        return -y * pos - (1 - y) * neg


class MultiLabelFocalLoss(AsymmetricLoss):
    "Focal loss for several labels a row, https://arxiv.org/abs/1708.02002"
    def __init__(
        self,
        gamma: float = 2.,  # How far easy labels are turned down (2 and .25 are the paper's); 0 is binary cross-entropy
        alpha: float | None = None,  # Weight of positives, negatives have 1 - alpha (.25 in the paper); None: both 1
        **kwargs,  # `thresh`, `reduction`, `head_weights`
    ):
        super().__init__(gamma, gamma, 0., **kwargs)
        if alpha is not None and not 0 <= alpha <= 1: raise InputError(f'alpha={alpha}: from 0 to 1, or None')
        self.alpha = alpha

    def each(self, x, y):
        loss = super().each(x, y)
        return loss if self.alpha is None else (self.alpha * y + (1 - self.alpha) * (1 - y)) * loss


class SoftFBeta(MultiLabel):
    "1 minus the F-beta score with probabilities in place of decisions, averaged over the classes of the batch, https://arxiv.org/abs/2108.10566"
    def __init__(
        self,
        beta: float = 1.,  # How many times as much recall counts as precision
        eps: float = 1e-6,  # A class without positives or predictions costs 0
        **kwargs,  # `thresh`, `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not beta > 0: raise InputError(f'beta={beta}: above 0')
        self.beta, self.eps = beta, eps

    def each(self, x, y):
        p, b = x.sigmoid(), self.beta**2
        tp, fp, fn = (p * y).sum(0), (p * (1 - y)).sum(0), ((1 - p) * y).sum(0)
        # a figure of the batch: every row carries it
        return (1 - ((1 + b) * tp + self.eps) / ((1 + b) * tp + b * fn + fp + self.eps)).expand(len(x), -1)
