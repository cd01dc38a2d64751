"Losses made of other losses: a weighted sum of several, and the mean over the hardest rows of one."
import math

import torch

from ..core import InputError
from .base import Loss


class SumLoss(Loss):
    """A weighted sum of named losses, for example a margin loss with a pair loss beside it.

    Each part takes its own kind of mean, and of the targets as many as it reads: beside `Distill`, which
    reads a teacher's logits as a second one, other losses get the labels alone. The callback `LossTerms`
    shows the parts beside the total during training.
    """
    def __init__(
        self,
        parts: dict,  # Name -> `Loss`, for example {'softmax': ArcFace(m=.3), 'triplet': Triplet()}
        # Weight of each part by name; where not named the loss's own `weight_in_sum`: 1, of `CenterLoss` 1e-3
        weights: dict | None = None,
        reduction: str = 'mean',  # 'mean', 'sum' or 'none', handed on to every part
    ):
        if not parts: raise InputError('parts: a sum wants one loss at least')
        unknown = set(weights or {}) - set(parts)
        if unknown: raise InputError(f'weights names {sorted(unknown)}; the parts are {list(parts)}')
        super().__init__(reduction)
        self.weights = {name: (weights or {}).get(name, getattr(part, 'weight_in_sum', 1.))
                        for name, part in parts.items()}
        for part_name, part in parts.items():
            if hasattr(self, part_name):
                raise InputError(f'parts: {part_name!r} means something else to a loss; '
                                 'name the part otherwise')
            self.add_module(part_name, part)
        self.reduction = reduction

    @property
    def parts(self):
        "Name -> `Loss`."
        return dict(self.named_children())

    @property
    def n_targets(self):
        "As many targets as the part reads that reads most of them."
        return max(getattr(part, 'n_targets', 1) for part in self.children())

    # fastai's mixing callbacks set `reduction` to 'none' for a while: the parts must follow
    @property
    def reduction(self): return self._reduction

    @reduction.setter
    def reduction(self, value):
        self._reduction = value
        for part in self.children(): part.reduction = value

    def forward(self, output, *targets, partners=None, **mixing):
        "The weighted sum of the parts; `partners` and `share` of mixed rows are those of `Loss.forward`."
        total = 0
        for name, part in self.parts.items():
            n_read = getattr(part, 'n_targets', 1)
            if partners is not None: mixing['partners'] = partners[:n_read]
            total = total + self.weights[name] * part(output, *targets[:n_read], **mixing)
        return total

    # predictions are made as the first part makes them
    def activation(self, output): return next(self.children()).activation(output)
    def decodes(self, output): return next(self.children()).decodes(output)


class HardRows(Loss):
    """The mean of another loss over the hardest rows of each batch (top-k loss, OHEM),
    https://arxiv.org/abs/1604.03540"""
    def __init__(
        self,
        loss: Loss,  # The loss of the rows
        share: float = .7,  # Share of the rows that count, above 0; at least one row does
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not 0 < share <= 1: raise InputError(f'share={share}: above 0, at most 1')
        if isinstance(loss, SumLoss): raise InputError('loss: put HardRows around the parts of a SumLoss')
        self.loss = loss
        self.share = share

    @property
    def n_targets(self): return self.loss.n_targets

    def n_kept(self, n_rows):
        "How many of `n_rows` rows count."
        return max(1, math.ceil(self.share * n_rows))

    def check(self, output, *targets): self.loss.check(output, *targets)
    def check_values(self, output, *targets): self.loss.check_values(output, *targets)
    def loss_inputs(self, output): return self.loss.loss_inputs(output)
    def values_to_check(self, output, row_losses): return self.loss.values_to_check(output, row_losses)
    def per_row(self, output, *targets): return self.loss.per_row(output, *targets)

    def reduce(self, row_losses, targets):
        hardest = row_losses.topk(min(self.n_kept(len(row_losses)), len(row_losses)))
        if self.reduction == 'mean': return hardest.values.mean()
        if self.reduction == 'sum': return hardest.values.sum()
        return row_losses.new_zeros(row_losses.shape).scatter(0, hardest.indices, hardest.values)

    def reduce_mixed(self, row_losses, partner_losses, share, targets, partners):
        # which rows are hard is told by the loss of the whole mixture
        return self.reduce(torch.lerp(partner_losses, row_losses, share), targets)

    def activation(self, output): return self.loss.activation(output)
    def decodes(self, output): return self.loss.decodes(output)
