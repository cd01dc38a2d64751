"Metrics against plain loops, and what they say without a learner that they can use."
import math
from types import SimpleNamespace

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match.spaces.dense import Dense
from fastmatch.metrics import MacroF1, MAPAtR, MatchMetric, RecallAt, RowF1, macro_f1

GROUPS = np.array(['a', 'a', 'b', 'b', 'b', 'c', 'd', 'd'])


@pytest.fixture(scope='module')
def vectors(): return np.random.default_rng(0).normal(size=(len(GROUPS), 4)).astype(np.float32)


def learner(vectors):
    "What a metric sees of a Learner; the modality asked for is noted."
    asked = []
    neighbors = Dense(vectors).search(len(vectors))
    scores = SimpleNamespace(result=lambda modality: (asked.append(modality), (neighbors, GROUPS))[1])
    return SimpleNamespace(valid_scores=scores, asked=asked)


def value_of(metric, learn):
    metric.reset()
    metric.accumulate(learn)
    return metric.value


def ranked(vectors, row):
    "The other rows by falling cosine."
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit.astype(np.float64) @ unit[row]
    return [other for other in np.argsort(-similarity, kind='stable') if other != row]


@pytest.mark.parametrize('k', [1, 2, 5])
def test_recall_is_that_of_a_loop(vectors, k):
    found = []
    for row, group in enumerate(GROUPS):
        if (GROUPS == group).sum() > 1:
            found.append(any(GROUPS[other] == group for other in ranked(vectors, row)[:k]))
    assert value_of(RecallAt(k), learner(vectors)) == pytest.approx(np.mean(found))


def test_average_precision_is_that_of_a_loop(vectors):
    averages = []
    for row, group in enumerate(GROUPS):
        n_mates = (GROUPS == group).sum() - 1
        if n_mates == 0: continue
        hits = [GROUPS[other] == group for other in ranked(vectors, row)[:n_mates]]
        averages.append(sum(hit * sum(hits[:i + 1]) / (i + 1) for i, hit in enumerate(hits)) / n_mates)
    assert value_of(MAPAtR(), learner(vectors)) == pytest.approx(np.mean(averages))


def test_row_f1_is_the_best_of_all_thresholds(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, np.inf)
    same = GROUPS[:, None] == GROUPS
    best = 0
    for threshold in [*similarity.ravel(), np.inf]:
        matched = similarity >= threshold
        best = max(best, np.mean(2 * (matched & same).sum(1) / (matched.sum(1) + same.sum(1))))
    assert value_of(RowF1(), learner(vectors)) == pytest.approx(best, abs=1e-6)


def test_names_say_modality_and_k(vectors):
    assert [metric.name for metric in (RecallAt(), RecallAt(5), MAPAtR(), RowF1())] == [
        'recall@1', 'recall@5', 'map@r', 'row_f1_max']
    assert [metric.name for metric in (RecallAt(2, 'image'), MAPAtR('title'))] == [
        'recall@2_image',
        'map@r_title',
    ]
    learn = learner(vectors)
    for modality in (None, 'image'): value_of(MAPAtR(modality), learn)
    assert learn.asked == [None, 'image']


def test_without_groups_of_two_there_is_no_score(vectors, monkeypatch):
    neighbors = Dense(vectors).search(3)
    alone = np.arange(len(vectors))
    learn = SimpleNamespace(valid_scores=SimpleNamespace(result=lambda modality: (neighbors, alone)))
    assert math.isnan(value_of(RecallAt(), learn)) and math.isnan(value_of(MAPAtR(), learn))


def test_other_learners_are_refused_and_none_has_no_value():
    metric = RecallAt()
    metric.reset()
    assert metric.value is None
    with pytest.raises(InputError, match='recall@1 needs a learner made by match_learner'):
        value_of(metric, SimpleNamespace())
    with pytest.raises(NotImplementedError): MatchMetric().score(None, None)


def test_macro_f1_is_the_mean_over_classes():
    true = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 0])
    each = []
    for label in range(3):
        right = ((predicted == label) & (true == label)).sum()
        each.append(2 * right / ((predicted == label).sum() + (true == label).sum()))
    assert macro_f1(predicted, true) == pytest.approx(np.mean(each))
    assert MacroF1().name == 'macro_f1'
