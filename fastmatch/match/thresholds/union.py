"The best union of two decisions: every pair of cuts, by sorted passes."
import numpy as np

from ...core import InputError
from ..candidates import Candidates
from ..fuse import fuse
from ..neighbors import group_codes
from .sweep import row_mask

EVENTS = 128  # edges that come in by the first modality between two passes over the second
EPS = 1e-9  # a gain that is only rounding is none


class UnionSweep:
    "The row F1 of a union of two decisions: a pair is let in where either modality reaches its own cut, or an exact key is equal."
    def __init__(
        self,
        cand: Candidates,  # Of a self-join; as many matches as there are: no limit a row
        groups,  # (n,) groups
        names: tuple | None = None,  # The two modalities; default those of the candidates that are no keys
    ):
        names = tuple(k for k in cand.scores if k not in cand.join) if names is None else tuple(names)
        if len(names) != 2 or not set(names) <= set(cand.scores): raise InputError(f'names={names}: two of {list(cand.scores)}')
        y, ids = group_codes(groups, len(cand.ids)), cand.ids[:, 1:]
        if cand.pool not in (None, len(ids)): raise InputError('candidates in a catalogue: cuts are chosen on a self-join')
        # the order of a union is that of its cuts: for recall and precision, that of equal ones
        self.neighbors = fuse(cand, 'union', dict.fromkeys(names, 0.))
        self.names, self.size = names, np.bincount(y)[y]
        self.real = ids >= 0
        self.right = self.real & (y[ids] == y[:, None])
        self.always = self.real & np.any([cand.scores[k][:, 1:] == 1 for k in cand.join] or [np.zeros(ids.shape, bool)], axis=0)
        self.a, self.b = (np.where(self.real, cand.scores[k][:, 1:].astype(np.float64), -np.inf) for k in names)

    def at(
        self,
        cuts: dict,  # Modality -> cut
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row under these cuts."
        keep = self.always | (self.real & ((self.a >= cuts[self.names[0]]) | (self.b >= cuts[self.names[1]])))
        return 2 * (1 + (keep & self.right).sum(1)) / (1 + keep.sum(1) + self.size)

    def best(
        self,
        rows=None,  # bool (n,), whose mean F1 counts; default all
    ) -> tuple[dict, float]:  # (modality -> cut, mean row F1)
        "The pair of cuts with the best mean row F1 over `rows`: 'union' of `fuse` with these as weights, cut at 0."
        part = slice(None) if rows is None else rows
        p = _Passes(*(o[part] for o in (self.a, self.b, self.right, self.real, self.always, self.size)))
        ca, cb, value = p.run()
        cuts = [_cut(values, c) for values, c in ((p.va, ca), (p.vb, cb))]
        return dict(zip(self.names, cuts)), float(value / len(p.size))


def best_union(
    cand: Candidates,  # Of a self-join
    groups,  # (n,) groups
    names: tuple | None = None,  # The two modalities; default those of the candidates that are no keys
    rows=None,  # bool (n,) or row numbers, whose mean row F1 counts; default all
) -> tuple[dict, float]:  # (modality -> cut, mean row F1)
    "The exact optimum over all pairs of cuts of a union of two decisions."
    return UnionSweep(cand, groups, names).best(None if rows is None else row_mask(rows, len(cand.ids)))


def _cut(values, c):
    "Below the `c` highest of `values` (falling, float64 of float32), midway to the next."
    if not len(values): return 1.
    if not c: return float(values[0]) + 1e-3
    below = values[c] if c < len(values) else values[c - 1] - 2e-3
    # fused scores are float32: where no such number lies between two neighbours, the upper one is the cut
    cut = float(np.float32((values[c - 1] + below) / 2))
    return cut if cut > below else float(values[c - 1])


class _Passes:
    def __init__(self, a, b, right, real, always, size):
        if not len(size): raise InputError('rows: none is chosen')
        self.right, self.always, self.size, self.free = right, always, size, real & ~always
        (self.va, self.pa), (self.vb, self.pb) = (self._places(o) for o in (a, b))
        # edges of each row in the order in which the second modality lets them in
        self.order = np.argsort(self.pb, axis=1, kind='stable')
        self.spb, self.sright, self.sfree = (np.take_along_axis(o, self.order, 1) for o in (self.pb, right, self.free))

    def _places(self, score):
        # how many different scores are above: an edge is in from cut c on where its place is below c
        values, at = np.unique(score[self.free], return_inverse=True)
        place = np.full(score.shape, len(values))
        place[self.free] = len(values) - 1 - at
        return values[::-1], place

    def _steps(self, rows, base):
        "F1 of `rows` with `base` (s,k) let in, and what each further edge adds as the second modality lets it in: (s,), (s,k)."
        inside = np.take_along_axis(base, self.order[rows], 1)
        more = self.sfree[rows] & ~inside
        count = inside.sum(1)[:, None] + more.cumsum(1)
        hit = (inside & self.sright[rows]).sum(1)[:, None] + (more & self.sright[rows]).cumsum(1)
        size = self.size[rows][:, None]
        first = 2 * (1 + (inside & self.sright[rows]).sum(1)) / (1 + inside.sum(1) + self.size[rows])
        f1 = np.concatenate([first[:, None], 2 * (1 + hit) / (1 + count + size)], 1)
        return first, np.diff(f1, axis=1)

    def _alone(self, place, n, base):
        "The best cut of one modality with `base` let in anyway: (cut, sum of F1)."
        order = np.argsort(place, axis=1, kind='stable')
        inside, hit, place = (np.take_along_axis(o, order, 1) for o in (base, self.right, place))
        more = ~inside & (place < n)
        f1 = 2 * (1 + (inside & hit).sum(1)[:, None] + (more & hit).cumsum(1)) / (1 + inside.sum(1)[:, None] + more.cumsum(1) + self.size[:, None])
        first = 2 * (1 + (inside & hit).sum(1)) / (1 + inside.sum(1) + self.size)
        gain = np.diff(np.concatenate([first[:, None], f1], 1), axis=1)
        total = first.sum() + np.concatenate([[0], np.bincount(place[more], gain[more], n).cumsum()])
        return int(np.argmax(total >= total.max() - EPS)), float(total.max())

    def _bound(self, place, n, least):
        "The deepest cut of one modality that could still reach `least`, were all right edges in and only its own wrong ones."
        wrong = ~self.right & self.free
        hits, base = (self.right & (self.free | self.always)).sum(1), (self.always & ~self.right).sum(1)
        rows, cols = np.nonzero(wrong & (place < n))
        at = place[rows, cols]
        order = np.lexsort((at, rows))
        rows, at = rows[order], at[order]
        count = np.bincount(rows, minlength=len(hits))
        nth = np.arange(len(rows)) - np.repeat(count.cumsum() - count, count)
        def f1(i, w): return 2 * (1 + hits[i]) / (1 + hits[i] + w + self.size[i])
        drop = np.bincount(at, f1(rows, base[rows] + nth + 1) - f1(rows, base[rows] + nth), n).cumsum()
        ok = np.flatnonzero(f1(np.arange(len(hits)), base).sum() + drop >= least - 1e-6)
        return 0 if not len(ok) else int(ok[-1]) + 1

    def run(self):
        na, nb = len(self.va), len(self.vb)
        # a good pair of cuts by turns, so that hopeless ones need no pass
        least = -np.inf
        for first in (0, 1):
            base = self.always
            for turn in range(6):
                place, n = ((self.pa, na), (self.pb, nb))[(first + turn) % 2]
                c, value = self._alone(place, n, base)
                base = self.always | (self.free & (place < c))
                least = max(least, value)
        la, self.lb = self._bound(self.pa, na, least), self._bound(self.pb, nb, least)
        self.sfree &= self.spb < self.lb
        every = np.arange(len(self.size))
        first, gain = self._steps(every, self.always)
        self.base, self.total = first.sum(), np.bincount(self.spb[self.sfree], gain[self.sfree], self.lb)
        best = self._take((0, 0, -np.inf), 0, np.concatenate([[0], self.total.cumsum()]) + self.base)
        rows, cols = np.nonzero(self.free & (self.pa < la))
        order = np.argsort(self.pa[rows, cols], kind='stable')
        rows, at = rows[order], self.pa[rows, cols][order]
        start = 0
        while start < len(rows):
            # whole cuts: edges of one score come in together
            end = np.searchsorted(at, at[min(start + EVENTS, len(rows)) - 1], 'right')
            best = self._block(best, rows[start:end], at[start:end])
            start = end
        return best

    def _take(self, best, ca, values):
        cb = int(np.argmax(values >= values.max() - EPS))
        return (ca, cb, float(values[cb])) if values[cb] > best[2] + EPS else best

    def _block(self, best, rows, at):
        "Passes over the second modality while `rows`' edges come in: between them only these rows change."
        touched, cuts = np.unique(rows), np.unique(at)
        key = np.unique(np.concatenate([touched * (self.pa.max() + 2), rows * (self.pa.max() + 2) + at + 1]))
        row, at = key // (self.pa.max() + 2), key % (self.pa.max() + 2) - 1
        initial = at < 0
        # a row's state before the block, then one after each cut that changes it
        inside = self.always[row] | (self.free[row] & (self.pa[row] <= np.where(initial, cuts[0] - 1, at)[:, None]))
        first, gain = self._steps(row, inside)
        place, live = self.spb[row], self.sfree[row]
        # between the breakpoints of these rows all others decide alone: their best there is all that counts
        points = np.unique(place[live])
        seg = np.where(live, np.searchsorted(points, place) + 1, 0)
        width = len(points) + 1
        def spread(where, x, g):
            at = (where[:, None] * width + seg[mask])[live[mask]]
            return np.bincount(at, g[live[mask]], n * width) + np.bincount(where * width, x, n * width)
        n, mask = 1, initial
        mine = spread(np.zeros(mask.sum(), int), first[mask], gain[mask]).cumsum()
        before = self._sums(row[mask], gain[mask])
        rest = self.base - first[mask].sum() + np.concatenate([[0], (self.total - before).cumsum()])
        starts = np.concatenate([[0], points + 1])
        most = np.maximum.reduceat(rest, starts)
        n, mask = len(cuts), ~initial
        old = np.flatnonzero(mask) - 1
        change = spread(np.searchsorted(cuts, at[mask]), first[mask] - first[old], gain[mask] - gain[old])
        value = change.reshape(n, width).cumsum(1).cumsum(0) + mine + most
        i, j = np.unravel_index(np.argmax(value >= value.max() - EPS), value.shape)
        if value[i, j] > best[2] + EPS:
            inside = rest[starts[j]:starts[j + 1] if j + 1 < width else None]
            best = int(cuts[i]) + 1, int(starts[j] + np.argmax(inside >= inside.max() - EPS)), float(value[i, j])
        last = np.append(row[1:] != row[:-1], True)
        self.total += self._sums(row[last], gain[last]) - before
        self.base += first[last].sum() - first[initial].sum()
        return best

    def _sums(self, rows, gain):
        live = self.sfree[rows]
        return np.bincount(self.spb[rows][live], gain[live], self.lb)
