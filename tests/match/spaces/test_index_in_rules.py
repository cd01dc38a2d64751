"""Index where the other spaces are used: candidates, pools, refinements and rules, with listings that were
removed."""
import numpy as np
import pytest

from fastmatch.match import (
    Dense,
    Index,
    Keys,
    Pool,
    Rule,
    Step,
    Tfidf,
    augment,
    blend,
    candidates,
    cross_mean,
    ensemble,
    expand,
    fuse,
)
from fastmatch.match.neighbors import check_self_first
from fastmatch.match.spaces.faiss_index import KINDS
from tests.match.cases import noisy
from tests.match.spaces.promises import assert_keeps_promises, clustered

BUILT = KINDS[1:]


@pytest.mark.parametrize('index_kind', BUILT)
def test_is_a_space_like_any_other(index_kind):
    vectors, texts = clustered(210), [f'bag {i // 7}' for i in range(210)]
    index, dense = Index(vectors, kind=index_kind, recall=1.), Dense(vectors)
    actual, expected = (
        fuse(candidates({'image': space, 'tfidf': Tfidf(texts)}, 8)) for space in (index, dense)
    )
    assert (actual.ids[:, :5] == expected.ids[:, :5]).mean() > .97
    # parts and more of it are indexes of the same kind, and removed stays removed
    index.remove([4])
    taken, appended = index.take(np.arange(100)), index.append(dense.take([1, 2]))
    assert taken.kind == appended.kind == index_kind
    assert taken.removed.tolist() == [i == 4 for i in range(100)]
    assert appended.removed.sum() == 1 and len(appended) == 212
    for space in (taken, appended): assert_keeps_promises(space.search(4), space)
    assert index.search(4).ids.shape == (210, 4)


@pytest.mark.parametrize('index_kind', BUILT)
def test_as_the_catalogue_of_a_pool(index_kind):
    vectors, new_listings = clustered(), Dense(clustered(seed=4)[:30])
    actual = Pool(new_listings, Index(vectors, kind=index_kind)).search(8)
    expected = Pool(new_listings, Dense(vectors)).search(8)
    check_self_first(actual.check(), 730)
    both = zip(actual.ids.tolist(), expected.ids.tolist())
    assert np.mean([len(set(row) & set(expected_row)) / 8 for row, expected_row in both]) > .9
    assert Pool(new_listings, Index(vectors, kind=index_kind)).pool == 730


STEPS = {'none': [], 'augment': [Step('augment', k=3)], 'expand': [Step('expand', k=3)],
         'blend by fused': [Step('blend', threshold=.3, by='fused')],
         'cross_mean': [Step('cross_mean', keys='same', on='image')],
         'all': [Step('blend', threshold=.3, by='fused'), Step('k_reciprocal', k1=3), Step('components')]}
IMAGES, TEXTS = noisy(40, 6, 0, 12), noisy(40, 5, 1)


def shop(rows, new_count, removed, both_indexed):
    "Spaces of some listings, the first `new_count` new, the others known; `removed` of these removed."
    spaces = {}
    title_class = Index if both_indexed else Dense
    for modality, vectors, space_class in (('image', IMAGES, Index), ('title', TEXTS, title_class)):
        catalogue = space_class(vectors[rows[new_count:]], modality)
        if len(removed) and space_class is Index: catalogue.remove(removed - new_count)
        spaces[modality] = catalogue
        if new_count: spaces[modality] = Pool(Dense(vectors[rows[:new_count]], modality), catalogue)
    keys = Keys([f'p{i % 9}' for i in rows])
    if new_count: keys = Pool(keys.take(np.arange(new_count)), keys.take(np.arange(new_count, len(rows))))
    return spaces | {'same': keys}


@pytest.mark.parametrize('step_name', STEPS)
@pytest.mark.parametrize('pooled', [False, True])
@pytest.mark.parametrize('both_indexed', [False, True])
def test_removed_is_as_if_it_had_never_been(step_name, pooled, both_indexed):
    """Refined, fused, or matched with new listings: as without the listings, also where only one modality
    knows of it."""
    removed = np.array([7, 8, 20, 39])
    kept = np.setdiff1d(np.arange(40), removed)
    steps = STEPS[step_name]
    # a step by a modality's own neighbors knows what that modality knows
    if step_name in ('augment', 'expand') and not both_indexed:
        steps = [Step(step.do, on='image', **step.params) for step in steps]
    rule = Rule('mean', {'image': .6, 'title': .4}, .35, 40, steps=steps)
    new_count = 5 if pooled else 0
    actual = rule.apply(shop(np.arange(40), new_count, removed, both_indexed))
    expected = rule.apply(shop(kept, new_count, (), both_indexed))
    found = {i: set(matched_ids.tolist()) for i, matched_ids in enumerate(actual) if i not in removed}
    assert found == {kept[i]: set(kept[matched_ids].tolist()) for i, matched_ids in enumerate(expected)}
    assert max(map(len, found.values())) > 1
    assert all(actual[i].tolist() == [i] for i in removed if i < len(actual))


@pytest.mark.parametrize('index_kind', KINDS)
def test_refined_is_an_index_again(index_kind):
    "Of its kind, built anew, with what was removed: nothing turns to an exact search of all."
    vectors = clustered(350)
    index = Index(vectors, 'pics', index_kind)
    index.search(5)
    index.remove([3, 4])
    refined = {'augment': augment(index), 'blend': blend(index),
            'cross_mean': cross_mean(index, Keys(['a'] * 5 + [None] * 345)),
            'both': ensemble([Dense(vectors[:, :3]), index], name='both'),
            'behind': Dense(vectors[:9], 'pics').append(index)}
    for name, space in refined.items():
        assert type(space) is Index and space.kind == index_kind and space._faiss_index is None, name
        removed = (12, 13) if name == 'behind' else (3, 4)
        assert space.remaining.tolist() == [i for i in range(len(space)) if i not in removed], name
        assert_keeps_promises(space.search(5), space)
        assert (space._faiss_index is None) == (index_kind == 'exact')
    assert refined['both'].name == 'both' and refined['blend'].name == 'pics'
    assert not np.shares_memory(refined['blend'].removed, index.removed)
    # nor does what was removed teach others, or look anybody up
    mean_vector = Dense(Dense(vectors[:3]).vectors.mean(0)[None]).vectors[0]
    np.testing.assert_allclose(refined['cross_mean'].vectors[0], mean_vector, atol=1e-6)
    neighbors = expand(index).search(4).check(self_join=True)
    assert (neighbors.ids[[3, 4], 1:] == -1).all() and not np.isin(neighbors.ids[5:], [3, 4]).any()
