"Which candidate pairs a model may learn from, so that what it is judged on stays unseen."
import numpy as np

from ...core import InputError
from ..judge.groups import Groups

MOST_PAIRS = 200_000  # more are not learned from: all of one group, and a sample of the others


class KnownPairs:
    """Candidate pairs whose true groups are known.

    A pair is seen twice, once from each side, and a listing's features are in all of its pairs. So where
    listings are going to be scored, nothing is learned from a pair that has one of their group at either end.
    """
    def __init__(
        self,
        rows: np.ndarray,  # int (m,), the row of each pair
        ids: np.ndarray,  # int (m,), the listing of the pool that it is paired with
        features: np.ndarray,  # float32 (m,f)
        groups: Groups,  # Of the pool
    ):
        self.rows, self.ids, self.features, self.groups = rows, ids, features, groups
        self.same = groups.codes[rows] == groups.codes[ids]  # bool (m,)

    def learned(
        self,
        on_rows: np.ndarray,  # bool (n,), the rows to learn from; the others are going to be scored
    ) -> tuple:  # bool (m,), the pairs to learn from; the share of these rows' pairs of different groups
        "The pairs of these rows that have no end in a group of the other rows."
        is_scored = np.zeros(self.groups.codes.max(initial=-1) + 1, bool)
        is_scored[self.groups.row_codes[~on_rows]] = True
        codes = self.groups.codes
        of_rows = on_rows[self.rows] & ~is_scored[codes[self.rows]]
        is_learned = of_rows & ~is_scored[codes[self.ids]]
        n_different = (of_rows & ~self.same).sum()
        share = (is_learned & ~self.same).sum() / n_different if n_different else 1.
        return is_learned, float(share)

    def fit(
        self,
        model,  # `PairModel`, whose classifier is fitted
        on_rows: np.ndarray,  # bool (n,), the rows to learn from
    ):
        "Fit a model to some rows, the groups of all others unseen; returns it."
        is_learned, share = self.learned(on_rows)
        model.fit_pairs(self.features[is_learned], self.same[is_learned], share)
        return model

    def unseen(
        self,
        model,  # `PairModel`: one like it is fitted for each part
        on_rows: np.ndarray,  # bool (n,), the rows to learn from and to score
        parts: np.ndarray,  # int (n,), the part of each row; whole groups together
    ) -> np.ndarray:  # float32 (m,), NaN for the pairs of other rows
        "The probability of each pair of these rows by a model fitted on the other parts of them."
        probabilities = np.full(len(self.rows), np.nan, np.float32)
        for part in np.unique(parts[on_rows]):
            in_part = parts == part
            scored = (on_rows & in_part)[self.rows]
            if scored.any():
                fitted = self.fit(model.unfitted(), on_rows & ~in_part)
                probabilities[scored] = fitted.probabilities(self.features[scored])
        return probabilities


def random_parts(
    codes: np.ndarray,  # int (n,), the group of each listing, from 0
    folds: int,  # How many parts
    seed: int,  # Of the draw
) -> np.ndarray:  # int (n,), from 0
    "A part for each listing: whole groups together, about as many groups in each part."
    n_groups = codes.max() + 1
    if not 2 <= folds <= n_groups:
        raise InputError(f'folds={folds}: from 2 to the number of groups, {n_groups}')
    # dealt here and not by `group_folds`, which needs a table and balances listings, nor by scikit-learn's
    # KFold, which draws other parts from the same seed: all figures of pair models would move
    return np.random.default_rng(seed).permutation(np.arange(n_groups) % folds)[codes]


def sampled_pairs(
    same: np.ndarray,  # bool (m,), whether the pair is of one group
    seed: int = 0,  # Of the sample
) -> tuple:  # The pairs to fit to, a slice or int (s,), rising; the share of pairs of different groups in it
    "Of more than `MOST_PAIRS` pairs all of one group and a random sample of the others, as many at least."
    if len(same) <= MOST_PAIRS: return slice(None), 1.
    different = np.flatnonzero(~same)
    n_same = len(same) - len(different)
    n_taken = min(len(different), max(MOST_PAIRS - n_same, n_same))
    taken = np.random.default_rng(seed).permutation(different)[:n_taken]
    return np.sort(np.concatenate([np.flatnonzero(same), taken])), n_taken / max(1, len(different))
