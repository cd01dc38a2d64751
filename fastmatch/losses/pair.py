"Losses over the pairs of a batch: they read embeddings and want several listings of a group in it (`sampler='pk'`)."
import math

import torch
import torch.nn.functional as F

from ..core import HeadOutput, InputError
from .base import Loss, read_cosines, read_extra, upcast


class PairLoss(Loss):
    "A loss over a batch's pairs; subclasses give `pairs(emb, pos, neg)`, a value per row, and the mean is over rows that have what they need."
    normalize = True  # embeddings to unit length first
    needs = '2 classes and 2 rows of one of them at least'  # what a batch must hold

    def check(self, out, y):
        if len(y) != len(emb := self.reads(out)) or emb.ndim != 2:
            raise InputError(f'{type(self).__name__} reads embeddings (n,d) with n labels; it got {tuple(emb.shape)} and {len(y)} labels')

    def check_values(self, out, y):
        # in validation a last batch may be short: there it costs 0
        if not torch.is_grad_enabled() or bool(self.usable(*self.masks(y)).any()): return
        sizes = y.unique(return_counts=True)[1].tolist()
        raise InputError(f'{type(self).__name__} has nothing to compare in a batch of {len(y)} rows and {len(sizes)} classes, at most {max(sizes, default=0)} '
                         f"of one: it needs {self.needs} (sampler='pk' draws such batches)")

    def reads(self, out): return out.emb if isinstance(out, HeadOutput) else out
    # mining passes NaN over: no distance is larger or smaller
    def telltale(self, out, rows): return self.reads(out)
    def usable(self, pos, neg): return self.counts(pos, neg)

    def pairs(
        self,
        emb,  # (n,d), of unit length where `normalize` is set
        pos,  # bool (n,n) other rows of the same class
        neg,  # bool (n,n) rows of other classes
    ):  # (n,)
        "The loss of each row as an anchor."
        raise NotImplementedError

    def counts(self, pos, neg):
        "Which rows (n,) count in the mean: here those with a positive and a negative; the others' loss is 0."
        return pos.any(1) & neg.any(1)

    @staticmethod
    def masks(y):
        same = y[:, None] == y
        return same & ~torch.eye(len(y), dtype=torch.bool, device=y.device), ~same

    def one(self, out, y):
        emb = upcast(self.reads(out))
        with torch.autocast(emb.device.type, enabled=False):
            pos, neg = self.masks(y)
            loss = self.pairs(F.normalize(emb) if self.normalize else emb, pos, neg)
            return loss.masked_fill(~self.counts(pos, neg), 0.)

    def mean(self, loss, y): return loss.sum() / self.counts(*self.masks(y)).sum().clamp(min=1)


def distances(x):
    "Euclidean distances (n,n) of the rows of `x`; a distance of 0 has the gradient 0, where the root's slope is infinite."
    sq = (x**2).sum(1)
    d2 = sq[:, None] + sq - 2 * x @ x.t()
    # what rounding leaves of the difference of two nearly equal numbers is no distance
    tiny = 10 * torch.finfo(x.dtype).eps * (sq[:, None] + sq).detach()
    far = d2 > tiny
    return torch.where(far, torch.where(far, d2, 1.).sqrt(), 0.)


class Triplet(PairLoss):
    "A positive nearer than a negative by `m`: batch-hard https://arxiv.org/abs/1703.07737 or semi-hard https://arxiv.org/abs/1503.03832"
    def __init__(
        self,
        m: float | None = .2,  # Margin between the distances (FaceNet's .2); None: softplus in its place
        mine: str = 'hard',  # 'hard': farthest positive, nearest negative; 'semihard': each positive with the nearest negative beyond it
        normalize: bool = True,  # Distances between embeddings of unit length
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if m is not None and not 0 <= m < math.inf: raise InputError(f'm={m}: at least 0, or None for the soft margin')
        if mine not in ('hard', 'semihard'): raise InputError(f"mine={mine!r}: choose 'hard' or 'semihard'")
        self.m, self.mine, self.normalize = m, mine, normalize

    def hinge(self, x): return F.softplus(x) if self.m is None else (x + self.m).relu()

    def pairs(self, emb, pos, neg):
        d = distances(emb)
        if self.mine == 'hard':
            return self.hinge(d.masked_fill(~pos, -math.inf).amax(1).nan_to_num(neginf=0.) - self.nearest(d, neg))
        # (n,n,n): negative k of the pair i,j; where none lies beyond the positive, the farthest there is
        beyond = neg[:, None, :] & (d[:, None, :] > d[:, :, None])
        nearest = self.nearest(d[:, None, :].expand_as(beyond), beyond)
        farthest = d.masked_fill(~neg, -math.inf).amax(1, keepdim=True).nan_to_num(neginf=0.)
        loss = self.hinge(d - torch.where(beyond.any(2), nearest, farthest))
        return (loss * pos).sum(1) / pos.sum(1).clamp(min=1)

    @staticmethod
    def nearest(d, mask): return d.masked_fill(~mask, math.inf).amin(-1).nan_to_num(posinf=0.)


class Contrastive(PairLoss):
    "Positives to distance 0, negatives beyond `m`: d^2/2 and max(0, m-d)^2/2 over all pairs, http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf"
    needs = '2 rows at least'

    def __init__(
        self,
        m: float = 1.,  # Distance that negatives are pushed to (unit vectors are 2 apart at most)
        normalize: bool = True,  # Distances between embeddings of unit length
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not 0 < m < math.inf: raise InputError(f'm={m}: above 0')
        self.m, self.normalize = m, normalize

    def counts(self, pos, neg): return pos.any(1) | neg.any(1)

    def pairs(self, emb, pos, neg):
        d = distances(emb)
        return (pos * d**2 + neg * (self.m - d).relu()**2).sum(1) / 2 / max(1, len(d) - 1)


class SupCon(PairLoss):
    "Log-softmax of each positive among all other rows, averaged over the positives, https://arxiv.org/abs/2004.11362"
    needs = '2 rows of one class at least'

    def __init__(
        self,
        t: float = .1,  # Temperature of the cosines (the paper's .1)
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not t > 0: raise InputError(f't={t}: above 0')
        self.t = t

    def counts(self, pos, neg): return pos.any(1)
    def among(self, z, pos, neg): return z.masked_fill(~(pos | neg), -math.inf).logsumexp(1, keepdim=True)

    def pairs(self, emb, pos, neg):
        z = emb @ emb.t() / self.t
        # a row alone in its batch has nothing to be compared with: keep -inf out of the product
        loss = (self.among(z, pos, neg) - z).masked_fill(~pos, 0.)
        return loss.sum(1) / pos.sum(1).clamp(min=1)


class NTXent(SupCon):
    "Log-softmax of each positive among itself and the negatives (InfoNCE), https://arxiv.org/abs/2002.05709"
    needs = PairLoss.needs

    def counts(self, pos, neg): return pos.any(1) & neg.any(1)
    def among(self, z, pos, neg): return torch.logaddexp(z, z.masked_fill(~neg, -math.inf).logsumexp(1, keepdim=True))


class MultiSimilarity(PairLoss):
    "Weighs the pairs that mining leaves by their own and relative similarity, https://arxiv.org/abs/1904.06627"
    def __init__(
        self,
        alpha: float = 2.,  # Sharpness on positives (2, 50, .5 and .1 are the paper's)
        beta: float = 50.,  # Sharpness on negatives
        base: float = .5,  # Cosine that positives should exceed and negatives stay below
        eps: float = .1,  # A pair is mined if it is within this of the hardest of the other kind
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not (alpha > 0 and beta > 0): raise InputError(f'alpha={alpha}, beta={beta}: above 0')
        self.alpha, self.beta, self.base, self.eps = alpha, beta, base, eps

    def usable(self, pos, neg): return PairLoss.counts(self, pos, neg)

    # the paper's mean is over all rows; a row without mined pairs costs 0
    def counts(self, pos, neg): return torch.ones(len(pos), dtype=torch.bool, device=pos.device)

    def pairs(self, emb, pos, neg):
        cos = emb @ emb.t()
        near = cos + self.eps > cos.masked_fill(~pos, math.inf).amin(1, keepdim=True)
        far = cos - self.eps < cos.masked_fill(~neg, -math.inf).amax(1, keepdim=True)
        return self.log1sum(-self.alpha * (cos - self.base), pos & far) / self.alpha + self.log1sum(self.beta * (cos - self.base), neg & near) / self.beta

    @staticmethod
    def log1sum(z, mask): return F.pad(z.masked_fill(~mask, -math.inf), (1, 0)).logsumexp(1)  # the pad's e^0 is the 1


class CenterLoss(Loss):
    "Half the squared distance to the class's own point, kept by a `CenterHead`, https://doi.org/10.1007/978-3-319-46478-7_31; add it to a softmax."
    def one(self, out, y):
        read_cosines(self, out)
        emb = upcast(out.emb)
        return ((emb - read_extra(self, out, 'centers', 'CenterHead').to(emb)[y])**2).sum(1) / 2
