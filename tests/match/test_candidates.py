"Candidates: the union of what each modality finds, scored exactly in all of them."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import FUSIONS, Dense, Index, Keys, Pool, Rule, Tfidf, candidates, decide, fuse
from tests.match.cases import asked, grid, noisy, titles


@pytest.mark.parametrize('n, k', [(1, 3), (2, 1), (2, 2), (40, 1), (40, 4), (40, 15)])
def test_candidates_are_the_union_scored_exactly(n, k):
    spaces = {'image': Dense(noisy(n, 6, 0, n)), 'tfidf': Tfidf(['kaos'] * n if n < 3 else titles(n, 3)),
              'title': Dense(noisy(n, 7, 4))}
    cand = asked(lambda k: candidates(spaces, k), k, n)
    similarities = {name: space.scores(*grid(n)).astype(np.float64) for name, space in spaces.items()}
    found = [space.search(min(k, n)).ids for space in spaces.values()]
    width = cand.ids.shape[1]
    for i in range(n):
        want = sorted({int(j) for ids in found for j in ids[i] if j >= 0} - {i})
        assert cand.ids[i].tolist() == ([i] + want + [-1] * n)[:width] and len(want) < width
        for name, scores in cand.scores.items():
            assert scores.dtype == np.float32 and scores.shape == cand.ids.shape
            # also where another modality brought the candidate
            np.testing.assert_array_equal(scores[i, :len(want) + 1], similarities[name][i, [i] + want])
            assert (scores[i, len(want) + 1:] == -np.inf).all()
    for how in FUSIONS:
        if how == 'piecewise': continue
        np.testing.assert_array_equal(fuse(cand, how).check(self_join=True).ids < 0, cand.ids < 0)


@pytest.mark.parametrize('m, n', [(1, 30), (7, 24), (30, 1)])
def test_candidates_and_rule_see_the_pool(m, n):
    vectors = noisy(m + n, 6, 0, 12)
    texts = titles(m + n, 1)
    known = {'image': Dense(vectors[m:]), 'tfidf': Tfidf(texts[m:])}
    mine = {'image': Dense(vectors[:m]), 'tfidf': known['tfidf'].transform(texts[:m])}
    pools = {name: Pool(mine[name], known[name]) for name in known}
    rule = Rule('mean', {'image': .6, 'tfidf': .4}, .35, k=m + n)
    # every pair in one table, in the catalogue's vocabulary
    whole = {'image': Dense(vectors), 'tfidf': mine['tfidf'].append(known['tfidf'])}
    want = fuse(candidates(whole, m + n), rule.how, rule.weights)
    got = rule.neighbors(pools).check()
    np.testing.assert_array_equal(got.ids, want.ids[:m])
    np.testing.assert_array_equal(got.scores, want.scores[:m])
    assert [row.tolist() for row in rule.apply(pools)] == [row.tolist() for row in decide(want, .35)][:m]


def test_what_they_remember():
    texts = ['kaos', '', 'susu', 'kaos']
    spaces = {'image': Dense(noisy(4, 3, 0)), 'tfidf': Tfidf(texts), 'phash': Keys(['p', None, 'p', None])}
    cand = candidates(spaces, 3)
    assert (cand.k, cand.join, cand.pool, cand.rows) == (3, ('phash',), 4, None)
    present = {name: there.tolist() for name, there in cand.present.items()}
    assert present == {'image': [True] * 4, 'tfidf': [True, False, True, True], 'phash': [True] * 4}
    # a rule chosen on few listings takes 50 among more
    assert candidates(spaces).k == 50
    pools = {name: Pool(space.take([0, 1]), space.take([2, 3])) for name, space in spaces.items()}
    cand = candidates(pools)
    assert (cand.join, cand.pool) == (('phash',), 4)
    assert cand.present['tfidf'].tolist() == [True, False, True, True]


def test_removed_from_one_modality_is_nobodys_candidate():
    vectors = noisy(12, 4, 0)
    index = Index(vectors)
    index.remove([3, 7])
    cand = candidates({'image': index, 'title': Dense(vectors[::-1])}, 12)
    assert cand.ids[:, 0].tolist() == list(range(12))
    assert not np.isin(cand.ids[:, 1:], [3, 7]).any() and (cand.ids[[3, 7], 1:] == -1).all()


def test_the_order_of_modalities_does_not_matter():
    image, title = Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))
    one = candidates({'a': image, 'b': title}, 6)
    two = candidates({'b': title, 'a': image}, 6)
    np.testing.assert_array_equal(one.ids, two.ids)
    for name in 'ab': np.testing.assert_array_equal(one.scores[name], two.scores[name])


def test_refuses():
    five, four = Dense(noisy(5, 3, 0)), Dense(noisy(4, 3, 0))
    with pytest.raises(InputError, match="'a': 5, 'b': 4"): candidates({'a': five, 'b': four})
    with pytest.raises(InputError, match='one modality'): candidates({})
    for k, says in ((0, 'give'), (-2, 'give'), (6, 'there are 5 listings')):
        with pytest.raises(InputError, match=f'k={k}: {says}'): candidates({'a': five}, k)
    pool = Pool(Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1)))
    with pytest.raises(InputError, match='catalogues of different length'):
        candidates({'a': pool, 'b': Pool(Dense(noisy(3, 4, 0)), Dense(noisy(4, 4, 1)))})
