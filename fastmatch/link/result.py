"What matching two tables found."
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core import InputError
from ..match.cells import as_text
from ..match.fields.field import Field
from .candidates import TablePairs
from .learn import Learnt
from .tables import Tables
from .texts import PairTexts

SHOWN = 12  # rows of a table in a notebook


@dataclass
class TableMatches:
    """The matches of two tables.

    `matches` has one row a match: `left_id`, `right_id`, `probability`, and the similarity of each field
    (empty where one of the listings lacks it). `score` gives the probability of any pairs, `explain` all
    candidates of one listing.
    """
    matches: pd.DataFrame
    tables: Tables
    candidates: TablePairs
    probabilities: np.ndarray  # float32 (p,), of each candidate pair
    learnt: Learnt  # The pair model and its threshold; `learnt.figures` say what it is worth
    how: str  # As `match_tables` was told
    blocking: dict  # 'recall': share of the known matches that the search found by itself; empty: none known
    texts: PairTexts | None = None  # Of the listings, where a cross-encoder reads them

    def __len__(self): return len(self.matches)

    def __repr__(self):
        worth = ''
        figures = self.learnt.figures
        if figures:
            worth = (f"; pair F1 {figures['pair_f1']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}] on "
                     f"{figures['pairs']} labelled pairs that it did not see")
        return (f'TableMatches({len(self)} matches of {len(self.tables.left)} and {len(self.tables.right)} '
                f'listings, {self.how}{worth})')

    def _repr_html_(self): return self.matches.head(SHOWN)._repr_html_()

    @property
    def fields(self) -> dict:  # Name -> `Field`
        "What was compared."
        return self.tables.fields

    def summary(self) -> dict:
        "The figures as plain values."
        return {'listings': [len(self.tables.left), len(self.tables.right)], 'matches': len(self),
                'how': self.how, 'threshold': self.learnt.threshold, 'worth': self.learnt.figures,
                'blocking': self.blocking, 'candidate_pairs': len(self.candidates),
                'fields': {name: [field.kind, field.column, self.tables.right_fields[name].column]
                           for name, field in self.fields.items()}}

    def score(
        self,
        pairs: pd.DataFrame,  # Columns `left_id` and `right_id`
    ) -> pd.DataFrame:  # The same with `probability`
        "The probability of any pairs, also of those that the search did not propose."
        from .known import KnownLabels
        wanted = KnownLabels.rows_of(pairs, self.tables)
        places = self.candidates.places(*wanted)
        probabilities = np.full(len(pairs), np.nan, np.float32)
        probabilities[places >= 0] = self.probabilities[places[places >= 0]]
        missing = np.flatnonzero(places < 0)
        if len(missing):
            left, right = wanted[0][missing], wanted[1][missing]
            more = self.candidates.with_pairs(left, right, self.learnt.model)
            places = more.places(left, right)
            scored = self.learnt.model.probabilities(more.pairs.features_at(places))
            if self.learnt.close is not None:
                texts_of = self.texts.at(more)
                scored = self.learnt.close.rescored(scored, lambda rows: texts_of(places[rows]))
            probabilities[missing] = scored
        return pairs.assign(probability=probabilities)

    def explain(
        self,
        left_id,  # Of a listing of the left table
        n: int = 10,  # Candidates, the likeliest first
    ) -> pd.DataFrame:
        "The candidates of a listing: probability, whether they match, each field in words."
        rows = np.flatnonzero(self.tables.left_ids == as_text(left_id))
        if not len(rows): raise InputError(f'{left_id!r}: no listing of the left table')
        places = np.flatnonzero(self.candidates.left == rows[0])
        places = places[np.argsort(-self.probabilities[places], kind='stable')][:n]
        right = self.candidates.right[places]
        matched = set(self.matches.right_id[self.matches.left_id == self.tables.left_ids[rows[0]]])
        table = pd.DataFrame({'right_id': self.tables.right_ids[right],
                              'probability': self.probabilities[places]})
        table['matches'] = table.right_id.isin(matched)
        listings = np.full(len(places), rows[0]), right + len(self.tables.left)
        table['why'] = ['; '.join(filter(None, words)) for words in zip(*(
            _in_words(name, field, self.candidates.spaces[name].scores(*listings))
            for name, field in self.fields.items()))]
        return table


def _in_words(name: str, field: Field, similarities) -> list:
    "What each similarity of a field says, such as 'same modelno', 'price differs by 4%'; '' where unknown."
    return [field.in_words(name, float(similarity)) for similarity in similarities]
