"The candidates of some listings, prepared once, so that any number of fusions can be searched quickly."
import numpy as np

from ....core import InputError
from ...candidates import Candidates
from ...fuse import THRESHOLD_FUSIONS, check_weights, equal_weights, fuse
from ...judge.groups import Groups
from ...matches import MAX_MATCHES
from ...neighbors import refuse_trained_on
from ..base import ThresholdSearch, row_mask
from ..sweep import RankSweep, Sweep
from .level import Level
from .search import FlatSweep, Fusion

# the fusions that rise with the score of every modality
FUSED = ('mean', 'square', 'joint', 'prob_or', 'power', 'union', 'above')
DEPTHS = 2.5, 6, np.inf  # pairs of each modality that a level keeps, as a multiple of `Flat.target`


class Flat:
    """The candidates of some rows, prepared once for finding the thresholds of many fusions.

    It serves the fusions whose score never falls where the score of a modality rises (`FUSED`): a pair that
    scores low in all modalities then scores low in the fusion, and need not be searched. Columns of a table
    and modalities with unknown similarities (NaN) break that: a fusion that uses one is swept as a whole.

    Example: three listings, each with the other two as candidates. Listings 1 and 2 are one group. Scores
    a, b:

        row 0:   1 (a .9, b .2)   2 (a .3, b .1)
        row 1:   0 (a .9, b .2)   2 (a .4, b .8)
        row 2:   0 (a .3, b .1)   1 (a .4, b .8)

    Then `sizes` (of each row's group) is 1 2 2, `found` (right candidates of each row) 0 1 1, `wrong` (its
    other candidates) 2 1 1, and `target` 2 + 3 = 5.
    """
    def __init__(
        self,
        candidates: Candidates,  # Of a self-join, or of the first n listings of a pool
        groups,  # (n,) groups, or `Groups`; the true matches of a listing are its whole group
        rows=None,  # bool (n,) or row numbers, the rows that thresholds are chosen on; default all
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        self.candidates = candidates
        self.n = len(candidates.ids)
        if max_matches < 1: raise InputError(f'max_matches={max_matches}: 1 or more')
        self.groups = groups = Groups.of(groups, self.n).check_pool(candidates.pool)
        self.pool = groups.pool
        self.max_matches = max_matches
        self.rows = np.arange(self.n) if rows is None else np.flatnonzero(row_mask(rows, self.n))
        if not len(self.rows): raise InputError('rows: none is chosen')
        refuse_trained_on(candidates.trained_on, 'choosing thresholds', rows=self.rows)
        modalities = [modality for modality in candidates.scores if modality not in candidates.join]
        self.swept = [modality for modality in modalities if modality in candidates.fields
                      or np.isnan(candidates.scores[modality]).any()]
        self.names = [modality for modality in modalities if modality not in self.swept]
        self.sizes = groups.sizes[self.rows].astype(np.float64)
        candidate_ids = candidates.ids[self.rows, 1:]
        self.right = (groups.codes[candidate_ids] == groups.codes[self.rows][:, None]) & (candidate_ids >= 0)
        self.found = self.right.sum(1)
        self.wrong = (candidate_ids >= 0).sum(1) - self.found
        # the right pairs, and one more a row: about as many as a good threshold lets in
        self.target = int(self.found.sum()) + len(self.rows)
        self._levels = {}

    def level(
        self,
        depth: int,  # From 0; the last level holds all pairs
    ) -> Level:
        "The pairs that score high in at least one modality; a deeper level has more of them."
        if depth not in self._levels: self._levels[depth] = Level.of(self, DEPTHS[depth] * self.target)
        return self._levels[depth]

    def sweep(
        self,
        how: str = 'mean',  # One of `FUSED`
        weights: dict | None = None,  # Modality -> weight, power or threshold; default `equal_weights`
        power: float = 6.,  # Of 'power'
        ranks: int = 1,  # How many thresholds; 2: a lower one for the nearest (min2)
        max_matches: int | None = None,  # Most matches a row, itself included; default that of this object
    ) -> ThresholdSearch:
        """The search for the thresholds of one fusion.

        It finds what `Sweep` (with two ranks: `RankSweep`) would find for the neighbors fused like this, and
        takes less time; where the fusion uses a modality of `swept`, it is one of them.
        """
        if how not in FUSED: raise InputError(f'how={how!r}: choose one of {", ".join(FUSED)}')
        if ranks not in (1, 2): raise InputError(f'ranks={ranks!r}: 1 or 2')
        if weights is None: weights = equal_weights(self.candidates, how)
        check_weights(how, weights, power)
        unknown = set(weights) - {*self.names, *self.swept}
        if unknown:
            raise InputError(f'weights name {sorted(unknown)}; the candidates hold '
                             f'{[*self.names, *self.swept]}')
        if max_matches is None: max_matches = self.max_matches
        if any(how in THRESHOLD_FUSIONS or weights.get(modality) for modality in self.swept
               if modality in weights):
            neighbors = fuse(self.candidates, how, weights, power=power)
            if ranks == 1: return Sweep(neighbors, self.groups, max_matches)
            return RankSweep(neighbors, self.groups, ranks, max_matches)
        weights = {modality: weight for modality, weight in weights.items() if modality in self.names}
        return FlatSweep(self, Fusion(how, weights, self.candidates.join, power), ranks, max_matches)
