"What a matcher found: matches of each listing, with the score of every modality and the reason."
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..core import InputError
from ..match import Matches, Neighbors, Rule
from .explain import Explanation


@dataclass
class MatchResult:
    "Matches of new listings (or of the catalogue) with what they rest on."
    ids: np.ndarray  # str (p,): the matched listings' ids, the catalogue's behind them
    matches: Matches  # Of the first `len(matches)` of `ids`
    neighbors: Neighbors  # The fused candidates, let in or not
    spaces: dict  # Modality -> `Pool` or space: where scores come from
    rule: Rule  # That decided
    skipped: pd.DataFrame = field(default_factory=pd.DataFrame)  # Listings that couldn't be read: `id`, `row`, `column`, `reason`
    trail: list = field(default_factory=list)  # (step, `Neighbors` or `Matches` after it), as `Rule.run` gives it

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

    def explain(
        self,
        posting_id,  # One of the matched listings
        titles: dict | None = None,  # Id -> title, to show
        files: dict | None = None,  # Id -> image file or image, to show
    ) -> Explanation:
        "Every candidate of a listing: score by modality, whether it matches, and the step that let it in or took it out."
        at = np.flatnonzero(self.ids[:len(self)] == str(posting_id))
        if not len(at): raise InputError(f'{posting_id!r}: is none of the {len(self)} matched listings')
        # who was there after each step
        states = [(name, {int(j): float(s) for j, s in zip(*_row(o, at[0])) if j >= 0}) for name, o in self.trail]
        left = {}
        for (_, before), (name, after) in zip(states, states[1:]):
            for j in before.keys() - after.keys():
                left[j] = name if name != 'score' else 'below the cut' if before[j] < self.rule.threshold else f'past {self.rule.max_matches} matches'
        score = {j: s for _, o in states for j, s in o.items()}
        ids = np.array([j for j in score if j != at[0]], np.int64)
        frame = self._frame(np.full(len(ids), at[0]), ids, np.array([score[j] for j in ids], np.float32))
        mine = np.isin(ids, self.matches[at[0]])
        frame['matches'] = mine
        frame['why'] = np.where(mine, frame['why'], [left.get(int(j), '') for j in ids])
        order = np.lexsort((ids, -frame.score.to_numpy(), ~mine))
        return Explanation(str(posting_id), frame.iloc[order].drop(columns='posting_id').reset_index(drop=True), self.rule, titles or {}, files or {})

    def _why(self, rows, ids, by):
        "The step that let each pair in."
        why = np.full(len(rows), 'score', object)
        m, last = len(self.ids), None
        for name, o in self.trail:
            if not isinstance(o, Matches): continue
            keys = np.repeat(np.arange(len(o)), np.diff(o.indptr)) * m + o.ids
            if last is not None: why[np.isin(rows * m + ids, np.setdiff1d(keys, last))] = name
            last = keys
        # a key that is equal lets a pair in by itself
        for name in reversed(self.rule.join): why[by[name] == 1] = name
        return why

    def _frame(self, rows, ids, scores):
        n = len(self)
        by = {k: o.scores(rows, ids) for k, o in self.spaces.items()}
        why = self._why(rows, ids, by)
        return pd.DataFrame({'posting_id': self.ids[rows], 'match': self.ids[ids], 'where': np.where(ids < n, 'new', 'catalogue') if self._new else 'catalogue',
                             'score': scores, **by, 'why': why})

    @property
    def _new(self): return any(hasattr(o, 'new') for o in self.spaces.values())


def _row(o, i): return (o[i], o.scores[o.indptr[i]:o.indptr[i + 1]]) if isinstance(o, Matches) else (o.ids[i], o.scores[i])


def submission(
    result: MatchResult,  # Of the listings to hand in
) -> pd.DataFrame:
    "The competition's table: posting_id, matches."
    return result.to_frame()
