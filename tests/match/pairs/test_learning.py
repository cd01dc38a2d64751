"What a model learns from knows neither end of the pairs that it is judged on; of very many pairs a sample."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from fastmatch.match import Dense, Neighbors, PairModel, alone, candidates, fuse, heldout_pairs
from fastmatch.match.judge.groups import Groups
from fastmatch.match.pairs import learning
from fastmatch.match.pairs.learning import KnownPairs, random_parts, sampled_pairs
from fastmatch.match.pairs.rule_pairs import RulePairs


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(2, 12), known=st.integers(0, 6))
def test_learned_pairs_against_a_loop(seed, n, known):
    "The first n listings are judged; groups may be divided, and may go on in the catalogue."
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 6, n + known)
    rows, ids = (each.ravel() for each in np.meshgrid(np.arange(n), np.arange(n + known), indexing='ij'))
    rows, ids = rows[rows != ids], ids[rows != ids]
    on_rows = rng.random(n) < .6
    pairs = KnownPairs(rows, ids, np.zeros((len(rows), 1), np.float32), Groups(codes, rows=n))
    is_learned, share = pairs.learned(on_rows)
    scored_groups = {codes[row] for row in range(n) if not on_rows[row]}
    possible = [(i, j) for i, j in zip(rows, ids) if on_rows[i] and codes[i] not in scored_groups]
    wanted = [(i, j) for i, j in possible if codes[j] not in scored_groups]
    assert list(zip(rows[is_learned], ids[is_learned])) == wanted
    different = [sum(codes[i] != codes[j] for i, j in some) for some in (wanted, possible)]
    assert share == (different[0] / different[1] if different[1] else 1)


def memorable(n=240, seed=0):
    """Pairs of a self-join with random features that both directions share: only the pair itself tells its
    class."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n // 6), 6)
    # the five mates of each listing and ten others
    near = [np.concatenate([np.setdiff1d(np.flatnonzero(codes == codes[i]), [i]),
                            (i + 6 + 17 * np.arange(10)) % n]) for i in range(n)]
    linked = {
        (min(i, j), max(i, j)) for i in range(n) for j in near[i] if codes[i] != codes[j] or j in near[i]
    }
    features = {pair: rng.normal(size=4).astype(np.float32) for pair in sorted(linked)}
    both = [(i, j) for first, second in features for i, j in ((first, second), (second, first))]
    rows, ids = np.array(sorted(both)).T
    table = np.stack([features[min(i, j), max(i, j)] for i, j in zip(rows, ids)])
    return KnownPairs(rows, ids, table, Groups(codes))


def test_what_memorizes_scores_at_chance():
    pairs = memorable()
    memory = PairModel(KNeighborsClassifier(1))
    on_rows, parts = np.ones(240, bool), random_parts(pairs.groups.codes, 4, 0)
    unseen = pairs.unseen(memory, on_rows, parts)
    assert abs(roc_auc_score(pairs.same, unseen) - .5) < .03
    # where a pair may be learned from one side and scored from the other, memory pays
    leaky = np.empty(len(unseen))
    for part in range(4):
        scored = parts[pairs.rows] == part
        seen_once = memory.unfitted()
        seen_once.fit_pairs(pairs.features[~scored], pairs.same[~scored])
        leaky[scored] = seen_once.probabilities(pairs.features[scored])
    assert roc_auc_score(pairs.same, leaky) > .55
    # the halves of the protocol: fitted on one, judged on the other
    half = pairs.groups.codes < 20
    of_others = ~half[pairs.rows]
    fitted = pairs.fit(memory.unfitted(), half)
    assert (
        abs(roc_auc_score(pairs.same[of_others], fitted.probabilities(pairs.features[of_others])) - 0.5)
        < 0.03
    )


def test_unseen_leaves_other_rows_out():
    pairs = memorable(60)
    on_rows = pairs.groups.codes < 6
    unseen = pairs.unseen(PairModel(LogisticRegression()), on_rows, random_parts(pairs.groups.codes, 3, 0))
    np.testing.assert_array_equal(np.isnan(unseen), ~on_rows[pairs.rows])


def test_a_sample_keeps_all_of_one_group_and_the_odds(monkeypatch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60_000, 3)).astype(np.float32)
    same = rng.random(len(features)) < 1 / (1 + np.exp(4 - 2 * features[:, 0] - features[:, 1]))
    whole = PairModel(LogisticRegression())
    whole.fit_pairs(features, same)
    monkeypatch.setattr(learning, 'MOST_PAIRS', 20_000)
    taken, share = sampled_pairs(same)
    assert len(taken) == 20_000 and same[taken].sum() == same.sum() and (np.diff(taken) > 0).all()
    assert share == (20_000 - same.sum()) / (~same).sum()
    np.testing.assert_array_equal(taken, sampled_pairs(same)[0])
    sampled = PairModel(LogisticRegression())
    sampled.fit_pairs(features, same)
    assert whole.kept == 1 and sampled.kept == share
    # calibrated all the same: the mean probability is the share of true pairs, and pair by pair near the
    # whole's
    assert sampled.probabilities(features).mean() == pytest.approx(same.mean(), rel=.03)
    assert np.abs(sampled.probabilities(features) - whole.probabilities(features)).max() < .03
    # more true pairs than that: as many others beside them
    monkeypatch.setattr(learning, 'MOST_PAIRS', 10)
    taken, share = sampled_pairs(np.arange(100) < 30)
    assert len(taken) == 60 and share == 30 / 70
    assert sampled_pairs(np.arange(10) < 3) == (slice(None), 1.)


class Memory(ClassifierMixin, BaseEstimator):
    "Says 1 of a pair that it was fitted to from either side, known by its similarity, and 0 of all others."
    def fit(self, features, same):
        self.classes_ = np.unique(same)
        self.seen_ = set(features[:, 0].tolist())
        return self

    def predict_proba(self, features):
        is_seen = np.array([similarity in self.seen_ for similarity in features[:, 0].tolist()], float)
        return np.stack([1 - is_seen, is_seen], 1)


def test_no_pair_is_scored_that_was_learned_from_its_other_side():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 4)
    found = candidates({'image': Dense(rng.normal(size=(20, 6))[groups] + rng.normal(size=(80, 6)))}, 30)
    similarities = found.scores['image'][:, 1:][found.ids[:, 1:] >= 0]
    # both sides of a pair have the same similarity, and no other pair has it: it is the pair's name
    pairs = {frozenset((row, other)) for row, ids in enumerate(found.ids) for other in ids[1:] if other >= 0}
    assert len(set(similarities.tolist())) == len(pairs) < len(similarities)
    model = PairModel(Memory(), use=['score'])
    clusters = groups // 2
    for halves in ({}, {'clusters': clusters}):
        judged = heldout_pairs(found, groups, model=model, halvings=3, **halves)
        np.testing.assert_allclose(judged.row_f1, alone(groups))

    def is_nobody_known(neighbors): return (neighbors.scores[:, 1:][neighbors.ids[:, 1:] >= 0] == 0).all()
    assert is_nobody_known(model.score_unseen(found, groups, folds=4))
    assert not is_nobody_known(model.score(found))
    neighbors = fuse(found)
    spaces = {'image': Dense(np.eye(80))}
    of_rule = RulePairs(Neighbors(*neighbors), spaces, model=PairModel(Memory(), use=['score']))
    of_rule.features[:, 0] = neighbors_scores(neighbors, of_rule)
    for on_rows in (None, groups < 12):
        assert is_nobody_known(of_rule.crossed(groups, on_rows)[1])


def neighbors_scores(neighbors, pairs):
    "The score of each of the pairs."
    by_pair = {(row, other): score for row, other, score in zip(*map(np.ndarray.tolist, neighbors.pairs()))}
    return [by_pair[pair] for pair in zip(pairs.rows.tolist(), pairs.ids.tolist())]
