"Listings of several pictures: exact against every pair of pictures, with the bits of `Dense` for one each."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    SIMILARITIES,
    Dense,
    Embeddings,
    Index,
    Keys,
    PairModel,
    Pictures,
    PictureSets,
    Pool,
    Rule,
    RulePairs,
    Step,
    augment,
    blend,
    candidates,
    cross_mean,
    expand,
    fuse,
)
from fastmatch.match.spaces.asymmetric import AsymmetricSpace
from tests.match.spaces.promises import assert_exact, assert_same


def made(n=60, dim=8, seed=0, most=4, ties=False):
    "Vectors of all pictures, and the listing of each."
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, n)
    vectors = rng.normal(size=(counts.sum(), dim))
    # few directions, so that many pairs have equal similarities
    if ties: vectors = np.sign(vectors)
    return vectors, np.repeat(np.arange(n), counts)


def naive(similarity, vectors, listings, other_vectors=None, other_listings=None):
    "Each pair of listings by a loop over their pictures, float64."
    if other_vectors is None: other_vectors, other_listings = vectors, listings
    unit, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, other_vectors))
    products = unit @ other.T
    table = np.empty((listings.max() + 1, other_listings.max() + 1))
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            block = products[listings == row][:, other_listings == column]
            if similarity == 'best': table[row, column] = block.max()
            else: table[row, column] = (block.max(1).mean() + block.max(0).mean()) / 2
    return table


@pytest.mark.parametrize('similarity', SIMILARITIES)
@pytest.mark.parametrize('k', [1, 5, 60])
@pytest.mark.parametrize('ties', [False, True])
def test_search_and_scores_are_those_of_every_pair_of_pictures(similarity, k, ties):
    vectors, listings = made(ties=ties, dim=4 if ties else 8)
    space = PictureSets(vectors, listings, similarity=similarity)
    assert_exact(space.search(k), naive(similarity, vectors, listings), space, k)


@pytest.mark.parametrize('similarity', SIMILARITIES)
def test_new_listings_are_looked_up_exactly(similarity):
    vectors, listings = made()
    others, other_listings = made(23, seed=1)
    space = PictureSets(vectors, listings, similarity=similarity)
    queries = PictureSets(others, other_listings, similarity=similarity)
    table = naive(similarity, others, other_listings, vectors, listings)
    assert_exact(space.search(7, queries=queries), table, space, 7, queries)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), similarity=st.sampled_from(SIMILARITIES))
def test_symmetric_whatever_the_order_of_the_pictures(seed, similarity):
    vectors, listings = made(12, 5, seed, 5)
    space = PictureSets(vectors, listings, similarity=similarity)
    everyone = np.arange(12)
    scores = space.scores(everyone[:, None], everyone[None])
    np.testing.assert_array_equal(scores, scores.T)
    shuffled = np.random.default_rng(seed).permutation(len(listings))
    other = PictureSets(vectors[shuffled], listings[shuffled], similarity=similarity)
    np.testing.assert_array_equal(scores, other.scores(everyone[:, None], everyone[None]))
    np.testing.assert_array_equal(space.means().vectors, other.means().vectors)
    assert_same(space.search(5), other.search(5))


@pytest.mark.parametrize('similarity', SIMILARITIES)
def test_one_picture_each_is_dense_to_the_bit(similarity):
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    dense, sets = Dense(vectors), PictureSets(vectors, np.arange(300), similarity=similarity)
    np.testing.assert_array_equal(dense.vectors, sets.means().vectors)
    for refine in (lambda space: space, augment, blend, lambda space: augment(space, k=2, alpha=1.), expand,
                   lambda space: space.take(np.arange(0, 300, 3)), lambda space: space.append(space)):
        assert_same(refine(dense).search(20), refine(sets).search(20))
    pools = [Pool(space.take(np.arange(40)), space.take(np.arange(40, 300))) for space in (dense, sets)]
    assert_same(*(pool.search(20) for pool in pools))


def test_among_many_a_listing_of_one_picture_has_the_bits_of_dense():
    vectors, listings = made(200, most=3)
    counts = np.bincount(listings)
    single = np.flatnonzero(counts == 1)
    sets = PictureSets(vectors, listings)
    dense = Dense(vectors[np.isin(listings, single)])
    np.testing.assert_array_equal(
        sets.scores(single[:, None], single[None]),
        dense.scores(np.arange(len(single))[:, None], np.arange(len(single))[None]))
    assert_same(sets.take(single).search(9), dense.search(9))


@pytest.mark.parametrize('similarity', SIMILARITIES)
def test_parts_and_pools_have_the_scores_of_the_whole(similarity):
    vectors, listings = made()
    whole = PictureSets(vectors, listings, similarity=similarity)
    parts = whole.take(np.arange(20)), whole.take(np.arange(60) >= 20)
    assert_same(parts[0].append(parts[1]).search(9), whole.search(9))
    found = whole.search(9)
    assert_same(Pool(*parts).search(9), (found.ids[:20], found.scores[:20]))
    assert_same(AsymmetricSpace(whole, whole.take(np.arange(20))).search(9),
                (found.ids[:20], found.scores[:20]))


def test_sets_meet_listings_of_one_picture():
    vectors, listings = made()
    sets, dense = PictureSets(vectors, listings), Dense(vectors[:30], 'pictures')
    as_sets = PictureSets.of_one_each(dense)
    for new, catalogue in ((sets, dense), (dense, sets)):
        pool = Pool(new, catalogue)
        assert_same(pool.search(9), Pool(*(as_sets if each is dense else each for each in (new, catalogue)))
                    .search(9))
    assert_same(sets.append(dense).search(9), sets.append(as_sets).search(9))
    with pytest.raises(InputError, match='give Dense'): Pool(Index(vectors[:30]), sets)


def test_each_picture_is_pulled_and_a_neighbor_pulls_with_the_mean_of_its_pictures():
    vectors, listings = made(12, 5)
    space = PictureSets(vectors, listings)
    neighbors = space.search(3)
    refined = augment(space, k=3)
    means = np.stack([space.vectors[listings == row].mean(0) for row in range(12)])
    for picture, listing in enumerate(listings):
        expected = space.vectors[picture].astype(np.float64)
        for rank in (1, 2):
            if neighbors.scores[listing, rank] <= 0: continue
            expected = expected + (3 - rank) / 3 * means[neighbors.ids[listing, rank]]
        np.testing.assert_allclose(refined.vectors[picture], expected / np.linalg.norm(expected), atol=1e-6)
    assert (refined.counts == space.counts).all()
    assert expand(space).search(4).ids.shape == (12, 4)


def test_cross_mean_by_keys_of_several_pictures():
    vectors = np.eye(6, dtype=np.float32)[[0, 1, 2, 3]]
    keys = Keys(['a', ('a', 'b'), 'b', None])
    of_dense = cross_mean(Dense(vectors), keys).vectors
    expected = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]])
    np.testing.assert_allclose(of_dense, expected / np.linalg.norm(expected, axis=1, keepdims=True),
                               atol=1e-6)
    of_sets = cross_mean(PictureSets(vectors, np.arange(4)), keys)
    np.testing.assert_allclose(of_sets.vectors, of_dense, atol=1e-6)


def test_what_a_pair_model_reads():
    vectors, listings = made(12, 5)
    space = PictureSets(vectors, listings, 'image', 'mean')
    rows, ids = np.divmod(np.arange(144), 12)
    features = space.pair_features(rows, ids)
    assert list(features) == ['image best', 'image mean', 'image second']
    for similarity in SIMILARITIES:
        np.testing.assert_allclose(features[f'image {similarity}'],
                                   naive(similarity, vectors, listings)[rows, ids], atol=1e-6)
    products = space.vectors @ space.vectors.T
    for row, other, second in zip(rows, ids, features['image second']):
        block = np.sort(products[listings == row][:, listings == other].ravel())
        assert second == pytest.approx(block[-2] if len(block) > 1 else -1, abs=1e-6)


def embeddings(n=120, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 3
    counts = rng.integers(1, 4, n)
    listings = np.repeat(np.arange(n), counts)
    centers = rng.normal(size=(n, 8))
    vectors = centers[groups[listings]] + .8 * rng.normal(size=(len(listings), 8))
    return Embeddings({'image': Pictures(vectors, listings), 'title': rng.normal(size=(n, 4))},
                      np.arange(n), groups=groups, **kwargs)


def test_a_pair_model_of_sets_and_one_fitted_to_single_pictures():
    emb = embeddings()
    rule = Rule('mean', {'image': 1., 'title': .2}, .5)
    spaces = emb.spaces()
    pairs = RulePairs(rule.neighbors(spaces), spaces)
    model = pairs.fit(emb.groups)
    assert {'image best', 'image mean', 'image second'} <= set(model.names)
    decided = Rule('mean', {'image': 1., 'title': .2}, .5, steps=(Step('pair_model', model=model),))
    assert len(decided.run(spaces).matches) == len(emb)
    # fitted to one picture each, applied to several: what it doesn't know it doesn't read
    single = {**spaces, 'image': spaces['image'].means()}
    model = RulePairs(rule.neighbors(single), single).fit(emb.groups)
    decided = Rule('mean', {'image': 1., 'title': .2}, .5, steps=(Step('pair_model', model=model),))
    assert len(decided.run(spaces).matches) == len(emb)
    assert isinstance(model, PairModel)


def test_embeddings_hold_sets_beside_their_means():
    emb = embeddings(made_with={'tta': True})
    assert emb['image'].shape == (120, 8) and emb.pictures['image'].counts.max() == 3
    assert emb.made_with == {'tta': True, 'pictures': 'best'} and emb.similarity == 'best'
    np.testing.assert_allclose(np.linalg.norm(emb['image'][emb.pictures['image'].counts > 1], axis=1), 1,
                               atol=1e-6)
    rows = np.array([5, 3, 80])
    part = emb.take(rows)
    space, whole = part.spaces()['image'], emb.spaces()['image']
    np.testing.assert_array_equal(space.scores(np.arange(3)[:, None], np.arange(3)),
                                  whole.scores(rows[:, None], rows))
    copy = Embeddings(emb, emb.ids, groups=emb.groups)
    assert copy.pictures.keys() == emb.pictures.keys() and copy.made_with == emb.made_with
    by_mean = emb.compared_by('mean')
    assert by_mean.spaces()['image'].similarity == 'mean' and emb.similarity == 'best'
    neighbors = fuse(candidates(emb.spaces(), 20), 'mean', {'image': .5, 'title': .5})
    assert neighbors.ids.shape[0] == 120


def test_a_rule_remembers_how_pictures_were_compared():
    from fastmatch.match import choose_rule
    emb = embeddings()
    rule = choose_rule(candidates(emb.compared_by('mean').spaces(), 20), emb.groups)
    assert rule.made_with == {'pictures': 'mean'}
    assert Rule.from_dict(rule.to_dict()).made_with == {'pictures': 'mean'}
    with pytest.raises(InputError, match="pictures='mean'"): rule.run(emb.spaces())


@pytest.mark.parametrize('call, message', [
    (lambda: PictureSets(np.ones((3, 2)), [0, 0, 2]), 'listings 1 have no picture'),
    (lambda: PictureSets(np.ones((3, 2)), [0, 1]), 'listings of shape'),
    (lambda: PictureSets(np.ones((3, 2)), [0., 1, 2]), 'whole numbers'),
    (lambda: PictureSets(np.ones((3, 2)), [0, 1, 2], similarity='worst'), 'choose one of best, mean'),
    (lambda: PictureSets(np.zeros((3, 2)), [0, 1, 2]), 'all zero'),
    (lambda: PictureSets(np.ones((2, 2)), [0, 1]).search(queries=PictureSets(np.ones((2, 3)), [0, 1])),
     'queries have 3 dimensions'),
    (lambda: PictureSets(np.ones((2, 2)), [0, 1]).search(queries=Keys(['a'])), 'give PictureSets'),
    (lambda: Embeddings({'image': Pictures.of(np.ones((3, 2)), [0, 0, 1])}, [1, 2, 3]), '2 rows for 3 ids'),
    (lambda: embeddings().compared_by('median'), 'choose one of'),
])
def test_refused_with_words(call, message):
    with pytest.raises(InputError, match=message): call()
