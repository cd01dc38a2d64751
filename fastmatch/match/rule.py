"The decision: the best cut, what a cut lets in, and a rule that can be kept."
from dataclasses import asdict, dataclass, field

import numpy as np

from ..core import InputError
from .fuse import FUSIONS, candidates, check_weights, fuse
from .neighbors import Neighbors, check_self, label_codes
from .score import hits

MAX_MATCHES = 50  # the competition's limit, the listing itself included


class Sweep:
    "The row F1 of every cut: edges, each with what it adds to its row's F1 when the cut falls to its score."
    def __init__(
        self,
        neighbors: Neighbors,  # Self-join
        labels,  # (n,) groups; a listing's true set is its whole group
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        if max_matches < 1: raise InputError(f'max_matches={max_matches}: 1 or more')
        nb = neighbors.top(max_matches)
        y = label_codes(labels, len(nb.ids))
        n, k = nb.ids.shape
        size = np.bincount(y)[y]
        right = hits(nb, y).cumsum(1, dtype=np.int32)
        # f1[i, m]: row i with its m nearest others let in
        self.f1 = np.empty((n, k))
        self.f1[:, 0] = 2 / (1 + size)
        self.f1[:, 1:] = 2 * (1 + right) / (1 + np.arange(1, k) + size[:, None])
        # float64 as in `decide`: in float32 a cut between two neighbouring scores would round to one of them
        self.scores = nb.scores[:, 1:].astype(np.float64)
        self.gain, self.bucket = np.diff(self.f1, axis=1), _buckets(nb.scores[:, 1:])

    def best(
        self,
        rows=None,  # bool (n,), whose mean F1 counts; default all
    ) -> tuple[float, float]:  # (threshold, mean row F1)
        "The cut with the best mean row F1 over `rows`."
        base = self.f1[:, 0] if rows is None else self.f1[rows, 0]
        if not len(base): raise InputError('rows: none is chosen')
        edge, gain, bucket = (o.ravel() if rows is None else o[rows].ravel() for o in (self.scores, self.gain, self.bucket))
        worth = _worth(bucket, gain)
        # where these rows have nobody near, above everybody's highest: json knows no infinity
        if worth is None:
            top = self.scores.max(initial=-np.inf)
            return (float(top) if top > -np.inf else 1.) + 1e-3, float(base.mean())
        kept = bucket <= worth
        edge, gain = edge[kept], gain[kept]
        # which of two equal scores comes first doesn't matter: a cut never falls between them
        order = np.argsort(-edge)
        edge, gain = edge[order], gain[order]
        total = gain.cumsum()
        # equal scores come in together or not at all
        ends = np.flatnonzero(np.append(edge[1:] != edge[:-1], True))
        at = ends[total[ends].argmax()]
        # a gain that is only rounding is none: the higher cut wins
        at = ends[np.argmax(total[ends] >= total[at] - 1e-9)]
        if total[at] <= 1e-9: return float(edge[0]) + 1e-3, float(base.mean())
        below = edge[at + 1] if at + 1 < len(edge) else edge[at] - 2e-3
        return float(edge[at] + below) / 2, float((base.sum() + total[at]) / len(base))

    def at(
        self,
        threshold: float,  # Scores from here on are let in
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row at `threshold`."
        # padding stands at -inf and is never let in
        return self.f1[np.arange(len(self.f1)), ((self.scores >= threshold) & (self.scores > -np.inf)).sum(1)]


PADDING = 0xff80  # the bucket of -inf


def _buckets(x):
    "The first 16 bits of float32 `x`, without NaN, as a number that rises where `x` falls: equal scores share a bucket."
    bits = (x + np.float32(0)).view(np.uint32)  # -0. is 0.
    return (np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff)) >> 16).astype(np.uint16)


def _worth(bucket, gain):
    "The last bucket that the best cut can fall in, None without edges: below it, not even the gains without the losses would make up."
    count, total, most = (np.bincount(bucket, w, PADDING)[:PADDING] for w in (None, gain, np.maximum(gain, 0)))
    if not count.any(): return None
    end = total.cumsum()
    # Cuts between buckets are cuts that there are; 1e-6 is far above what rounding does to the sums. What follows the best of them is let in
    # as well, so that the best cut's next score is among the kept.
    return np.flatnonzero(end - total + most >= max(0., end.max()) - 1e-6)[-1]


def best_threshold(
    neighbors: Neighbors,  # Self-join
    labels,  # (n,) groups
    rows=None,  # bool (n,) or row numbers, whose mean row F1 counts; default all
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> tuple[float, float]:  # (threshold, mean row F1)
    "The exact optimum of mean row F1 over all cuts, midway between the last score let in and the first left out."
    sweep = Sweep(neighbors, labels, max_matches)
    return sweep.best(None if rows is None else as_mask(rows, len(neighbors.ids)))


def as_mask(rows, n):
    "Row numbers or a mask as bool (n,)."
    rows, mask = np.asarray(rows), np.zeros(n, bool)
    if not rows.size: return mask
    if rows.dtype == bool and rows.shape == (n,): return rows
    if rows.dtype.kind not in 'iu' or rows.ndim != 1:
        raise InputError(f'rows of dtype {rows.dtype}, shape {rows.shape}: give numbers, or bool ({n},)')
    if rows.min() < 0 or rows.max() >= n: raise InputError(f'rows from {rows.min()} to {rows.max()}, but there are {n}')
    mask[rows] = True
    return mask


@dataclass
class Matches:
    "For each row its matches, itself first, best first: row i's are `ids[indptr[i]:indptr[i+1]]`."
    indptr: np.ndarray  # int64 (n+1,)
    ids: np.ndarray  # int64 (m,)
    scores: np.ndarray  # float32 (m,)

    def __len__(self): return len(self.indptr) - 1
    def __getitem__(self, i):
        i = range(len(self))[i]  # from the end as well
        return self.ids[self.indptr[i]:self.indptr[i + 1]]

    def __iter__(self): return iter(np.split(self.ids, self.indptr[1:-1]))

    def to_frame(
        self,
        posting_ids,  # (n,) what names each listing; (m,) with the catalogue's behind where matches point there
    ):
        "The competition's table: posting_id and its matches, blank-separated."
        import pandas as pd
        names = np.asarray(posting_ids).astype(str)
        if len(names) != len(self) and len(names) <= self.ids.max(initial=-1): raise InputError(f'posting_ids: {len(names)} for {len(self)} rows')
        return pd.DataFrame({'posting_id': names[:len(self)], 'matches': [' '.join(names[o]) for o in self]})


def decide(
    neighbors: Neighbors,  # Self-join, or new listings in a `Pool`
    threshold: float,  # Scores from here on are let in
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    pool: int | None = None,  # Listings that ids may point to; default as many as there are rows
) -> Matches:
    "Each listing with the neighbours at or above `threshold`; itself always."
    if np.isnan(threshold): raise InputError('threshold is NaN')
    check_self(neighbors, pool)
    nb = neighbors.top(max_matches)
    keep = nb.scores.astype(np.float64) >= threshold
    keep &= nb.ids >= 0
    keep[:, 0] = True
    return Matches(np.concatenate([[0], keep.sum(1).cumsum()]).astype(np.int64), nb.ids[keep], nb.scores[keep])


@dataclass(frozen=True)
class Rule:
    "A fusion and a cut, to be kept as json and applied to other listings."
    how: str  # One of `FUSIONS`
    weights: dict  # Modality -> weight, power or threshold
    threshold: float  # On the fused score
    k: int = 50  # Candidates of each modality
    max_matches: int = MAX_MATCHES  # Most matches a row, itself included
    score: dict = field(default_factory=dict)  # What it was worth where it was chosen
    join: tuple = ()  # Exact keys ('phash') that match by themselves

    def __post_init__(self):
        if self.how not in FUSIONS: raise InputError(f'how={self.how!r}: choose one of {", ".join(FUSIONS)}')
        if not isinstance(self.weights, dict): raise InputError(f'weights={self.weights!r}: give a dict, a number for each modality')
        for name, o in {'threshold': self.threshold, **{f'weights[{k!r}]': w for k, w in self.weights.items()}}.items():
            if isinstance(o, bool) or not isinstance(o, (int, float, np.number)) or not np.isfinite(o): raise InputError(f'{name}={o!r}: give a finite number')
        check_weights(self.how, self.weights)
        for name in ('k', 'max_matches'):
            o = getattr(self, name)
            if isinstance(o, bool) or not isinstance(o, (int, np.integer)) or o < 1: raise InputError(f'{name}={o!r}: give a whole number from 1')
        # plain numbers, so that json takes them
        object.__setattr__(self, 'threshold', float(self.threshold))
        object.__setattr__(self, 'weights', {k: float(w) for k, w in self.weights.items()})
        if isinstance(self.join, str) or not all(isinstance(o, str) for o in self.join): raise InputError(f'join={self.join!r}: give a list of names')
        object.__setattr__(self, 'join', tuple(self.join))

    @property
    def modalities(self) -> list[str]:
        "The modalities it reads, exact keys last."
        return [*self.weights, *self.join]

    def neighbors(
        self,
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Neighbors:
        "The fused neighbours of the listings in `spaces`."
        if missing := [k for k in self.modalities if k not in spaces]: raise InputError(f'the rule needs the modalities {missing}; there are {list(spaces)}')
        return fuse(candidates({k: spaces[k] for k in self.modalities}, self.k), self.how, self.weights, self.join)

    def apply(
        self,
        spaces: dict,  # Modality -> space
    ) -> Matches:
        "The matches of the listings in `spaces`."
        return self.cut(self.neighbors(spaces), spaces)

    def cut(
        self,
        neighbors: Neighbors,  # As `neighbors` gave them
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Matches:
        "The matches among fused neighbours."
        return decide(neighbors, self.threshold, self.max_matches, next(iter(spaces.values())).pool)

    def to_dict(self) -> dict: return {**asdict(self), 'join': list(self.join)}

    @classmethod
    def from_dict(cls, d: dict) -> 'Rule':
        "The rule that `to_dict` wrote."
        if unknown := set(d) - {o for o in cls.__dataclass_fields__}: raise InputError(f'rule: unknown entries {sorted(unknown)}')
        if missing := {'how', 'weights', 'threshold'} - set(d): raise InputError(f'rule: {sorted(missing)} missing')
        return cls(**d)
