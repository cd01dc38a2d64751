"What a matcher found: matches of each listing, with the score of every modality and the reason."
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..match import Matches, Neighbors, Rule


@dataclass
class MatchResult:
    "Matches of new listings (or of the catalogue) with what they rest on."
    ids: np.ndarray  # str (p,): the matched listings' ids, the catalogue's behind them
    matches: Matches  # Of the first `len(matches)` of `ids`
    neighbors: Neighbors  # The fused candidates, let in or not
    spaces: dict  # Modality -> `Pool` or space: where scores come from
    rule: Rule  # That decided
    skipped: pd.DataFrame = field(default_factory=pd.DataFrame)  # Listings that couldn't be read: `id`, `row`, `column`, `reason`

    def __len__(self): return len(self.matches)
    def __repr__(self):
        n = len(self.matches.ids) - len(self)
        return f'MatchResult({len(self)} listings, {n} matches, {len(self.skipped)} skipped)'

    def _repr_html_(self): return self.to_frame(scores=True)._repr_html_()

    def to_frame(
        self,
        scores: bool = False,  # Also the fused score of each match
    ) -> pd.DataFrame:
        "A row a listing: posting_id and its matches, blank-separated, itself first."
        res = self.matches.to_frame(self.ids)
        if scores: res['scores'] = [' '.join(f'{s:.4f}' for s in o) for o in np.split(self.matches.scores, self.matches.indptr[1:-1])]
        return res

    def pairs(self) -> pd.DataFrame:
        "A row a match: posting_id, match, where it stands ('new' or 'catalogue'), fused score, score by modality, and why it was let in."
        m = self.matches
        rows = np.repeat(np.arange(len(m)), np.diff(m.indptr))
        real = rows != m.ids
        return self._frame(rows[real], m.ids[real], m.scores[real])

    def close_calls(
        self,
        eps: float = 2e-4,  # How far from the cut counts as close: rounding on another machine moves scores by less
    ) -> pd.DataFrame:
        "The pairs, let in or not, whose fused score is within `eps` of the cut: what may be decided otherwise elsewhere."
        near = np.abs(self.neighbors.scores.astype(np.float64) - self.rule.threshold) <= eps
        near[:, 0] = False
        rows, cols = np.nonzero(near & (self.neighbors.ids >= 0))
        return self._frame(rows, self.neighbors.ids[rows, cols], self.neighbors.scores[rows, cols])

    def _frame(self, rows, ids, scores):
        n = len(self)
        by = {k: o.scores(rows, ids) for k, o in self.spaces.items()}
        why = np.full(len(rows), 'score', object)
        # a key that is equal lets a pair in by itself
        for name in reversed(self.rule.join): why[by[name] == 1] = name
        return pd.DataFrame({'posting_id': self.ids[rows], 'match': self.ids[ids], 'where': np.where(ids < n, 'new', 'catalogue') if self._new else 'catalogue',
                             'score': scores, **by, 'why': why})

    @property
    def _new(self): return any(hasattr(o, 'new') for o in self.spaces.values())


def submission(
    result: MatchResult,  # Of the listings to hand in
) -> pd.DataFrame:
    "The competition's table: posting_id, matches."
    return result.to_frame()
