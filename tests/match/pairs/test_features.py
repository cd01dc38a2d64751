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
    texts = [title.upper() if i % 2 else title for i, title in enumerate(titles(n, seed))]
    keys = [None if i % 3 else f'h{i % 2}' for i in range(n)]
    spaces = {'image': Dense(halves_of_one(n, 4, seed)), 'tfidf': Tfidf(texts), 'phash': Keys(keys)}
    found = candidates(spaces, min(k, n))
    if n > 8:
        # a listing that finds nobody
        found.ids[5, 1:] = -1
        for scores in found.scores.values(): scores[5, 1:] = -np.inf
    return found, texts


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 16), seed=st.integers(0, 999), top=st.integers(1, 7))
def test_every_feature_against_a_loop(n, seed, top):
    found, texts = some_candidates(n, seed)
    radii = {'image': [-.5, .5, 1.], 'tfidf': [.1, .25, .9]}
    rows, columns, features, names = pair_features(found, texts, radii=radii, top=top)
    near = [[int(j) for j in row[1:] if j >= 0] for row in found.ids]
    scores = {}
    for name, grid in found.scores.items():
        scores[name] = [dict(zip(ids.tolist(), of_row.tolist())) for ids, of_row in zip(found.ids, grid)]
    wanted = reference.features(near, scores, ['phash'], texts, radii, top)
    assert features.dtype == np.float32 and features.shape == (len(wanted), len(names))
    assert np.isfinite(features).all()
    assert list(zip(rows.tolist(), found.ids[rows, columns].tolist())) == list(wanted)
    if wanted: assert set(names) == set(next(iter(wanted.values())))
    for got, values in zip(features, wanted.values()):
        np.testing.assert_allclose(got, [values[name] for name in names], atol=1e-5, err_msg=str(names))


def test_row_order_matters_to_none():
    n, rng = 30, np.random.default_rng(0)
    vectors, texts = noisy(n, 6, 0, 15), titles(n, 0)
    shuffled = rng.permutation(n)
    vectorizer = Tfidf(texts).vectorizer

    def of(order):
        in_order = [texts[i] for i in order]
        spaces = {'image': Dense(vectors[order]), 'tfidf': Tfidf(in_order, vectorizer=vectorizer)}
        return pair_features(candidates(spaces, n), in_order)

    def by_pair(order, rows, columns, features):
        # with all as candidates the columns are the others in rising order
        others = np.where(columns > rows, columns, columns - 1)
        return {(int(order[i]), int(order[j])): values for i, j, values in zip(rows, others, features)}

    first, second = of(np.arange(n)), of(shuffled)
    one, two = by_pair(np.arange(n), *first[:3]), by_pair(shuffled, *second[:3])
    assert first[3] == second[3] and set(one) == set(two) and len(one) == n * (n - 1)
    for pair, values in one.items(): np.testing.assert_allclose(values, two[pair], atol=1e-5)


def test_some_rows_are_those_of_all():
    found, texts = some_candidates(16, 4)
    rows, columns, features, names = pair_features(found, texts)
    some = PairFeatures(found, texts)
    for wanted in ([3], [7, 2, 11], np.arange(9), []):
        got = some.of(np.array(wanted, int))
        order = np.concatenate([np.flatnonzero(rows == row) for row in wanted] or [np.zeros(0, int)])
        for one, whole in zip(got[:3], (rows, columns, features)):
            np.testing.assert_array_equal(one, whole[order])
        assert got[3] == names


def test_use():
    found, texts = some_candidates(12, 1)
    assert pair_features(found, use=['score'])[3] == ['image', 'tfidf', 'phash']
    assert pair_features(found, texts, ['length'])[3] == ['length_i', 'length_j']
    _, _, all_features, all_names = pair_features(found, texts)
    for feature in FEATURES:
        _, _, features, names = pair_features(found, texts, [feature])
        np.testing.assert_array_equal(features, all_features[:, [all_names.index(name) for name in names]])
    assert not {'edit', 'length_i'} & set(pair_features(found)[3])


def test_refuses():
    found, texts = some_candidates(12, 1)
    for args, words in [((found, None, ['title']), 'title: need titles'),
                        ((found, texts[:-1]), 'titles: 11 for 12'),
                        ((found, texts, ['colour']), "use=\\['colour'\\]: choose from score")]:
        with pytest.raises(InputError, match=words): pair_features(*args)
    pool = candidates({'image': Pool(Dense(noisy(4, 3, 0)), Dense(noisy(6, 3, 1)))}, 5)
    with pytest.raises(InputError, match='self-join'): pair_features(pool)
    upside_down = Candidates(found.ids[::-1], found.scores)
    with pytest.raises(InputError, match='listing itself'): pair_features(upside_down)


def test_with_scores():
    found, _ = some_candidates(14, 2)
    neighbors = fuse(found).top(3)
    more = with_scores(found, fused=neighbors)
    assert list(more.scores) == ['image', 'tfidf', 'phash', 'fused'] and more.join == found.join
    assert list(found.scores) == ['image', 'tfidf', 'phash']
    known = {(int(i), int(j)): float(score) for i, j, score in zip(*neighbors.pairs())}
    lowest = min(known.values())
    for i in range(14):
        for j, score in zip(found.ids[i], more.scores['fused'][i]):
            assert score == (known.get((i, int(j)), lowest) if j >= 0 else -np.inf)
    assert 'fused rank back' in pair_features(more)[3]
    with pytest.raises(InputError, match='image: the candidates have scores of that name'):
        with_scores(found, image=neighbors)
    with pytest.raises(InputError, match='2 listings'):
        with_scores(found, b=Neighbors(neighbors.ids[:2], neighbors.scores[:2]))
