"What a matcher found: the matches of each listing, with their scores by modality and the reason for each."
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..core import InputError
from ..match import Matches, Neighbors, Pool, Rule
from ..match.cells import as_text
from ..match.embeddings import SOURCE
from ..match.pairs.rule_pairs import RulePairs
from ..match.words import cut_in_words, placeholders_in_words
from .explain import Explanation, add_pair_model
from .fields import in_words


@dataclass
class MatchResult:
    "The matches of new listings, or of the known ones among themselves, and what decided them."
    ids: np.ndarray  # str (p,): the matched listings' ids, behind them those of the other known listings
    matches: Matches  # Of the first `len(matches)` of `ids`
    neighbors: Neighbors  # All candidates with their fused scores, matches or not
    spaces: dict  # Modality -> `Pool` or space that gives its scores
    rule: Rule  # That decided, with the threshold for so many listings
    # unusable listings: `id`, `row`, `column`, `reason`
    skipped: pd.DataFrame = field(default_factory=pd.DataFrame)
    # (step, `Neighbors` or `Matches` after it) for each step, as `Rule.run` gives them
    trail: list = field(default_factory=list)
    rule_pairs: RulePairs | None = None  # What the rule's pair model looked at, where it has one
    setting: str = ''  # Which threshold was taken for how many listings, and where it was chosen, in words
    # bool (n,), listings that may have more matches than are given here; None: not known
    is_cut_short: np.ndarray | None = None
    # Modality of keys ('phash') -> the keys on so many listings that they are placeholders and join nothing
    placeholders: dict = field(default_factory=dict)

    def __len__(self): return len(self.matches)
    def __repr__(self):
        # every listing is in its own matches
        n_matches = len(self.matches.ids) - len(self)
        figures = f'MatchResult({len(self)} listings, {n_matches} matches, {len(self.skipped)} skipped)'
        return '\n'.join(line for line in (figures, self.setting, *self.notes) if line)

    def _repr_html_(self): return self.to_frame(scores=True)._repr_html_()

    @property
    def cut_short(self) -> np.ndarray:
        "The ids of the listings that may have more matches than are given here, str (m,): the nearest are."
        if self.is_cut_short is None: return self.ids[:0]
        return self.ids[:len(self)][self.is_cut_short]

    @property
    def cut_in_words(self) -> str:
        "How many listings may have more matches than are given here, and which limit cut them; '' for none."
        return cut_in_words(len(self.cut_short), self.rule)

    @property
    def notes(self) -> list[str]:
        "What is not given although it was found: matches past a limit, listings joined by a placeholder."
        notes = [placeholders_in_words(modality, keys) for modality, keys in self.placeholders.items()]
        return [note for note in (self.cut_in_words, *notes) if note]

    def to_frame(
        self,
        scores: bool = False,  # Also a column of the matches' fused scores
    ) -> pd.DataFrame:
        "One row a listing: `posting_id`, and `matches`: ids with blanks between, the listing itself first."
        table = self.matches.to_frame(self.ids)
        if scores:
            by_listing = np.split(self.matches.scores, self.matches.indptr[1:-1])
            table['scores'] = [' '.join(f'{score:.4f}' for score in listing_scores)
                               for listing_scores in by_listing]
        return table

    def pairs(self) -> pd.DataFrame:
        """One row a match: `posting_id`, `match`, `where`, `score`, a score for each modality, and `why`.

        `where` is 'new' or 'catalogue', whichever holds the match, `score` is the fused score, `why` names
        the step of the rule that made it a match, and what columns of the table say: 'score; same modelno'.
        """
        row_numbers = np.repeat(np.arange(len(self)), np.diff(self.matches.indptr))
        is_other = row_numbers != self.matches.ids
        return self._table(row_numbers[is_other], self.matches.ids[is_other], self.matches.scores[is_other])

    def close_calls(
        self,
        eps: float = 2e-4,  # Distance to the threshold; rounding on another machine moves scores by less
    ) -> pd.DataFrame:
        "The pairs, matches or not, within `eps` of the threshold: another machine may decide otherwise."
        is_near = np.abs(self.neighbors.scores.astype(np.float64) - self.rule.threshold) <= eps
        is_near[:, 0] = False
        rows, places = np.nonzero(is_near & (self.neighbors.ids >= 0))
        return self._table(rows, self.neighbors.ids[rows, places], self.neighbors.scores[rows, places])

    def explain(
        self,
        posting_id,  # One of the matched listings
        titles: dict | None = None,  # Id -> title, to show
        files: dict | None = None,  # Id -> image file, image in memory, or a list of several, to show
    ) -> Explanation:
        "Every candidate of a listing: its scores by modality, whether it matches, and the step that decided."
        found = np.flatnonzero(self.ids[:len(self)] == as_text(posting_id))
        if not len(found): raise InputError(f'{posting_id!r}: is none of the {len(self)} matched listings')
        row_number = found[0]
        # the scores of the candidates that there were after each step
        scores_after_steps = [(step, _scores_of_row(after, row_number)) for step, after in self.trail]
        scores = {candidate: score for _, after in scores_after_steps for candidate, score in after.items()}
        candidates = np.array([candidate for candidate in scores if candidate != row_number], np.int64)
        table = self._table(np.full(len(candidates), row_number), candidates,
                            np.array([scores[candidate] for candidate in candidates], np.float32))
        is_match = np.isin(candidates, self.matches[row_number])
        reasons = self._reasons_against(scores_after_steps)
        table['matches'] = is_match
        why_not = np.array([reasons.get(int(candidate), '') for candidate in candidates], object)
        why_not = _with_words(why_not, in_words(self.spaces, table, len(table)))
        table['why'] = np.where(is_match, table['why'], why_not)
        moved = None
        if self.rule_pairs is not None: moved = add_pair_model(table, candidates, row_number, self.rule_pairs)
        best_first = np.lexsort((candidates, -table.score.to_numpy(), ~is_match))
        table = table.iloc[best_first].drop(columns='posting_id').reset_index(drop=True)
        if moved is not None: moved = moved.iloc[best_first].reset_index(drop=True)
        return Explanation(str(posting_id), table, self.rule, titles or {}, files or {}, moved)

    def _reasons_against(self, scores_after_steps):
        "Candidate -> what took it out: a step's name, or in words what the decision by score found."
        reasons = {}
        for (_, before), (step, after) in zip(scores_after_steps, scores_after_steps[1:]):
            for candidate in before.keys() - after.keys():
                if step != 'score': reasons[candidate] = step
                elif before[candidate] < self.rule.threshold: reasons[candidate] = 'below the threshold'
                else: reasons[candidate] = f'past {self.rule.max_matches} matches'
        return reasons

    def _reasons_for(self, rows, match_ids, scores_by_modality):
        "The step that made each pair a match; `scores_by_modality` is {modality: (m,)}."
        reasons = np.full(len(rows), 'score', object)
        pairs = rows * len(self.ids) + match_ids
        earlier = None
        for step, after in self.trail:
            if not isinstance(after, Matches): continue
            found_pairs = np.repeat(np.arange(len(after)), np.diff(after.indptr)) * len(self.ids) + after.ids
            if earlier is not None: reasons[np.isin(pairs, np.setdiff1d(found_pairs, earlier))] = step
            earlier = found_pairs
        # an equal key makes a match by itself, whatever a step decides
        for modality in reversed(self.rule.join): reasons[scores_by_modality[modality] == 1] = modality
        return reasons

    def _table(self, rows, match_ids, fused_scores):
        "Pairs as a table: their fused scores, their scores by modality, and why they match."
        by_modality = {modality: space.scores(rows, match_ids) for modality, space in self.spaces.items()
                       if modality != SOURCE}
        has_new = any(isinstance(space, Pool) for space in self.spaces.values())
        where = np.where(match_ids < len(self), 'new', 'catalogue') if has_new else 'catalogue'
        reasons = self._reasons_for(rows, match_ids, by_modality)
        reasons = _with_words(reasons, in_words(self.spaces, by_modality, len(rows)))
        return pd.DataFrame({'posting_id': self.ids[rows], 'match': self.ids[match_ids], 'where': where,
                             'score': fused_scores, **by_modality, 'why': reasons})


def _with_words(reasons, words):
    "Each reason with what the columns of the table say behind it."
    return np.array(['; '.join(filter(None, both)) for both in zip(reasons, words)], object)


def _scores_of_row(result, row):
    "Candidate -> score in one row of `Neighbors` or `Matches`, without padding."
    candidate_ids, scores = result.ids, result.scores
    positions = slice(result.indptr[row], result.indptr[row + 1]) if isinstance(result, Matches) else row
    candidate_ids, scores = candidate_ids[positions], scores[positions]
    return {int(candidate): float(score) for candidate, score in zip(candidate_ids, scores) if candidate >= 0}


def submission(
    result: MatchResult,  # Of the listings to hand in
) -> pd.DataFrame:
    "The table that the Shopee competition asks for: `posting_id` and `matches`."
    return result.to_frame()
