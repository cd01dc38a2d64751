"Features of candidate pairs against a loop over pairs."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Candidates, Dense, Keys, Neighbors, Pool, Tfidf, candidates, fuse
from fastmatch.match.pairs.features import FEATURES, PairFeatures, pair_features, with_scores
from tests.match.cases import halves_of_one, noisy, titles
from tests.reference import pair as reference


def some_candidates(n, seed, k=6):
    "Copies, ties, listings without candidates, titles that are empty: (candidates, titles)."
    texts = [title.upper() if row % 2 else title for row, title in enumerate(titles(n, seed))]
    keys = [None if row % 3 else f'h{row % 2}' for row in range(n)]
    spaces = {'image': Dense(halves_of_one(n, 4, seed)), 'tfidf': Tfidf(texts), 'phash': Keys(keys)}
    scored_candidates = candidates(spaces, min(k, n))
    if n > 8:
        # a listing that finds nobody
        scored_candidates.ids[5, 1:] = -1
        for scores in scored_candidates.scores.values(): scores[5, 1:] = -np.inf
    return scored_candidates, texts


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 16), seed=st.integers(0, 999), top=st.integers(1, 7))
def test_every_feature_against_a_loop(n, seed, top):
    scored_candidates, texts = some_candidates(n, seed)
    radii = {'image': [-.5, .5, 1.], 'tfidf': [.1, .25, .9]}
    rows, columns, features, names = pair_features(scored_candidates, texts, radii=radii, top=top)
    nearby_ids = [[int(j) for j in row[1:] if j >= 0] for row in scored_candidates.ids]
    scores = {}
    for modality, score_grid in scored_candidates.scores.items():
        scores[modality] = [dict(zip(ids.tolist(), row_scores.tolist()))
                            for ids, row_scores in zip(scored_candidates.ids, score_grid)]
    expected = reference.features(nearby_ids, scores, ['phash'], texts, radii, top)
    assert features.dtype == np.float32 and features.shape == (len(expected), len(names))
    assert np.isfinite(features).all()
    assert list(zip(rows.tolist(), scored_candidates.ids[rows, columns].tolist())) == list(expected)
    if expected: assert set(names) == set(next(iter(expected.values())))
    for actual, values in zip(features, expected.values()):
        in_order = [values[name] for name in names]
        np.testing.assert_allclose(actual, in_order, atol=1e-5, err_msg=str(names))


def test_row_order_matters_to_none():
    n, rng = 30, np.random.default_rng(0)
    vectors, texts = noisy(n, 6, 0, 15), titles(n, 0)
    shuffled = rng.permutation(n)
    vectorizer = Tfidf(texts).vectorizer

    def features_in_order(order):
        ordered_texts = [texts[i] for i in order]
        spaces = {'image': Dense(vectors[order]), 'tfidf': Tfidf(ordered_texts, vectorizer=vectorizer)}
        return pair_features(candidates(spaces, n), ordered_texts)

    def by_pair(order, rows, columns, features):
        # with all as candidates the columns are the others in rising order
        other_ids = np.where(columns > rows, columns, columns - 1)
        return {(int(order[i]), int(order[j])): values for i, j, values in zip(rows, other_ids, features)}

    first, second = features_in_order(np.arange(n)), features_in_order(shuffled)
    first_by_pair, second_by_pair = by_pair(np.arange(n), *first[:3]), by_pair(shuffled, *second[:3])
    assert first[3] == second[3] and set(first_by_pair) == set(second_by_pair)
    assert len(first_by_pair) == n * (n - 1)
    for pair, values in first_by_pair.items():
        np.testing.assert_allclose(values, second_by_pair[pair], atol=1e-5)


def test_some_rows_are_those_of_all():
    scored_candidates, texts = some_candidates(16, 4)
    rows, *arrays, names = pair_features(scored_candidates, texts)
    of_some = PairFeatures(scored_candidates, texts)
    for wanted_rows in ([3], [7, 2, 11], np.arange(9), []):
        *some_arrays, some_names = of_some.of(np.array(wanted_rows, int))
        places = np.concatenate([np.flatnonzero(rows == row) for row in wanted_rows] or [np.zeros(0, int)])
        for some, whole in zip(some_arrays, (rows, *arrays)):
            np.testing.assert_array_equal(some, whole[places])
        assert some_names == names


def test_use():
    scored_candidates, texts = some_candidates(12, 1)
    assert pair_features(scored_candidates, use=['score'])[3] == ['image', 'tfidf', 'phash']
    assert pair_features(scored_candidates, texts, ['length'])[3] == ['length_i', 'length_j']
    _, _, all_features, all_names = pair_features(scored_candidates, texts)
    for feature in FEATURES:
        _, _, features, names = pair_features(scored_candidates, texts, [feature])
        np.testing.assert_array_equal(features, all_features[:, [all_names.index(name) for name in names]])
    assert not {'edit', 'length_i'} & set(pair_features(scored_candidates)[3])


def test_refuses():
    scored_candidates, texts = some_candidates(12, 1)
    for args, message in [((scored_candidates, None, ['title']), 'title: need titles'),
                          ((scored_candidates, texts[:-1]), 'titles: 11 for 12'),
                          ((scored_candidates, texts, ['colour']), "use=\\['colour'\\]: choose from score")]:
        with pytest.raises(InputError, match=message): pair_features(*args)
    pool = candidates({'image': Pool(Dense(noisy(4, 3, 0)), Dense(noisy(6, 3, 1)))}, 5)
    with pytest.raises(InputError, match='self-join'): pair_features(pool)
    words_twice = with_scores(scored_candidates, words=fuse(scored_candidates))
    with pytest.raises(InputError, match='words: modalities and'): pair_features(words_twice, texts)
    assert 'words' in pair_features(words_twice)[3]
    upside_down = Candidates(scored_candidates.ids[::-1], scored_candidates.scores)
    with pytest.raises(InputError, match='listing itself'): pair_features(upside_down)


def test_with_scores():
    scored_candidates, _ = some_candidates(14, 2)
    neighbors = fuse(scored_candidates).top(3)
    with_fused = with_scores(scored_candidates, fused=neighbors)
    assert list(with_fused.scores) == ['image', 'tfidf', 'phash', 'fused']
    assert with_fused.join == scored_candidates.join
    assert list(scored_candidates.scores) == ['image', 'tfidf', 'phash']
    known_scores = {(int(i), int(j)): float(score) for i, j, score in zip(*neighbors.pairs())}
    lowest_score = min(known_scores.values())
    for i in range(14):
        for j, score in zip(scored_candidates.ids[i], with_fused.scores['fused'][i]):
            assert score == (known_scores.get((i, int(j)), lowest_score) if j >= 0 else -np.inf)
    assert 'fused rank back' in pair_features(with_fused)[3]
    with pytest.raises(InputError, match='image: the candidates have scores of that name'):
        with_scores(scored_candidates, image=neighbors)
    with pytest.raises(InputError, match='2 listings'):
        with_scores(scored_candidates, b=Neighbors(neighbors.ids[:2], neighbors.scores[:2]))
