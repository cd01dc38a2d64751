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


@pytest.mark.parametrize('kind', BUILT)
def test_is_a_space_like_any_other(kind):
    x, texts = clustered(210), [f'bag {i // 7}' for i in range(210)]
    index, dense = Index(x, kind=kind, recall=1.), Dense(x)
    got, want = (fuse(candidates({'image': space, 'tfidf': Tfidf(texts)}, 8)) for space in (index, dense))
    assert (got.ids[:, :5] == want.ids[:, :5]).mean() > .97
    # parts and more of it are indexes of the same kind, and removed stays removed
    index.remove([4])
    part, more = index.take(np.arange(100)), index.append(dense.take([1, 2]))
    assert part.kind == more.kind == kind and part.removed.tolist() == [i == 4 for i in range(100)]
    assert more.removed.sum() == 1 and len(more) == 212
    for space in (part, more): assert_keeps_promises(space.search(4), space)
    assert index.search(4).ids.shape == (210, 4)


@pytest.mark.parametrize('kind', BUILT)
def test_as_the_catalogue_of_a_pool(kind):
    x, new = clustered(), Dense(clustered(seed=4)[:30])
    got, want = (Pool(new, known).search(8) for known in (Index(x, kind=kind), Dense(x)))
    check_self_first(got.check(), 730)
    assert np.mean([len(set(a) & set(b)) / 8 for a, b in zip(got.ids.tolist(), want.ids.tolist())]) > .9
    assert Pool(new, Index(x, kind=kind)).pool == 730


STEPS = {'none': [], 'augment': [Step('augment', k=3)], 'expand': [Step('expand', k=3)],
         'blend by fused': [Step('blend', threshold=.3, by='fused')],
         'cross_mean': [Step('cross_mean', keys='same', on='image')],
         'all': [Step('blend', threshold=.3, by='fused'), Step('k_reciprocal', k1=3), Step('components')]}
IMAGES, TEXTS = noisy(40, 6, 0, 12), noisy(40, 5, 1)


def shop(rows, new_count, removed, both):
    "Spaces of some listings, the first `new_count` new, the others known; `removed` of these removed."
    spaces = {}
    for name, vectors, kind in (('image', IMAGES, Index), ('title', TEXTS, Index if both else Dense)):
        known = kind(vectors[rows[new_count:]], name)
        if len(removed) and kind is Index: known.remove(removed - new_count)
        spaces[name] = Pool(Dense(vectors[rows[:new_count]], name), known) if new_count else known
    keys = Keys([f'p{i % 9}' for i in rows])
    if new_count: keys = Pool(keys.take(np.arange(new_count)), keys.take(np.arange(new_count, len(rows))))
    return spaces | {'same': keys}


@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('pooled', [False, True])
@pytest.mark.parametrize('both', [False, True])
def test_removed_is_as_if_it_had_never_been(name, pooled, both):
    """Refined, fused, or matched with new listings: as without the listings, also where only one modality
    knows of it."""
    removed = np.array([7, 8, 20, 39])
    kept = np.setdiff1d(np.arange(40), removed)
    steps = STEPS[name]
    # a step by a modality's own neighbors knows what that modality knows
    if name in ('augment', 'expand') and not both:
        steps = [Step(step.do, on='image', **step.params) for step in steps]
    rule = Rule('mean', {'image': .6, 'title': .4}, .35, 40, steps=steps)
    new_count = 5 if pooled else 0
    got = rule.apply(shop(np.arange(40), new_count, removed, both))
    want = rule.apply(shop(kept, new_count, (), both))
    found = {i: set(row.tolist()) for i, row in enumerate(got) if i not in removed}
    assert found == {kept[i]: set(kept[row].tolist()) for i, row in enumerate(want)}
    assert max(map(len, found.values())) > 1
    assert all(got[i].tolist() == [i] for i in removed if i < len(got))


@pytest.mark.parametrize('kind', KINDS)
def test_refined_is_an_index_again(kind):
    "Of its kind, built anew, with what was removed: nothing turns to an exact search of all."
    x = clustered(350)
    index = Index(x, 'pics', kind)
    index.search(5)
    index.remove([3, 4])
    made = {'augment': augment(index), 'blend': blend(index),
            'cross_mean': cross_mean(index, Keys(['a'] * 5 + [None] * 345)),
            'both': ensemble([Dense(x[:, :3]), index], name='both'),
            'behind': Dense(x[:9], 'pics').append(index)}
    for name, space in made.items():
        assert type(space) is Index and space.kind == kind and space._faiss_index is None, name
        removed = (12, 13) if name == 'behind' else (3, 4)
        assert space.remaining.tolist() == [i for i in range(len(space)) if i not in removed], name
        assert_keeps_promises(space.search(5), space)
        assert (space._faiss_index is None) == (kind == 'exact')
    assert made['both'].name == 'both' and made['blend'].name == 'pics'
    assert not np.shares_memory(made['blend'].removed, index.removed)
    # nor does what was removed teach others, or look anybody up
    mean = Dense(Dense(x[:3]).vectors.mean(0)[None]).vectors[0]
    np.testing.assert_allclose(made['cross_mean'].vectors[0], mean, atol=1e-6)
    neighbors = expand(index).search(4).check(self_join=True)
    assert (neighbors.ids[[3, 4], 1:] == -1).all() and not np.isin(neighbors.ids[5:], [3, 4]).any()
