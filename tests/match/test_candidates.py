"Candidates: the union of what each modality finds, scored exactly in all of them."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import FUSIONS, Dense, Index, Keys, Pool, Rule, Tfidf, candidates, decide, fuse
from tests.match.cases import checked_search, noisy, pair_grid, titles


@pytest.mark.parametrize('listing_count, k', [(1, 3), (2, 1), (2, 2), (40, 1), (40, 4), (40, 15)])
def test_candidates_are_the_union_scored_exactly(listing_count, k):
    spaces = {
        'image': Dense(noisy(listing_count, 6, 0, listing_count)),
        'tfidf': Tfidf(['kaos'] * listing_count if listing_count < 3 else titles(listing_count, 3)),
        'title': Dense(noisy(listing_count, 7, 4)),
    }
    scored_candidates = checked_search(lambda k: candidates(spaces, k), k, listing_count)
    similarities = {
        modality: space.scores(*pair_grid(listing_count)).astype(np.float64)
        for modality, space in spaces.items()
    }
    found = [space.search(min(k, listing_count)).ids for space in spaces.values()]
    width = scored_candidates.ids.shape[1]
    for i in range(listing_count):
        expected = sorted(
            {int(neighbor) for found_ids in found for neighbor in found_ids[i] if neighbor >= 0} - {i}
        )
        assert scored_candidates.ids[i].tolist() == ([i] + expected + [-1] * listing_count)[:width]
        assert len(expected) < width
        for modality, scores in scored_candidates.scores.items():
            assert scores.dtype == np.float32 and scores.shape == scored_candidates.ids.shape
            # also where another modality brought the candidate
            np.testing.assert_array_equal(
                scores[i, : len(expected) + 1], similarities[modality][i, [i] + expected]
            )
            assert (scores[i, len(expected) + 1:] == -np.inf).all()
    for fusion in FUSIONS:
        if fusion == 'piecewise': continue
        neighbors = fuse(scored_candidates, fusion).check(self_join=True)
        np.testing.assert_array_equal(neighbors.ids < 0, scored_candidates.ids < 0)


@pytest.mark.parametrize('new_count, catalogue_count', [(1, 30), (7, 24), (30, 1)])
def test_candidates_and_rule_see_the_pool(new_count, catalogue_count):
    vectors = noisy(new_count + catalogue_count, 6, 0, 12)
    texts = titles(new_count + catalogue_count, 1)
    catalogue = {'image': Dense(vectors[new_count:]), 'tfidf': Tfidf(texts[new_count:])}
    new_spaces = {
        'image': Dense(vectors[:new_count]),
        'tfidf': catalogue['tfidf'].transform(texts[:new_count]),
    }
    pools = {modality: Pool(new_spaces[modality], catalogue[modality]) for modality in catalogue}
    rule = Rule('mean', {'image': .6, 'tfidf': .4}, .35, k=new_count + catalogue_count)
    # every pair in one table, in the catalogue's vocabulary
    all_spaces = {'image': Dense(vectors), 'tfidf': new_spaces['tfidf'].append(catalogue['tfidf'])}
    expected = fuse(candidates(all_spaces, new_count + catalogue_count), rule.how, rule.weights)
    actual = rule.neighbors(pools).check()
    np.testing.assert_array_equal(actual.ids, expected.ids[:new_count])
    np.testing.assert_array_equal(actual.scores, expected.scores[:new_count])
    expected_matches = [matched_ids.tolist() for matched_ids in decide(expected, .35)]
    assert [matched_ids.tolist() for matched_ids in rule.apply(pools)] == expected_matches[:new_count]


def test_what_they_remember():
    texts = ['kaos', '', 'susu', 'kaos']
    spaces = {'image': Dense(noisy(4, 3, 0)), 'tfidf': Tfidf(texts), 'phash': Keys(['p', None, 'p', None])}
    scored_candidates = candidates(spaces, 3)
    assert scored_candidates.k == 3 and scored_candidates.join == ('phash',)
    assert scored_candidates.pool == 4 and scored_candidates.rows is None
    present = {modality: is_present.tolist() for modality, is_present in scored_candidates.present.items()}
    assert present == {'image': [True] * 4, 'tfidf': [True, False, True, True], 'phash': [True] * 4}
    # a rule chosen on few listings takes 50 among more
    assert candidates(spaces).k == 50
    pools = {modality: Pool(space.take([0, 1]), space.take([2, 3])) for modality, space in spaces.items()}
    scored_candidates = candidates(pools)
    assert (scored_candidates.join, scored_candidates.pool) == (('phash',), 4)
    assert scored_candidates.present['tfidf'].tolist() == [True, False, True, True]


def test_removed_from_one_modality_is_nobodys_candidate():
    vectors = noisy(12, 4, 0)
    index = Index(vectors)
    index.remove([3, 7])
    scored_candidates = candidates({'image': index, 'title': Dense(vectors[::-1])}, 12)
    assert scored_candidates.ids[:, 0].tolist() == list(range(12))
    assert not np.isin(scored_candidates.ids[:, 1:], [3, 7]).any()
    assert (scored_candidates.ids[[3, 7], 1:] == -1).all()


def test_the_order_of_modalities_does_not_matter():
    image, title = Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))
    image_first = candidates({'a': image, 'b': title}, 6)
    title_first = candidates({'b': title, 'a': image}, 6)
    np.testing.assert_array_equal(image_first.ids, title_first.ids)
    for modality in 'ab':
        np.testing.assert_array_equal(image_first.scores[modality], title_first.scores[modality])


def test_refuses():
    five, four = Dense(noisy(5, 3, 0)), Dense(noisy(4, 3, 0))
    with pytest.raises(InputError, match="'a': 5, 'b': 4"): candidates({'a': five, 'b': four})
    with pytest.raises(InputError, match='one modality'): candidates({})
    for k, message in ((0, 'give'), (-2, 'give'), (6, 'there are 5 listings')):
        with pytest.raises(InputError, match=f'k={k}: {message}'): candidates({'a': five}, k)
    pool = Pool(Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1)))
    with pytest.raises(InputError, match='catalogues of different length'):
        candidates({'a': pool, 'b': Pool(Dense(noisy(3, 4, 0)), Dense(noisy(4, 4, 1)))})
