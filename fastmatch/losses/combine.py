"Sums of losses, and a loss that keeps the hardest rows."
import math

from ..core import InputError
from .base import Loss


class SumLoss(Loss):
    "A weighted sum of named losses, each with its own kind of mean; the callback `LossTerms` shows each term beside the total."
    def __init__(
        self,
        parts: dict,  # Name -> `Loss`, e.g. {'softmax': ArcFace(m=.3), 'triplet': Triplet()}
        weights: dict | None = None,  # Weight of each by name; 1 where not named
        reduction: str = 'mean',  # 'mean', 'sum' or 'none', handed on to every part
    ):
        if not parts: raise InputError('parts: a sum wants one loss at least')
        if unknown := set(weights or {}) - set(parts): raise InputError(f'weights names {sorted(unknown)}; the parts are {list(parts)}')
        super().__init__(reduction)
        self.weights = dict(weights or {})
        for k, v in parts.items():
            if hasattr(self, k): raise InputError(f'parts: {k!r} means something else to a loss; name the part otherwise')
            self.add_module(k, v)
        self.reduction = reduction

    @property
    def parts(self): return dict(self.named_children())

    # mixing sets `reduction` to 'none' for a while: the parts must follow
    @property
    def reduction(self): return self._reduction

    @reduction.setter
    def reduction(self, value):
        self._reduction = value
        for o in self.children(): o.reduction = value

    def forward(self, out, *ys): return sum(self.weights.get(k, 1.) * o(out, *ys) for k, o in self.parts.items())

    def activation(self, out): return next(self.children()).activation(out)
    def decodes(self, out): return next(self.children()).decodes(out)


class HardRows(Loss):
    "The mean of another loss over the batch's hardest rows only (top-k loss, OHEM), https://arxiv.org/abs/1604.03540"
    def __init__(
        self,
        loss: Loss,  # Whose rows
        share: float = .7,  # Of the rows that are kept, above 0; one row at least stays
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not 0 < share <= 1: raise InputError(f'share={share}: above 0, at most 1')
        self.loss, self.share = loss, share

    def n_kept(self, n): return max(1, math.ceil(self.share * n))
    def check(self, out, *ys): self.loss.check(out, *ys)
    def check_values(self, out, *ys): self.loss.check_values(out, *ys)
    def reads(self, out): return self.loss.reads(out)
    def telltale(self, out, rows): return self.loss.telltale(out, rows)
    def one(self, out, *ys): return self.loss.one(out, *ys)

    def reduce(self, loss, y):
        kept = loss.topk(min(self.n_kept(len(loss)), len(loss)))
        if self.reduction == 'none': return loss.new_zeros(loss.shape).scatter(0, kept.indices, kept.values)
        return kept.values.mean() if self.reduction == 'mean' else kept.values.sum()

    def activation(self, out): return self.loss.activation(out)
    def decodes(self, out): return self.loss.decodes(out)
