"The best union of two decisions: a pair matches where either of two modalities reaches its own threshold."
import numpy as np

from ...core import InputError
from ..candidates import Candidates
from ..fuse import fuse
from ..judge.groups import Groups
from ..neighbors import refuse_trained_on
from .base import BEYOND, ThresholdSearch, row_mask
from .union_search import UnionSearch


class UnionSweep(ThresholdSearch):
    "The row F1 of a union: pairs that reach the threshold of either modality, or are equal in an exact key."
    def __init__(
        self,
        candidates: Candidates,  # Of rows in a pool; all that reach a threshold match, however many a row
        groups,  # (n,) groups, or `Groups`; the true matches of a listing are its whole group
        names: tuple | None = None,  # The two modalities; default those of the candidates that are not keys
    ):
        if names is None:
            names = tuple(modality for modality in candidates.scores if modality not in candidates.join)
        self.names = tuple(names)
        if len(self.names) != 2 or not set(self.names) <= set(candidates.scores):
            raise InputError(f'names={self.names}: two of {list(candidates.scores)}')
        n_listings = len(candidates.ids)
        groups = Groups.of(groups, n_listings).check_pool(candidates.pool)
        # the order of a union depends on its thresholds: recall and precision are those under equal ones
        self.neighbors = fuse(candidates, 'union', dict.fromkeys(self.names, 0.))
        candidate_ids = candidates.ids[:, 1:]
        self.sizes = groups.sizes
        self.real = candidate_ids >= 0
        self.right = self.real & (groups.codes[candidate_ids] == groups.row_codes[:, None])
        self.always = np.zeros(candidate_ids.shape, bool)
        for key in candidates.join: self.always |= candidates.scores[key][:, 1:] == 1
        self.always &= self.real
        scores = [candidates.scores[modality][:, 1:].astype(np.float64) for modality in self.names]
        self.first, self.second = (np.where(self.real, array, -np.inf) for array in scores)

    def at(
        self,
        threshold: dict,  # Modality -> threshold
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row under these thresholds."
        first_least, second_least = (threshold[modality] for modality in self.names)
        let_in = self.always | (self.real & ((self.first >= first_least) | (self.second >= second_least)))
        return 2 * (1 + (let_in & self.right).sum(1)) / (1 + let_in.sum(1) + self.sizes)

    def best(
        self,
        rows=None,  # bool (n,), the rows whose mean row F1 counts; default all
    ) -> tuple[dict, float]:  # (modality -> threshold, mean row F1)
        "The thresholds with the best mean row F1 over `rows`: weights of the fusion 'union'."
        refuse_trained_on(self.neighbors.trained_on, 'choosing thresholds', rows=rows)
        chosen_rows = slice(None) if rows is None else rows
        search = UnionSearch(*(array[chosen_rows] for array in (
            self.first, self.second, self.right, self.real, self.always, self.sizes)))
        best_depths = search.run()
        depths = (search.first, best_depths.first), (search.second, best_depths.second)
        thresholds = [_threshold(modality.values, depth) for modality, depth in depths]
        return dict(zip(self.names, thresholds)), float(best_depths.total / len(search.sizes))


def best_union(
    candidates: Candidates,  # Of a self-join
    groups,  # (n,) groups, or `Groups`
    names: tuple | None = None,  # The two modalities; default those of the candidates that are not keys
    rows=None,  # bool (n,) or row numbers, the rows whose mean row F1 counts; default all
) -> tuple[dict, float]:  # (modality -> threshold, mean row F1)
    "The best of all pairs of thresholds for a union of two decisions, exactly."
    mask = None if rows is None else row_mask(rows, len(candidates.ids))
    return UnionSweep(candidates, groups, names).best(mask)


def _threshold(scores, depth):
    "The threshold that lets in the `depth` highest of `values` (all different, highest first)."
    if not len(scores): return 1.
    if not depth: return float(scores[0]) + BEYOND
    last_score = scores[depth - 1]
    next_score = scores[depth] if depth < len(scores) else last_score - 2 * BEYOND
    # fused scores are float32: where no such number lies between two scores, the upper one is the threshold
    threshold = float(np.float32((last_score + next_score) / 2))
    return threshold if threshold > next_score else float(last_score)
