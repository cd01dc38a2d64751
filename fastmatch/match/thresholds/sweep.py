"The exact search for cuts: every one tried by sorted passes, none by trial."
import numpy as np

from ...core import InputError
from ..decide import thresholds_by_rank
from ..judge.score import hits
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors, group_codes


class Sweep:
    "The row F1 of every cut: edges, each with what it adds to its row's F1 when the cut falls to its score."
    def __init__(
        self,
        neighbors: Neighbors,  # Self-join
        groups,  # (n,) groups; a listing's true set is its whole group
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        if max_matches < 1: raise InputError(f'max_matches={max_matches}: 1 or more')
        self.neighbors = neighbors
        nb = neighbors.top(max_matches)
        y = group_codes(groups, len(nb.ids))
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


class RankSweep(Sweep):
    "The row F1 under cuts that rise with the rank: one for the nearest, one for the next, ..., the last for all further."
    def __init__(
        self,
        neighbors: Neighbors,  # Self-join
        groups,  # (n,) groups
        ranks: int = 2,  # Cuts; 2: the main one, and a lower one for the nearest (min2)
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        super().__init__(neighbors, groups, max_matches)
        if not isinstance(ranks, (int, np.integer)) or ranks < 1: raise InputError(f'ranks={ranks!r}: give a whole number from 1')
        self.ranks = int(ranks)

    def best(
        self,
        rows=None,  # bool (n,), whose mean F1 counts; default all
    ) -> tuple[tuple, float]:  # (cuts, mean row F1)
        "The cuts with the best mean row F1 over `rows`, of equal ones the highest."
        base, edge, gain = (o if rows is None else o[rows] for o in (self.f1[:, 0], self.scores, self.gain))
        if not len(base): raise InputError('rows: none is chosen')
        real = edge > -np.inf
        values, at = np.unique(edge[real], return_inverse=True)
        if not len(values): return (super().best(rows)[0],) * self.ranks, float(base.mean())
        at = len(values) - 1 - at
        rank = np.minimum(np.broadcast_to(np.arange(edge.shape[1]), edge.shape)[real], self.ranks - 1)
        # with cuts that rise, what is let in is the first of each row: what a rank adds depends on its own cut alone
        worth = [np.concatenate([[0], np.bincount(at[rank == r], gain[real][rank == r], len(values)).cumsum()]) for r in range(self.ranks)]
        # later ranks let in no deeper: the best of them within each depth
        for r in range(self.ranks - 2, -1, -1): worth[r] = worth[r] + np.maximum.accumulate(worth[r + 1])
        depths, most = [], len(values)
        for o in worth:
            o = o[:most + 1]
            # a gain that is only rounding is none: the higher cut wins
            depths.append(most := int(np.argmax(o >= o.max() - 1e-9)))
        values = values[::-1]
        ends = np.append(values, values[-1] - 2e-3)
        return (tuple(float(ends[d - 1] + ends[d]) / 2 if d else float(values[0]) + 1e-3 for d in depths),
                float((base.sum() + worth[0][depths[0]]) / len(base)))

    def at(
        self,
        threshold,  # Cuts, as `best` gives them
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row under these cuts."
        cuts = thresholds_by_rank(threshold, self.scores.shape[1])
        if (np.diff(cuts) < 0).any(): raise InputError(f'threshold={list(threshold)}: cuts that do not fall')
        return self.f1[np.arange(len(self.f1)), ((self.scores >= cuts) & (self.scores > -np.inf)).sum(1)]


def best_threshold(
    neighbors: Neighbors,  # Self-join
    groups,  # (n,) groups
    rows=None,  # bool (n,) or row numbers, whose mean row F1 counts; default all
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> tuple[float, float]:  # (threshold, mean row F1)
    "The exact optimum of mean row F1 over all cuts, midway between the last score let in and the first left out."
    sweep = Sweep(neighbors, groups, max_matches)
    return sweep.best(None if rows is None else row_mask(rows, len(neighbors.ids)))


def best_by_rank(
    neighbors: Neighbors,  # Self-join
    groups,  # (n,) groups
    ranks: int = 2,  # Cuts; 2: the main one, and a lower one for the nearest (min2)
    rows=None,  # bool (n,) or row numbers, whose mean row F1 counts; default all
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> tuple[tuple, float]:  # (cuts, mean row F1)
    "The exact optimum over all cuts that rise with the rank: with two, the best min2 together with the main threshold, as `decide` takes them."
    return RankSweep(neighbors, groups, ranks, max_matches).best(None if rows is None else row_mask(rows, len(neighbors.ids)))


def row_mask(rows, n):
    "Row numbers or a mask as bool (n,)."
    rows, mask = np.asarray(rows), np.zeros(n, bool)
    if not rows.size: return mask
    if rows.dtype == bool and rows.shape == (n,): return rows
    if rows.dtype.kind not in 'iu' or rows.ndim != 1:
        raise InputError(f'rows of dtype {rows.dtype}, shape {rows.shape}: give numbers, or bool ({n},)')
    if rows.min() < 0 or rows.max() >= n: raise InputError(f'rows from {rows.min()} to {rows.max()}, but there are {n}')
    mask[rows] = True
    return mask
