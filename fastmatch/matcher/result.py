"What a matcher found: the matches of each listing, with their scores by modality and the reason for each."
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..core import InputError
from ..match import Matches, Neighbors, Pool, Rule
from .explain import Explanation


@dataclass
class MatchResult:
    "The matches of new listings, or of the known ones among themselves, and what they rest on."
    ids: np.ndarray  # str (p,): the matched listings' ids, behind them those of the other known listings
    matches: Matches  # Of the first `len(matches)` of `ids`
    neighbors: Neighbors  # All candidates with their fused scores, matches or not
    spaces: dict  # Modality -> `Pool` or space that gives its scores
    rule: Rule  # That decided
    # unusable listings: `id`, `row`, `column`, `reason`
    skipped: pd.DataFrame = field(default_factory=pd.DataFrame)
    # (step, `Neighbors` or `Matches` after it) for each step, as `Rule.run` gives them
    trail: list = field(default_factory=list)

    def __len__(self): return len(self.matches)
    def __repr__(self):
        # every listing is in its own matches
        n_matches = len(self.matches.ids) - len(self)
        return f'MatchResult({len(self)} listings, {n_matches} matches, {len(self.skipped)} skipped)'

    def _repr_html_(self): return self.to_frame(scores=True)._repr_html_()

    def to_frame(
        self,
        scores: bool = False,  # Also a column of the matches' fused scores
    ) -> pd.DataFrame:
        "One row a listing: `posting_id`, and `matches`: ids with blanks between, the listing itself first."
        table = self.matches.to_frame(self.ids)
        if scores:
            by_listing = np.split(self.matches.scores, self.matches.indptr[1:-1])
            table['scores'] = [' '.join(f'{score:.4f}' for score in listing) for listing in by_listing]
        return table

    def pairs(self) -> pd.DataFrame:
        """One row a match: `posting_id`, `match`, `where`, `score`, a score for each modality, and `why`.

        `where` is 'new' or 'catalogue' (where the match stands), `score` is the fused score, `why` names the
        step of the rule that made it a match.
        """
        rows = np.repeat(np.arange(len(self)), np.diff(self.matches.indptr))
        is_other = rows != self.matches.ids
        return self._table(rows[is_other], self.matches.ids[is_other], self.matches.scores[is_other])

    def close_calls(
        self,
        eps: float = 2e-4,  # Distance to the threshold; rounding on another machine moves scores by less
    ) -> pd.DataFrame:
        "The pairs, matches or not, within `eps` of the threshold: another machine may decide otherwise."
        is_near = np.abs(self.neighbors.scores.astype(np.float64) - self.rule.threshold) <= eps
        is_near[:, 0] = False
        rows, columns = np.nonzero(is_near & (self.neighbors.ids >= 0))
        return self._table(rows, self.neighbors.ids[rows, columns], self.neighbors.scores[rows, columns])

    def explain(
        self,
        posting_id,  # One of the matched listings
        titles: dict | None = None,  # Id -> title, to show
        files: dict | None = None,  # Id -> image file or image in memory, to show
    ) -> Explanation:
        "Every candidate of a listing: its scores by modality, whether it matches, and the step that decided."
        found = np.flatnonzero(self.ids[:len(self)] == str(posting_id))
        if not len(found): raise InputError(f'{posting_id!r}: is none of the {len(self)} matched listings')
        row = found[0]
        # the scores of the candidates that there were after each step
        states = [(step, _scores_of_row(after, row)) for step, after in self.trail]
        scores = {candidate: score for _, after in states for candidate, score in after.items()}
        candidates = np.array([candidate for candidate in scores if candidate != row], np.int64)
        table = self._table(np.full(len(candidates), row), candidates,
                            np.array([scores[candidate] for candidate in candidates], np.float32))
        is_match = np.isin(candidates, self.matches[row])
        reasons = self._reasons_against(states)
        table['matches'] = is_match
        why_not = [reasons.get(int(candidate), '') for candidate in candidates]
        table['why'] = np.where(is_match, table['why'], why_not)
        order = np.lexsort((candidates, -table.score.to_numpy(), ~is_match))
        table = table.iloc[order].drop(columns='posting_id').reset_index(drop=True)
        return Explanation(str(posting_id), table, self.rule, titles or {}, files or {})

    def _reasons_against(self, states):
        "Candidate -> what took it out: a step's name, or in words what the decision by score found."
        reasons = {}
        for (_, before), (step, after) in zip(states, states[1:]):
            for candidate in before.keys() - after.keys():
                if step != 'score': reasons[candidate] = step
                elif before[candidate] < self.rule.threshold: reasons[candidate] = 'below the threshold'
                else: reasons[candidate] = f'past {self.rule.max_matches} matches'
        return reasons

    def _reasons_for(self, rows, ids, scores):
        "The step that made each pair a match; `scores` are {modality: (m,)}."
        reasons = np.full(len(rows), 'score', object)
        pairs = rows * len(self.ids) + ids
        earlier = None
        for step, after in self.trail:
            if not isinstance(after, Matches): continue
            found = np.repeat(np.arange(len(after)), np.diff(after.indptr)) * len(self.ids) + after.ids
            if earlier is not None: reasons[np.isin(pairs, np.setdiff1d(found, earlier))] = step
            earlier = found
        # an equal key makes a match by itself, whatever a step says
        for modality in reversed(self.rule.join): reasons[scores[modality] == 1] = modality
        return reasons

    def _table(self, rows, ids, fused):
        "Pairs as a table: their fused scores, their scores by modality, and why they match."
        scores = {modality: space.scores(rows, ids) for modality, space in self.spaces.items()}
        has_new = any(isinstance(space, Pool) for space in self.spaces.values())
        where = np.where(ids < len(self), 'new', 'catalogue') if has_new else 'catalogue'
        return pd.DataFrame({'posting_id': self.ids[rows], 'match': self.ids[ids], 'where': where,
                             'score': fused, **scores, 'why': self._reasons_for(rows, ids, scores)})


def _scores_of_row(found, row):
    "Candidate -> score in one row of `Neighbors` or `Matches`, without padding."
    ids, scores = found.ids, found.scores
    rows = slice(found.indptr[row], found.indptr[row + 1]) if isinstance(found, Matches) else row
    ids, scores = ids[rows], scores[rows]
    return {int(candidate): float(score) for candidate, score in zip(ids, scores) if candidate >= 0}


def submission(
    result: MatchResult,  # Of the listings to hand in
) -> pd.DataFrame:
    "The table that the Shopee competition asks for: `posting_id` and `matches`."
    return result.to_frame()
