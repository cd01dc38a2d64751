"""Losses over the pairs of a batch: they read embeddings, and need several listings of a group in a batch
(`sampler='pk'`).

`CenterLoss`, which also reads embeddings, compares them with class centers.
"""
import math

import torch
import torch.nn.functional as F

from ..core import HeadOutput, InputError
from ..processes import n_joined, own_rows, rows_of_all
from .base import Loss, require_cosines, required_extra, upcast


class PairLoss(Loss):
    """Base class of losses over a batch's pairs; the mean is over the rows that have the pairs the loss
    needs.

    A subclass implements `per_anchor`, the loss of each row compared with all others; it may override
    `counted_rows` and `comparable_rows`. Positives of a row are the other rows of its class, negatives the
    rows of other classes.
    """
    compares_rows = True
    normalize = True  # bring embeddings to unit length first
    needs = '2 classes and 2 rows of one of them at least'  # what a batch must hold, for the message

    def check(self, output, targets):
        embeddings = self.loss_inputs(output)
        if len(targets) != len(embeddings) or embeddings.ndim != 2:
            raise InputError(f'{type(self).__name__} reads embeddings (n,d) with n labels; '
                             f'it got {tuple(embeddings.shape)} and {len(targets)} labels')

    def check_values(self, output, targets):
        # in validation the last batch may be too small: there it costs 0
        if not torch.is_grad_enabled(): return
        targets = rows_of_all(targets)
        if bool(self.comparable_rows(*self.pair_masks(targets)).any()): return
        class_sizes = targets.unique(return_counts=True)[1].tolist()
        raise InputError(f'{type(self).__name__} has nothing to compare in a batch of {len(targets)} rows '
                         f'and {len(class_sizes)} classes, at most {max(class_sizes, default=0)} of one: '
                         f"it needs {self.needs} (sampler='pk' draws such batches)")

    def loss_inputs(self, output): return output.emb if isinstance(output, HeadOutput) else output

    # picking the nearest and farthest rows may pass over a NaN, which is neither smaller nor larger than
    # anything
    def values_to_check(self, output, row_losses): return self.loss_inputs(output)

    def per_anchor(
        self,
        embeddings,  # (n,d), of unit length where `normalize` is set
        positives,  # bool (n,n): the column's row is another row of the same class
        negatives,  # bool (n,n): the column's row is of another class
    ):  # (n,)
        "The loss of each row, compared with the others."
        raise NotImplementedError

    def counted_rows(self, positives, negatives):
        """Which rows (n,) count in the mean: here those with a positive and a negative; the loss of the
        others is 0."""
        return positives.any(1) & negatives.any(1)

    def comparable_rows(self, positives, negatives):
        "Which rows (n,) have something to be compared with; a training batch without any is refused."
        return self.counted_rows(positives, negatives)

    @staticmethod
    def pair_masks(targets):
        "Positives and negatives of each row, two bool (n,n)."
        same = targets[:, None] == targets
        itself = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        return same & ~itself, ~same

    def per_row(self, output, targets):
        embeddings = upcast(self.loss_inputs(output))
        # in a training of several processes a row is compared with the rows of all
        own, in_training = own_rows(len(targets)), torch.is_grad_enabled()
        if in_training: embeddings, targets = rows_of_all(embeddings), rows_of_all(targets)
        with torch.autocast(embeddings.device.type, enabled=False):
            positives, negatives = self.pair_masks(targets)
            if self.normalize: embeddings = F.normalize(embeddings)
            row_losses = self.per_anchor(embeddings, positives, negatives)
            row_losses = row_losses.masked_fill(~self.counted_rows(positives, negatives), 0.)
            return row_losses[own] if in_training else row_losses

    def mean(self, row_losses, targets):
        n_processes = 1
        if torch.is_grad_enabled(): targets, n_processes = rows_of_all(targets), n_joined()
        n_counted = self.counted_rows(*self.pair_masks(targets)).sum()
        # the mean over the processes of this is the mean over all rows
        return row_losses.sum() / n_counted.clamp(min=1) * n_processes


def distances(
    embeddings,  # (n,d)
):  # (n,n)
    """Euclidean distances between all rows; a distance of 0 has the gradient 0, where the root's slope is
    infinite."""
    squares = (embeddings**2).sum(1)
    squared = squares[:, None] + squares - 2 * embeddings @ embeddings.t()
    # the difference of two nearly equal numbers is rounding error: rows so near are equal
    rounding = 10 * torch.finfo(embeddings.dtype).eps * (squares[:, None] + squares).detach()
    apart = squared > rounding
    return torch.where(apart, torch.where(apart, squared, 1.).sqrt(), 0.)


def nearest(distance, mask):
    "The smallest distance in the last dimension among those in `mask`; 0 where there are none."
    return distance.masked_fill(~mask, math.inf).amin(-1).nan_to_num(posinf=0.)


def farthest(distance, mask):
    "The largest distance in the last dimension among those in `mask`; 0 where there are none."
    return distance.masked_fill(~mask, -math.inf).amax(-1).nan_to_num(neginf=0.)


class Triplet(PairLoss):
    """A positive must be nearer than a negative by the margin `m`: batch-hard,
    https://arxiv.org/abs/1703.07737, or semi-hard, https://arxiv.org/abs/1503.03832

    'hard' takes the farthest positive and the nearest negative of each row; 'semihard' takes each positive,
    with the nearest negative that is farther away than it.
    """
    def __init__(
        self,
        m: float | None = .2,  # Margin between the distances (FaceNet's .2); None: softplus, not a hinge
        mine: str = 'hard',  # 'hard' or 'semihard': which triplets of a row count
        normalize: bool = True,  # Compare embeddings of unit length
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if m is not None and not 0 <= m < math.inf:
            raise InputError(f'm={m}: at least 0, or None for the soft margin')
        if mine not in ('hard', 'semihard'): raise InputError(f"mine={mine!r}: choose 'hard' or 'semihard'")
        self.m = m
        self.mine = mine
        self.normalize = normalize

    def hinge(self, difference):
        return F.softplus(difference) if self.m is None else (difference + self.m).relu()

    def per_anchor(self, embeddings, positives, negatives):
        distance = distances(embeddings)
        if self.mine == 'hard':
            return self.hinge(farthest(distance, positives) - nearest(distance, negatives))
        # (n,n,n): whether k is a negative of i that is farther away than j; where no negative is, the
        # farthest counts
        beyond = negatives[:, None, :] & (distance[:, None, :] > distance[:, :, None])
        nearest_beyond = nearest(distance[:, None, :].expand_as(beyond), beyond)
        negative = torch.where(beyond.any(2), nearest_beyond, farthest(distance, negatives)[:, None])
        pairs = self.hinge(distance - negative)
        return (pairs * positives).sum(1) / positives.sum(1).clamp(min=1)


class Contrastive(PairLoss):
    """Pulls positives to distance 0 and pushes negatives beyond `m`: d^2 / 2 and max(0, m - d)^2 / 2 over
    all pairs, http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf"""
    needs = '2 rows at least'

    def __init__(
        self,
        m: float = 1.,  # Distance that negatives are pushed to (unit vectors are at most 2 apart)
        normalize: bool = True,  # Compare embeddings of unit length
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not 0 < m < math.inf: raise InputError(f'm={m}: above 0')
        self.m = m
        self.normalize = normalize

    def counted_rows(self, positives, negatives): return positives.any(1) | negatives.any(1)

    def per_anchor(self, embeddings, positives, negatives):
        distance = distances(embeddings)
        pairs = positives * distance**2 + negatives * (self.m - distance).relu()**2
        return pairs.sum(1) / 2 / max(1, len(distance) - 1)


class SupCon(PairLoss):
    """Supervised contrastive loss: the log-softmax of each positive among all other rows, the mean over
    the positives, https://arxiv.org/abs/2004.11362"""
    needs = '2 rows of one class at least'

    def __init__(
        self,
        t: float = .1,  # Temperature that cosines are divided by (.1 in the paper)
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not t > 0: raise InputError(f't={t}: above 0')
        self.t = t

    def counted_rows(self, positives, negatives): return positives.any(1)

    def log_total(self, logits, positives, negatives):
        "The log of the softmax's denominator of each pair, (n,1) or (n,n)."
        return logits.masked_fill(~(positives | negatives), -math.inf).logsumexp(1, keepdim=True)

    def per_anchor(self, embeddings, positives, negatives):
        logits = embeddings @ embeddings.t() / self.t
        # masked and not multiplied: a row that is alone in its batch has a log of 0, and infinity times 0 is
        # NaN
        pairs = (self.log_total(logits, positives, negatives) - logits).masked_fill(~positives, 0.)
        return pairs.sum(1) / positives.sum(1).clamp(min=1)


class NTXent(SupCon):
    """InfoNCE, SimCLR's loss: the log-softmax of each positive among itself and the negatives,
    https://arxiv.org/abs/2002.05709

    Where a row has several positives, their mean is its loss, and the loss of the batch is the mean over the
    rows: each row counts the same. pytorch-metric-learning's `NTXentLoss` takes the mean over all pairs, in
    which rows of large classes count more; with one positive a row, as in the paper, the two are equal.
    """
    needs = PairLoss.needs

    def counted_rows(self, positives, negatives): return positives.any(1) & negatives.any(1)

    def log_total(self, logits, positives, negatives):
        return torch.logaddexp(logits, logits.masked_fill(~negatives, -math.inf).logsumexp(1, keepdim=True))


class MultiSimilarity(PairLoss):
    """Picks the hard pairs of each row and weights them by their own similarity and by that of the others,
    https://arxiv.org/abs/1904.06627"""
    def __init__(
        self,
        alpha: float = 2.,  # Sharpness on positives (2, 50, .5 and .1 are the paper's)
        beta: float = 50.,  # Sharpness on negatives
        base: float = .5,  # Cosine that positives should exceed and negatives stay below
        eps: float = .1,  # A pair counts if it is within this of the hardest pair of the other kind
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not (alpha > 0 and beta > 0): raise InputError(f'alpha={alpha}, beta={beta}: above 0')
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.eps = eps

    def comparable_rows(self, positives, negatives): return PairLoss.counted_rows(self, positives, negatives)

    # the paper's mean is over all rows; a row without picked pairs costs 0
    def counted_rows(self, positives, negatives):
        return torch.ones(len(positives), dtype=torch.bool, device=positives.device)

    def per_anchor(self, embeddings, positives, negatives):
        cosines = embeddings @ embeddings.t()
        least_positive = cosines.masked_fill(~positives, math.inf).amin(1, keepdim=True)
        greatest_negative = cosines.masked_fill(~negatives, -math.inf).amax(1, keepdim=True)
        hard_negatives = negatives & (cosines + self.eps > least_positive)
        hard_positives = positives & (cosines - self.eps < greatest_negative)
        pull = self.log_one_plus_sum(-self.alpha * (cosines - self.base), hard_positives) / self.alpha
        push = self.log_one_plus_sum(self.beta * (cosines - self.base), hard_negatives) / self.beta
        return pull + push

    @staticmethod
    def log_one_plus_sum(exponents, mask):
        "log(1 + sum(exp(exponents))) of each row (n,), over the entries in `mask`."
        # the exponent 0 that is put in front gives the 1
        return F.pad(exponents.masked_fill(~mask, -math.inf), (1, 0)).logsumexp(1)


class CenterLoss(Loss):
    """Half the squared distance of an embedding to the center of its class, which a `CenterHead` holds,
    https://doi.org/10.1007/978-3-319-46478-7_31; to be added to a softmax loss in a `SumLoss`.

    A sum that names no weight gives it 1e-3 (the paper's is .003): squared distances of embeddings are some
    hundred times as large as a softmax loss, and at weight 1 nothing else is trained.
    """
    weight_in_sum = 1e-3

    def per_row(self, output, targets):
        require_cosines(self, output)
        embeddings = upcast(output.emb)
        centers = required_extra(self, output, 'centers', 'CenterHead').to(embeddings)
        return ((embeddings - centers[targets])**2).sum(1) / 2
