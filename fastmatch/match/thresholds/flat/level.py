"The candidate pairs that are fused and searched first: those that score high in at least one modality."
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ...arrays import rank_within_row
from ...candidates import Candidates
from ...fuse import fused_scores

FLOORED = ('square', 'prob_or', 'power', 'above')  # fusions whose scores go down to 0 and no further
CELLS = 1 << 24  # comparisons held in memory at a time


class Fusion(NamedTuple):
    "How modalities are fused, in the order in which `fused_scores` takes it."
    how: str  # One of `FUSED`
    weights: dict  # Modality -> weight, power or threshold
    join: tuple  # Exact keys that match by themselves
    power: float  # Of 'power'

    @property
    def floored(self) -> bool:
        "Whether its scores end at 0, where many pairs may be equal."
        return self.how in FLOORED


@dataclass
class Level:
    """Some of the candidate pairs, and what is known of those left out.

    A good threshold lets in few of the pairs, so it saves time to fuse only those that can score high. A pair
    is kept for one of three reasons:

    - it is among the highest of a modality;
    - it is equal in an exact key;
    - it could be the nearest of its row in some fusion: no other pair of the row scores higher in every
      modality, or it is the row's first, which is the nearest where all pairs of the row are equal.

    Any pair left out scores no more than `bound` in each modality, which limits its fused score too.

    Example (the three rows of `Flat`), with the two highest pairs of each modality. Of a, the two scores .9
    are kept, and the highest left out is .4. Of b, the two scores .8 are kept, and the highest left out is
    .2. So the pairs kept are 0-1, 1-0, 1-2 and 2-1, and also 2-0 as the first of its row. `bound` is
    {a: .4, b: .2}: the mean of a pair left out is .3 at most (0-2, the only one, has .2). Each of the five
    pairs kept could be the nearest of its row, so that all are in the `front`.
    """
    row: np.ndarray  # int32 (m,), the row of each pair, from 0 within the chosen rows, rising
    pairs: Candidates  # The pairs, flat, with their scores
    rank: np.ndarray  # int64 (m,), the position of each pair among those kept of its row, from 0
    right: np.ndarray  # bool (m,), whether both listings of the pair are of one group
    front: np.ndarray  # int64 (f,), positions of pairs that may be the nearest of their row in some fusion
    bound: dict  # Modality -> the highest score left out; no entry where none is
    whole: bool  # Whether no pair is left out

    @classmethod
    def of(
        cls,
        flat,  # `Flat`
        count: float,  # Pairs kept of each modality
    ) -> 'Level':
        "The `count` highest pairs of each modality, and those that are needed whatever they score."
        candidates, rows = flat.candidates, flat.rows
        candidate_ids = candidates.ids[rows, 1:]
        score_grids = {modality: scores[rows, 1:] for modality, scores in candidates.scores.items()}
        not_padding = candidate_ids >= 0
        kept_pairs = np.zeros(candidate_ids.shape, bool)
        for modality in candidates.join: kept_pairs |= score_grids[modality] == 1
        bounds = {}
        for modality in flat.names:
            scores = score_grids[modality]
            kept_count = int(min(count, not_padding.sum()))
            if kept_count < not_padding.sum():
                position = -kept_count - 1
                bounds[modality] = np.partition(scores[not_padding], position)[position]
            kept_pairs |= scores > bounds.get(modality, -np.inf)
        may_be_nearest = not_exceeded([score_grids[modality] for modality in flat.names], not_padding)
        # where a fusion has a floor, all of a row may lie on it: then the first of them is the nearest
        if not_padding.shape[1]: may_be_nearest[np.arange(len(not_padding)), not_padding.argmax(1)] = True
        kept_pairs = (kept_pairs | may_be_nearest) & not_padding
        may_be_nearest &= not_padding
        pair_rows, pair_columns = np.nonzero(kept_pairs)
        ids = candidate_ids[pair_rows, pair_columns]
        scores = {modality: np.ascontiguousarray(score_grid[pair_rows, pair_columns])
                  for modality, score_grid in score_grids.items()}
        return cls(
            row=pair_rows.astype(np.int32),
            pairs=replace(candidates, ids=ids, scores=scores, pool=flat.pool, rows=rows[pair_rows]),
            rank=rank_within_row(np.bincount(pair_rows, minlength=len(rows))),
            right=flat.right[pair_rows, pair_columns],
            front=np.flatnonzero(may_be_nearest[pair_rows, pair_columns]),
            bound=bounds,
            whole=not (not_padding & ~kept_pairs).any())

    def __post_init__(self):
        # `OrderedPairs` sorts a row's pairs by one number each: from bit `shift` on the bits of the score,
        # below them `low_bits`: the rank, for equal scores, and a last bit that is 1 for a right pair
        self.shift = int(self.rank.max(initial=0) + 1).bit_length() + 1
        self.low_bits = (self.rank.astype(np.uint64) << np.uint64(1)) | self.right.astype(np.uint64)
        self.front_row = self.row[self.front]
        self.front_start = first_of_runs(self.front_row)

    def highest_left_out(
        self,
        fusion: Fusion,
    ) -> float:  # -inf where no pair is left out
        """The most that a pair which is left out can score.

        It is the fused score of a pair with the highest score left out in each modality, because these
        fusions never fall where the score of a modality rises.
        """
        if self.whole: return -np.inf
        how, weights, _, power = fusion
        if how == 'joint' and self.pairs.present is not None:
            # 'joint' divides by a norm, which is least for a pair that has the modality of least weight alone
            highest = sum(weight * max(self.bound[modality], 0) for modality, weight in weights.items())
            highest /= min(weight for weight in weights.values() if weight > 0)
        else:
            scores = {modality: np.array([score]) for modality, score in self.bound.items()}
            best_pair = Candidates(np.zeros(1, np.int64), scores, pool=1, rows=np.zeros(1, np.int64))
            highest = float(fused_scores(best_pair, how, weights, (), power)[0])
        # all that is left out lies on the floor
        if fusion.floored and highest <= 0: return 0.
        # a little more, since powers are rounded
        return highest + 1e-5 * max(1, abs(highest))

    def nearest(
        self,
        scores: np.ndarray,  # float32 (m,), the fused scores of the pairs
        n_rows: int,
    ) -> np.ndarray:  # int (r,), the position of one pair for each row that has any
        "The nearest of each row: the pair with the row's best score, the first of them if several have it."
        if not len(self.front): return np.zeros(0, np.int64)
        of_front = scores[self.front]
        best_of_row = np.full(n_rows, -np.inf, np.float32)
        best_of_row[self.front_row[self.front_start]] = np.maximum.reduceat(of_front, self.front_start)
        equal_best = np.flatnonzero(of_front == best_of_row[self.front_row])
        return self.front[equal_best[first_of_runs(self.front_row[equal_best])]]


def not_exceeded(
    grids: list,  # float (m,k) each, the scores of the modalities
    real: np.ndarray,  # bool (m,k), entries that are not padding
) -> np.ndarray:  # bool (m,k)
    "Which entries could be the best of their row: no other entry of the row is larger in every grid."
    n_rows, n_columns = real.shape
    result = np.empty((n_rows, n_columns), bool)
    block_size = max(1, CELLS // max(1, n_columns * n_columns))
    for block_start in range(0, n_rows, block_size):
        block = slice(block_start, block_start + block_size)
        is_exceeded = np.ones((len(real[block]), n_columns, n_columns), bool)
        for scores in grids: is_exceeded &= scores[block][:, None, :] > scores[block][:, :, None]
        result[block] = ~is_exceeded.any(2)
    return result


def first_of_runs(
    values: np.ndarray,  # (m,), equal ones side by side
) -> np.ndarray:  # int (r,)
    "Where each run of equal values starts: 2 2 5 5 5 gives 0 2."
    return np.flatnonzero(np.append(True, np.diff(values) != 0)) if len(values) else np.zeros(0, np.int64)
