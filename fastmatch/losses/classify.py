"Cross-entropy and its kin over logits, or over a cosine head's scaled cosines."
import torch
import torch.nn.functional as F

from ..core import HeadOutput, InputError
from .base import Loss, upcast


class CrossEntropy(Loss):
    "torch's cross-entropy, plain or weighted by class, for logits or a cosine head."
    def __init__(
        self,
        weight=None,  # (c,) weight of each class, or None
        s: float = 30.,  # Scale of a cosine head's cosines; logits are taken as they are
        label_smoothing: float = 0.,  # Share of the target spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not s > 0: raise InputError(f's={s}: the scale must be above 0')
        if not 0 <= label_smoothing <= 1: raise InputError(f'label_smoothing={label_smoothing}: choose from 0 to 1')
        # a plain attribute, not a buffer: a loss holds no state of its own
        self.weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float64)
        if self.weight is not None and not (self.weight.ndim == 1 and bool((self.weight >= 0).all()) and bool(torch.isfinite(self.weight).all())):
            raise InputError('weight must be one finite number >= 0 for each class')
        self.s, self.label_smoothing = s, label_smoothing

    def logits(self, out): return self.s * upcast(out.cos) if isinstance(out, HeadOutput) else upcast(out)

    def class_weight(self, logits):
        "`weight` on the logits' device and dtype, checked against the number of classes."
        if self.weight is None: return None
        if len(self.weight) != logits.shape[1]:
            raise InputError(f'weight has {len(self.weight)} entries for {logits.shape[1]} classes')
        return self.weight.to(logits)

    def one(self, out, y):
        x = self.logits(out)
        return F.cross_entropy(x, y, self.class_weight(x), reduction='none', label_smoothing=self.label_smoothing)

    def reduce(self, loss, y):
        # as torch does: with class weights the mean is over the weights of the rows, not over the rows
        if self.weight is None or self.reduction != 'mean': return super().reduce(loss, y)
        return loss.sum() / self.weight.to(loss)[y].sum()


class FocalLoss(CrossEntropy):
    "(1 - p_t)**gamma times the cross-entropy, https://arxiv.org/abs/1708.02002; p_t is not distorted by the class weights."
    def __init__(
        self,
        gamma: float = 2.,  # How far easy rows are turned down (the paper's 2); 0 is cross-entropy
        weight=None,  # (c,) weight of each class (the paper's alpha), or None
        s: float = 30.,  # Scale of a cosine head's cosines
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(weight, s, **kwargs)
        if not gamma >= 0: raise InputError(f'gamma={gamma}: at least 0')
        self.gamma = gamma

    def one(self, out, y):
        x = self.logits(out)
        logp = F.log_softmax(x, 1).gather(1, y[:, None]).squeeze(1)
        # 1 - p_t from the log keeps its gradient finite at p_t = 1, where a power of exactly 0 would give NaN for gamma < 1
        loss = -(-torch.expm1(logp)).clamp(min=torch.finfo(logp.dtype).tiny)**self.gamma * logp
        w = self.class_weight(x)
        return loss if w is None else w[y] * loss
