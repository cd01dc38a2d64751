"The best union of two decisions against every pair of thresholds."
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Candidates, Dense, Pool, UnionSweep, best_union, candidates, decide, fuse, row_f1
from fastmatch.match.thresholds import union_search
from tests.match.cases import SCORES, noisy
from tests.reference import match as reference


def random_candidates(values, rng, groups):
    "Candidates of two modalities with ties, padding and pairs of an equal key."
    n = len(groups)
    ids = np.full((n, n), -1)
    first, second, key_scores = (np.full((n, n), -np.inf, np.float32) for _ in range(3))
    for i in range(n):
        other_ids = [j for j in range(n) if j != i and rng.random() < .7]
        row_ids = [i, *other_ids]
        ids[i, :len(row_ids)] = row_ids
        same_group = groups[row_ids] == groups[i]
        for scores in (first, second):
            added_to_mates = .25 * same_group * rng.random(len(row_ids)).round(1)
            scores[i, :len(row_ids)] = rng.choice(values, len(row_ids)) + added_to_mates
        key_scores[i, :len(row_ids)] = (rng.random(len(row_ids)) < .1) & same_group
    return Candidates(ids.astype(np.int64), {'a': first, 'b': second, 'key': key_scores}, join=('key',))


# with what `random_candidates` adds to mates at most 1, as similarities are
SIMILARITIES = [*(score for score in SCORES if score < 1), np.float32(.75)]


# the best threshold lies between two neighbors in float32
@example(n=4, seed=52, values=[np.float32(.5 + 2**-24), np.float32(.75)],
         with_keys=False, some_rows=False, block=1)
@settings(max_examples=120, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 9999),
       values=st.lists(st.sampled_from(SIMILARITIES), min_size=1, max_size=4, unique=True),
       with_keys=st.booleans(), some_rows=st.booleans(), block=st.sampled_from([1, 3, 128]))
def test_best_union_is_the_best(n, seed, values, with_keys, some_rows, block):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, max(1, n // 2), n)
    scored_candidates = random_candidates(values, rng, groups)
    if not with_keys:
        scores_without_keys = {modality: scored_candidates.scores[modality] for modality in 'ab'}
        scored_candidates = Candidates(scored_candidates.ids, scores_without_keys)
    chosen_rows = rng.random(n) < .6 if some_rows else np.ones(n, bool)
    chosen_rows[0] = True
    always_matched = np.zeros(scored_candidates.ids.shape, bool)
    if with_keys: always_matched = (scored_candidates.scores['key'] == 1) & (scored_candidates.ids >= 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(union_search, 'BLOCK', block)
        thresholds, value = best_union(scored_candidates, groups, rows=chosen_rows)
    row_numbers = np.flatnonzero(chosen_rows)
    expected = reference.best_union(scored_candidates, 'ab', groups, row_numbers, always_matched)
    assert value == pytest.approx(expected, abs=1e-9)
    matches = reference.union(scored_candidates, 'ab', (thresholds['a'], thresholds['b']), always_matched)
    f1_by_row = UnionSweep(scored_candidates, groups).at(thresholds)
    np.testing.assert_allclose(f1_by_row, reference.row_f1(matches, groups), atol=1e-12)
    assert f1_by_row[chosen_rows].mean() == pytest.approx(value, abs=1e-9)
    # as the fusion decides
    decided = decide(fuse(scored_candidates, 'union', thresholds, join=()), 0., n + 1)
    if not with_keys: assert row_f1(decided, groups)[chosen_rows].mean() == pytest.approx(value, abs=1e-6)


def test_refuses():
    groups = [0, 0, 1, 1, 2]
    of_one_modality = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(of_one_modality, groups)
    of_two_modalities = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(of_two_modalities, groups, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(of_two_modalities, groups[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])
