"Any fusion's best cuts in milliseconds: pairs laid flat once, and of them only those looked at that a best cut could let in; the rest is proved away."
from dataclasses import replace

import numpy as np

from ...core import InputError
from ..candidates import Candidates
from ..fuse import check_weights, equal_weights, fused_scores
from ..matches import MAX_MATCHES
from ..neighbors import group_codes
from .sweep import row_mask

FUSED = ('mean', 'square', 'joint', 'prob_or', 'power', 'union', 'above')  # fusions that rise with every modality's score
DEPTHS = 2.5, 6, np.inf  # pairs kept of each modality at each level, as a multiple of those to be found
FLOORED = ('square', 'prob_or', 'power', 'above')  # of these, whose scores go down to 0 and no further
BUCKETS = 4096
CELLS = 1 << 24  # comparisons held at a time


class Flat:
    "The candidates of some rows as loose pairs; `sweep` gives the row F1 of every cut of any fusion that rises with the scores it is made of."
    def __init__(
        self,
        cand: Candidates,  # Of a self-join
        groups,  # (n,) groups; a listing's true set is its whole group
        rows=None,  # bool (n,) or row numbers, whose cuts are asked for; default all
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        n = len(cand.ids)
        if cand.pool not in (None, n): raise InputError('candidates in a catalogue: cuts are chosen on a self-join')
        if max_matches < 1: raise InputError(f'max_matches={max_matches}: 1 or more')
        y = group_codes(groups, n)
        self.cand, self.n, self.max_matches = cand, n, max_matches
        self.rows = np.arange(n) if rows is None else np.flatnonzero(row_mask(rows, n))
        if not len(self.rows): raise InputError('rows: none is chosen')
        self.names = [k for k in cand.scores if k not in cand.join]
        self.size = np.bincount(y)[y][self.rows].astype(np.float64)
        ids = cand.ids[self.rows, 1:]
        self.right = (y[ids] == y[self.rows][:, None]) & (ids >= 0)
        self.found = self.right.sum(1)
        self.wrong = (ids >= 0).sum(1) - self.found
        # to be found, and as many again: about what a good cut lets in
        self.target = int(self.found.sum()) + len(self.rows)
        self._levels = {}

    def level(self, i):
        "The pairs that stand high enough in one modality at least, and what the others reach at most."
        if i not in self._levels: self._levels[i] = _Level(self, DEPTHS[i] * self.target)
        return self._levels[i]

    def sweep(
        self,
        how: str = 'mean',  # One of `FUSED`
        weights: dict | None = None,  # Modality -> weight, power or threshold; default 1 of each (0 for 'union' and 'above')
        power: float = 6.,  # Of 'power'
        ranks: int = 1,  # Cuts; 2: a lower one for the nearest (min2)
        max_matches: int | None = None,  # Most matches a row, itself included; default the one given before
    ) -> 'FlatSweep':
        "What `Sweep(fuse(cand, how, weights), groups)` (or `RankSweep`) says, sooner."
        if how not in FUSED: raise InputError(f'how={how!r}: choose one of {", ".join(FUSED)}')
        if ranks not in (1, 2): raise InputError(f'ranks={ranks!r}: 1 or 2')
        if weights is None: weights = equal_weights(self.cand, how)
        check_weights(how, weights, power)
        if unknown := set(weights) - set(self.names): raise InputError(f'weights name {sorted(unknown)}; the candidates hold {self.names}')
        return FlatSweep(self, (how, weights, self.cand.join, power), ranks, self.max_matches if max_matches is None else max_matches)


class _Level:
    def __init__(self, flat, depth):
        c, rows = flat.cand, flat.rows
        ids = c.ids[rows, 1:]
        keep, grids = np.zeros(ids.shape, bool), {k: c.scores[k][rows, 1:] for k in c.scores}
        real, self.bound = ids >= 0, {}
        for k in c.join: keep |= grids[k] == 1
        for k in flat.names:
            s = grids[k]
            count = int(min(depth, real.sum()))
            if count < real.sum(): self.bound[k] = np.partition(s[real], -count - 1)[-count - 1]
            keep |= s > self.bound.get(k, -np.inf)
        # a pair that another of its row exceeds in every modality is never the row's nearest
        front = _front([grids[k] for k in flat.names], real)
        # where a fusion has a floor, all of a row may lie on it: then the first stands first
        if real.shape[1]: front[np.arange(len(real)), real.argmax(1)] = True
        keep, front = (keep | front) & real, front & real
        self.whole = not (real & ~keep).any()
        row, col = np.nonzero(keep)
        self.row, self.front = row.astype(np.int32), np.flatnonzero(front[row, col])
        self.pairs = replace(c, ids=ids[row, col], scores={k: np.ascontiguousarray(v[row, col]) for k, v in grids.items()}, rows=rows[row])
        count = np.bincount(row, minlength=len(rows))
        at = np.arange(len(row)) - np.repeat(count.cumsum() - count, count)
        # one number sorts a row's pairs by score and then as they stood; whether it is right travels along
        self.shift = int(count.max(initial=1)).bit_length() + 1
        self.low = (at.astype(np.uint64) << np.uint64(1)) | flat.right[row, col].astype(np.uint64)
        self.front_row = self.row[self.front]
        self.front_start = np.flatnonzero(np.append(True, np.diff(self.front_row) != 0)) if len(self.front) else np.zeros(0, np.int64)

    def most(self, how, weights, join, power):
        "What a pair left out scores at most."
        if self.whole: return -np.inf
        one = Candidates(np.zeros(1, np.int64), {k: np.array([v]) for k, v in self.bound.items()}, pool=1, rows=np.zeros(1, np.int64))
        if how == 'joint' and self.pairs.present is not None:
            # over the least norm that there is: that of a pair which has the lightest modality alone
            top = sum(w * max(self.bound[k], 0) for k, w in weights.items()) / min(w for w in weights.values() if w > 0)
        else: top = float(fused_scores(one, how, weights, (), power)[0])
        # all that is left out lies on the floor
        if how in FLOORED and top <= 0: return 0.
        return top + 1e-5 * max(1, abs(top))  # powers round


def _front(grids, real):
    "Which entries (m,k) no other of their row exceeds in all of `grids`."
    m, k = real.shape
    out, size = np.empty((m, k), bool), max(1, CELLS // max(1, k * k))
    for i in range(0, m, size):
        part = slice(i, i + size)
        under = np.ones((len(real[part]), k, k), bool)
        for s in grids: under &= s[part][:, None, :] > s[part][:, :, None]
        out[part] = ~under.any(2)
    return out


class FlatSweep:
    "The row F1 of every cut of one fusion, as `Sweep` and `RankSweep` give it; looks at as few pairs as it can, at more where a deeper cut could win."
    def __init__(self, flat, fusion, ranks, max_matches):
        self.flat, self.fusion, self.ranks, self.max_matches = flat, fusion, ranks, max_matches
        self.base = 2 / (1 + flat.size)
        self._depth, self._room = 0, flat.target
        self._load()

    def _load(self):
        lv = self.flat.level(self._depth)
        self.score_all = fused_scores(lv.pairs, *self.fusion)
        self.least = lv.most(*self.fusion)
        # a cut there lets in all there is: only what stands above is looked at
        self.floored = self.least == 0 and self.fusion[0] in FLOORED
        if self.floored: self.least = float(np.nextafter(np.float32(0), np.float32(1)))
        self._look()

    def _deepen(self):
        "Look at more pairs; False where all are in."
        if self.cut_from == -np.inf: return False
        if self.cut_from > self.least: self._room *= 2
        else: self._depth += 1
        if self.cut_from > self.least: self._look()
        else: self._load()
        return True

    def _look(self):
        lv, score, flat = self.flat.level(self._depth), self.score_all, self.flat
        self.cut_from = self.least
        if len(score) > self._room:
            # about the `_room` highest: a sample says where they begin
            part = score[::max(1, len(score) // 20_000)]
            at = int(len(part) * (1 - self._room / len(score)))
            self.cut_from = max(self.least, float(np.partition(part, at)[at]))
        keep = score >= np.float32(self.cut_from) if self.cut_from > -np.inf else np.ones(len(score), bool)
        if self.ranks == 2 and self.cut_from > -np.inf and len(lv.front):
            mine, top = score[lv.front], np.full(len(flat.rows), -np.inf, np.float32)
            top[lv.front_row[lv.front_start]] = np.maximum.reduceat(mine, lv.front_start)
            # one each: the first of its row that scores as much as any
            nearest = np.flatnonzero(mine == top[lv.front_row])
            keep[lv.front[nearest[np.append(True, np.diff(lv.front_row[nearest]) != 0)]]] = True
        at = np.flatnonzero(keep)
        key = lv.low[at] | (_falling(score[at]).astype(np.uint64) << np.uint64(lv.shift))
        count = np.bincount(lv.row[at], minlength=len(flat.rows))
        _sort_within(key, count)
        # what a row with this and all before it holds: matches, right ones
        start = count.cumsum() - count
        many = np.arange(2, len(key) + 2) - np.repeat(start, count)
        if count.max(initial=0) >= self.max_matches:
            keep = np.flatnonzero(many <= self.max_matches)
            key, many, count = key[keep], many[keep], np.minimum(count, self.max_matches - 1)
            start = count.cumsum() - count
        right, bits = (key & np.uint64(1)).astype(np.int64), ((key >> np.uint64(lv.shift)) & np.uint64(0xffffffff)).astype(np.uint32)
        hit = right.cumsum()
        hit -= np.repeat(np.append(0, hit)[start], count)
        nearest = np.zeros(len(key), bool)
        nearest[start[count > 0]] = True
        both = many + np.repeat(flat.size, count)
        self.gain = 2 * (1 + hit) / both - 2 * (1 + hit - right) / (both - 1)
        self.count, self.first, self.bits, self.wrong = count, nearest, bits, right == 0
        self.score = _rising(bits).astype(np.float64)
        low, high = (int(bits.min()), int(bits.max())) if len(bits) else (0, 0)
        self.bucket = ((bits - np.uint32(low)) >> np.uint32(max(0, (high - low).bit_length() - BUCKETS.bit_length() + 1))).astype(np.int64)
        # the nearest is counted apart where it has a cut of its own
        buckets = int(self.bucket.max(initial=0)) + 1
        self.cell = self.bucket if self.ranks == 1 else self.bucket + buckets * self.first
        # edges by cell: those of a bucket, or of some in a row, are one slice
        self.order = np.argsort(self.cell.astype(np.uint16), kind='stable')
        self.starts = np.append(0, np.bincount(self.cell, minlength=buckets * self.ranks).cumsum())
        self._most = None

    @property
    def grounded(self): return self.floored and self.cut_from == self.least  # all but the floor is looked at

    @property
    def row(self): return np.repeat(np.arange(len(self.base)), self.count)  # of each edge

    @property
    def most(self):
        "What a row reaches at most under a cut below `cut_from`: all its right candidates in, and of the wrong ones those that are in by then."
        if self._most is None:
            if self.cut_from == -np.inf: self._most = np.full(len(self.flat.rows), -np.inf)
            else:
                wrong = self.flat.wrong if self.grounded else np.bincount(self.row, self.wrong & (self.score >= self.cut_from), len(self.base))
                r = np.minimum(self.flat.found, self.max_matches - 1)
                self._most = 2 * (1 + r) / (1 + r + np.minimum(wrong, self.max_matches - 1 - r) + self.flat.size)
        return self._most

    def best(
        self,
        rows=None,  # bool (n,), whose mean F1 counts; default all that were laid flat
    ) -> tuple:  # (threshold or cuts, mean row F1)
        "The cuts with the best mean row F1 over `rows`."
        side = np.ones(len(self.base), bool) if rows is None else row_mask(rows, self.flat.n)[self.flat.rows]
        if not side.any(): raise InputError('rows: none is chosen')
        (cuts, value, _), = self._search(side.astype(np.int64), np.array([[False, True]]))
        return cuts, float(value / side.sum())

    def at(
        self,
        threshold,  # Cut, or cuts, as `best` gives them
    ) -> np.ndarray:  # float64 (n,), NaN for rows that weren't laid flat
        "The row F1 of each row under these cuts."
        near, far = (threshold, threshold) if np.ndim(threshold) == 0 else threshold
        while far < self.cut_from and self._deepen(): pass
        inside, out = self.score >= np.where(self.first, near, far), np.full(self.flat.n, np.nan)
        out[self.flat.rows] = self.base + np.bincount(self.row, np.where(inside, self.gain, 0), len(self.base))
        return out

    def crossed(
        self,
        sides,  # bool (n,) masks, ten at most: cuts are chosen on one side and scored on the other, then the other way round
    ) -> float:
        "The mean row F1 under cuts that were chosen on other rows."
        # a row's code says on which side it is each time: all halvings are read from one table
        code = sum(o[self.flat.rows].astype(np.int64) << i for i, o in enumerate(sides))
        bits = (np.arange(1 << len(sides)) >> np.arange(len(sides))[:, None] & 1).astype(bool)
        found = self._search(code, np.concatenate([bits, ~bits]))
        return sum(o[2] for o in found) / len(sides) / len(self.base)

    def _search(self, code, chosen):
        "For each of `chosen` (bool (s,c), codes of rows): the best cuts, their sum of F1 there, and that over all other rows."
        base = np.bincount(code, self.base, chosen.shape[1])
        while True:
            found = self._tried(code, chosen, base)
            most = np.bincount(code, self.most, chosen.shape[1]) if self.cut_from > -np.inf else np.zeros(chosen.shape[1])
            sure = self.cut_from == -np.inf or all(np.atleast_1d(cuts)[-1] >= self.cut_from and value >= most[o].sum() - 1e-9 for (cuts, value, _), o in zip(found, chosen))
            if sure or not self._deepen(): return found

    def _tried(self, code, chosen, base):
        c, codes = chosen.shape[1], np.repeat(code, self.count)  # rows stand in order: quicker than code[row]
        key = self.cell * c + codes
        gain, up = (np.bincount(key, o, (len(self.starts) - 1) * c).reshape(self.ranks, -1, c) for o in (self.gain, np.maximum(self.gain, 0)))
        found = []
        for o in chosen:
            parts = []
            for kind in range(self.ranks): parts.append(_Part(self, code, codes, o, gain[kind], up[kind], kind))
            if self.ranks == 2: parts = parts[::-1]  # the nearest first
            if self.ranks == 2 and parts[0].cut > parts[1].cut > -np.inf: found.append(self._tied(codes, o, base))
            else: found.append((parts[0].cut if self.ranks == 1 else tuple(p.cut for p in parts), base[o].sum() + sum(p.value for p in parts),
                                base[~o].sum() + sum(p.other for p in parts)))
        return found

    def _tied(self, codes, chosen, base):
        "Both cuts together, where the nearest's own best one would be the higher."
        mine = chosen[codes]
        score, gain, first = self.score[mine], self.gain[mine], self.first[mine]
        order = np.argsort(self.bits[mine])
        score, gain, first = score[order], gain[order], first[order]
        end = np.flatnonzero(np.append(score[1:] != score[:-1], True))
        near, far = (np.append(0, np.where(o, gain, 0).cumsum()[end]) for o in (first, ~first))
        total = near + np.maximum.accumulate(far)
        i = int(np.argmax(total >= total.max() - 1e-9))
        j = int(np.argmax(far[:i + 1] >= far[:i + 1].max() - 1e-9))
        values = score[end]
        ends = np.append(values, values[-1] - 2e-3)
        cuts = tuple(float(ends[o - 1] + ends[o]) / 2 if o else float(values[0]) + 1e-3 for o in (i, j))
        inside = (self.score >= np.where(self.first, *cuts)) & ~mine
        return cuts, base[chosen].sum() + total[i], base[~chosen].sum() + self.gain[inside].sum()


class _Part:
    "The best cut of the edges of one kind in the rows `chosen`: `cut`, what it gains there (`value`) and in the other rows (`other`)."
    # cut is -inf where what is next below it isn't among the edges looked at
    def __init__(self, sweep, code, codes, chosen, gain, up, kind):
        self.sweep, n = sweep, len(gain)
        self.starts = sweep.starts[kind * n:(kind + 1) * n + 1]
        total, end = gain[:, chosen].sum(1), gain[:, chosen].sum(1).cumsum()
        # the best cut falls into a bucket that could rise to the best of all ends; 1e-6 is far above what rounding does to the sums
        hot = end - total + up[:, chosen].sum(1) >= max(0., end.max()) - 1e-6
        at = self._within(0, len(end))[np.repeat(hot, np.diff(self.starts))]
        at = at[chosen[codes[at]]]
        at = at[np.argsort(sweep.bits[at])]
        score, bucket, sums = sweep.score[at], sweep.bucket[at], sweep.gain[at].cumsum()
        sums += (end - total)[bucket] - np.append(0, sums)[np.searchsorted(bucket, bucket)]
        # equal scores come in together or not at all
        last = np.append(score[1:] != score[:-1], True)[:len(score)]
        score, sums, bucket = score[last], sums[last], bucket[last]
        # a gain that is only rounding is none: the higher cut wins
        if not len(sums) or sums.max() <= 1e-9:
            all_mine = self._within(0, len(end))
            mine = sweep.score[all_mine[chosen[codes[all_mine]]]]
            top = mine.max() if len(mine) else sweep.score.max(initial=1. if not len(sweep.score) else -np.inf)
            self.cut, self.value = float(top) + 1e-3, 0.
            self.other = float(sweep.gain[all_mine[sweep.score[all_mine] >= self.cut]].sum())
            return
        i = int(np.argmax(sums >= sums.max() - 1e-9))
        self.value, width = float(sums[i]), 1
        while True:
            # the edges of its bucket and of the next, until one of these rows is below it
            near = self._within(bucket[i], bucket[i] + width)
            below = sweep.score[near[chosen[codes[near]]]]
            below = below[below < score[i]]
            if len(below) or bucket[i] + width > len(end): break
            width *= 4
        if len(below): self.cut = float(score[i] + below.max()) / 2
        elif sweep.cut_from == -np.inf or kind == 1: self.cut = float(score[i]) - 1e-3
        elif not sweep.grounded: self.cut = -np.inf
        else:
            # what is below lies on the floor, if these rows have more than was looked at
            more = sweep.count < np.minimum(sweep.flat.found + sweep.flat.wrong, sweep.max_matches - 1)
            self.cut = float(score[i]) / 2 if more[chosen[code]].any() else float(score[i]) - 1e-3
        rest = near[~chosen[codes[near]] & (sweep.score[near] >= self.cut)]
        self.other = float(gain[:bucket[i], ~chosen].sum() + sweep.gain[rest].sum())

    def _within(self, a, b):
        "The edges of this kind in buckets a to b (without b)."
        return self.sweep.order[self.starts[a]:self.starts[min(b, len(self.starts) - 1)]]


def _sort_within(
    key: np.ndarray,  # uint64 (m,), row after row; sorted in place
    count: np.ndarray,  # int (n,), of each row
):
    "Sort each row's numbers: rows of about one length side by side, which costs a tenth of sorting all in one."
    start, width = count.cumsum() - count, 4
    while width < 2 * max(3, count.max(initial=0)):
        rows = np.flatnonzero((count <= width) & (count > (1 if width == 4 else width // 2)))
        at, pad = start[rows][:, None] + np.arange(width), np.arange(width) >= count[rows][:, None]
        block = key[np.minimum(at, len(key) - 1)]
        block[pad] = np.iinfo(np.uint64).max
        block.sort(axis=1)
        key[at[~pad]] = block[~pad]
        width *= 2


def _falling(x):
    "float32 without NaN as uint32 that rise where `x` falls."
    bits = (x + np.float32(0)).view(np.uint32)  # -0. is 0.
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff))


def _rising(bits):
    "The float32 of `_falling`."
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff)).view(np.float32)
