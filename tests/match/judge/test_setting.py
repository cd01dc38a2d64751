"""Where a rule is judged: the listings looked up, their pool, and parts of it, against plain loops over all
pairs."""
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule, Step, among_themselves, in_the_catalogue, row_f1
from fastmatch.match.judge.groups import Groups
from fastmatch.match.judge.setting import Setting
from tests.match.cases import halves_of_one, titles

MEAN = {'image': .5, 'text': .25, 'more': .25}  # of similarities that are quarters: sums without rounding


def some_embeddings(n=24, seed=0, n_groups=8, trained=False, titled=False):
    "Three modalities, their similarities exact quarters and full of ties; groups that say little about them."
    rng = np.random.default_rng(seed)
    vectors = {name: halves_of_one(n, 5, 10 * seed + i) for i, name in enumerate(MEAN)}
    trained_on = np.arange(n) >= n // 3 if trained else None
    texts = titles(n, seed) if titled else None
    return Embeddings(vectors, np.arange(n), texts, rng.integers(0, n_groups, n), trained_on)


def similarity_of(embeddings, rows=None):
    "The fused similarity of all pairs in float64."
    chosen = np.arange(len(embeddings)) if rows is None else rows
    return sum(weight * embeddings[name][chosen].astype(float) @ embeddings[name][chosen].T / 4
               for name, weight in MEAN.items())


def naive_row_f1(similarity, groups, row, threshold):
    "Row F1 of one listing looked up among all."
    found = {other for other in range(len(groups)) if other == row or similarity[row, other] >= threshold}
    true = {other for other in range(len(groups)) if groups[other] == groups[row]}
    return 2 * len(found & true) / (len(found) + len(true))


def assert_as_naive(setting, embeddings, threshold):
    "The rule's row F1 in the setting is that of a double loop over the listings of its pool."
    rule = Rule('mean', MEAN, threshold, k=1000, max_matches=1000)
    actual = row_f1(rule.run(setting.spaces).matches, setting.groups)
    similarity, groups = similarity_of(embeddings, setting.order), embeddings.groups[setting.order]
    expected = [naive_row_f1(similarity, groups, row, threshold) for row in range(len(setting))]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), n_rows=st.integers(1, 23), threshold=st.sampled_from([-.3, .1, .2, .45, .8]))
def test_row_f1_in_a_pool_by_brute_force(seed, n_rows, threshold):
    embeddings = some_embeddings(seed=seed)
    rows = np.zeros(24, bool)
    rows[np.random.default_rng(seed).permutation(24)[:n_rows]] = True
    setting = in_the_catalogue(embeddings, rows)
    assert len(setting) == n_rows and setting.pool == 24
    assert set(setting.order[:n_rows]) == set(np.flatnonzero(rows))
    assert_as_naive(setting, embeddings, threshold)
    assert_as_naive(among_themselves(embeddings), embeddings, threshold)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), pool=st.integers(1, 40), threshold=st.sampled_from([-.3, .1, .2, .45]),
       n_row_groups=st.integers(1, 6))
def test_a_part_keeps_rows_and_whole_groups(seed, pool, threshold, n_row_groups):
    embeddings = some_embeddings(40, seed, n_groups=14)
    rows = (embeddings.groups < n_row_groups) & (np.arange(40) % 3 > 0)
    assume(rows.any())
    setting = in_the_catalogue(embeddings, rows)
    needed = np.isin(embeddings.groups, embeddings.groups[rows]).sum()
    assert setting.needed == needed
    if pool < needed:
        with pytest.raises(InputError, match=f'^pool={pool}: from {needed}'): setting.part(pool, seed)
        return
    part = setting.part(pool, seed)
    assert needed <= part.pool <= pool and len(part) == len(setting)
    assert part.order[:len(part)].tolist() == setting.order[:len(setting)].tolist()
    assert whole_groups(part, embeddings) and same_listings(part, embeddings)
    # what is left out would not have fitted in: at least in the order in which groups were drawn
    left_out = pool - part.pool
    assert left_out < np.bincount(embeddings.groups).max() or part.pool == 40
    assert_as_naive(part, embeddings, threshold)
    assert part.order.tolist() == setting.part(pool, seed).order.tolist()


def whole_groups(setting, embeddings):
    "Whether each group has all of its listings in the setting or none."
    counts = np.bincount(embeddings.groups[setting.order], minlength=embeddings.groups.max() + 1)
    return set(counts[counts > 0] - np.bincount(embeddings.groups)[counts > 0]) == {0}


def same_listings(setting, embeddings):
    "Whether spaces, groups and order speak of the same listings."
    vectors = np.concatenate([space.vectors for space in (setting.spaces['image'].new,
                                                          setting.spaces['image'].catalogue) if space])
    same_vectors = np.array_equal(vectors, embeddings['image'][setting.order] / 2)
    groups = embeddings.groups[setting.order]
    same_groups = (groups[:, None] == groups) == (setting.groups.codes[:, None] == setting.groups.codes)
    return same_vectors and same_groups.all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), n_rows=st.integers(1, 20), threshold=st.sampled_from([-.3, .1, .2, .45]))
@example(seed=455, n_rows=4, threshold=.45)
def test_distractors_never_raise_a_true_set(seed, n_rows, threshold):
    """In a larger pool a listing has the same mates, finds no more of them, and its row F1 is no higher:
    where all are candidates (of the nearest k alone, a distractor can take the place of a wrong one)."""
    embeddings = some_embeddings(40, seed, n_groups=14)
    rows = np.random.default_rng(seed).permutation(40) < n_rows
    whole = in_the_catalogue(embeddings, rows)
    rule = Rule('mean', MEAN, threshold, k=40, max_matches=6)
    found = rule.run(whole.spaces).matches
    part = whole.part(whole.needed)
    found_in_part = rule.run(part.spaces).matches
    assert part.groups.sizes.tolist() == whole.groups.sizes.tolist()
    for row in range(n_rows):
        mates = np.flatnonzero(embeddings.groups == embeddings.groups[whole.order[row]])
        right = set(whole.order[found[row]]) & set(mates)
        assert right <= set(part.order[found_in_part[row]]) & set(mates)
    f1, f1_in_part = row_f1(found, whole.groups), row_f1(found_in_part, part.groups)
    assert (f1 <= f1_in_part + 1e-12).all()


def far_apart(n_far):
    "Listings in a few dimensions, and others in a dimension of their own."
    rng = np.random.default_rng(0)
    vectors = np.zeros((30 + n_far, 4))
    vectors[:30, :3] = rng.normal(size=(30, 3))
    vectors[30:, 3] = 1
    groups = np.concatenate([rng.integers(0, 9, 30), np.arange(100, 100 + n_far)])
    return Embeddings({'image': vectors}, np.arange(30 + n_far), groups=groups)


@pytest.mark.parametrize('steps', [(), (Step('augment', by='fused', k=2),), ('min2',), ('k_reciprocal',)])
def test_a_distractor_far_away_changes_nothing(steps):
    rule = Rule('mean', {'image': 1.}, .6, k=8, steps=steps)
    rows = np.arange(30) < 12
    found = [rule.run(in_the_catalogue(far_apart(n_far), np.append(rows, np.zeros(n_far, bool))).spaces)
             for n_far in (0, 1, 7)]
    for decision in found[1:]:
        assert [ids.tolist() for ids in decision.matches] == [ids.tolist() for ids in found[0].matches]


STEPS = [(), (Step('augment', by='fused', k=2),), (Step('expand', k=3), 'veto'), ('mutual', 'min2'),
         (Step('augment', by={'how': 'mean', 'weights': {'text': 1.}}, k=2), Step('neighbor_mean', k=2))]


@pytest.mark.parametrize('steps', STEPS)
def test_looked_up_in_the_catalogue_as_in_one_matcher_of_all(steps):
    "And the same after listings are added to the catalogue, whether it grows or is made anew."
    embeddings = some_embeddings(60, 3, n_groups=20, titled=True)
    rows = np.arange(60) % 3 == 0
    setting = in_the_catalogue(embeddings, rows)
    rule = Rule('mean', {**MEAN, 'tfidf': .5}, .4, k=20, steps=steps)
    found = rule.run(setting.spaces).matches
    everything = {**embeddings.spaces(), **embeddings.spaces(only=('units', 'titles'))}
    in_order = {name: space.take(setting.order) for name, space in everything.items()}
    for ids, expected in zip(found, rule.run(in_order).matches, strict=False):
        assert ids.tolist() == expected.tolist()
    grown = {name: space.take(setting.order[:40]).append(space.take(setting.order[40:]))
             for name, space in everything.items()}
    assert [ids.tolist() for ids in rule.run(grown).matches] == \
        [ids.tolist() for ids in rule.run(in_order).matches]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), share=st.floats(0, 1), threshold=st.sampled_from([-.3, .1, .45]))
def test_without_mates(seed, share, threshold):
    embeddings = some_embeddings(40, seed, n_groups=14)
    rows = np.random.default_rng(seed).permutation(40) < 15
    setting = in_the_catalogue(embeddings, rows)
    matchless = setting.without_mates(share, seed)
    kept, row_groups = embeddings.groups[matchless.order], np.unique(embeddings.groups[rows])
    counts, counts_before = (np.bincount(groups, minlength=15) for groups in (kept, embeddings.groups))
    changed = np.flatnonzero(counts != counts_before)
    # of the groups of the rows alone, and what stays of one is one row
    assert set(changed) <= set(row_groups) and (counts[changed] == 1).all()
    n_chosen = round(share * len(row_groups))
    assert len(changed) <= n_chosen
    assert len(changed) >= n_chosen - (counts_before[row_groups] == 1).sum()
    assert rows[matchless.order[:len(matchless)]].all() and not rows[matchless.order[len(matchless):]].any()
    assert set(np.unique(kept[:len(matchless)])) == set(row_groups)
    assert_as_naive(matchless, embeddings, threshold)


def test_without_mates_at_its_ends():
    embeddings = some_embeddings(40, 1, n_groups=14)
    setting = among_themselves(embeddings)
    unchanged = setting.without_mates(0)
    assert unchanged.order.tolist() == setting.order.tolist()
    alone = setting.without_mates(1)
    assert len(alone) == len(np.unique(embeddings.groups)) and (alone.groups.sizes == 1).all()
    rule = Rule('mean', MEAN, 1.01)
    assert row_f1(rule.run(alone.spaces).matches, alone.groups).mean() == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), pool=st.integers(1, 40), share=st.sampled_from([.2, .6, 1.]))
def test_dealt_parts_are_whole_groups_once(seed, pool, share):
    embeddings = some_embeddings(40, seed, n_groups=14)
    rows = np.random.default_rng(seed).random(40) < share
    rows[0] = True
    setting = among_themselves(embeddings) if rows.all() else in_the_catalogue(embeddings, rows)
    parts = setting.dealt(pool, seed)
    listings = [listing for part in parts for listing in part.order]
    assert len(set(listings)) == len(listings)
    largest = np.bincount(embeddings.groups).max()
    for part in parts:
        assert len(part) and whole_groups(part, embeddings) and part.pool <= pool + largest
        assert rows[part.order[:len(part)]].all() and not rows[part.order[len(part):]].any()
        assert_as_naive(part, embeddings, .2)
    if pool == 40: assert [part.pool for part in parts] == [40]
    # of listings that are all looked up, all are in a part but a remainder that is too few for another
    if rows.all() and pool >= largest: assert len(listings) >= 40 - pool - largest
    assert [part.order.tolist() for part in setting.dealt(pool, seed)] == [
        part.order.tolist() for part in parts
    ]


def test_what_a_setting_is_made_of():
    embeddings = some_embeddings(24, titled=True)
    embeddings.phash = np.array(['a'] * 24, object)
    setting = in_the_catalogue(embeddings, np.arange(24) < 7)
    assert setting.modalities == (*MEAN, 'tfidf') and setting.keys == ('phash',)
    assert {*setting.spaces} == {*MEAN, 'tfidf', 'phash', 'units', 'titles'}
    assert repr(setting) == "Setting('in the catalogue': 7 listings, a pool of 24)"
    assert in_the_catalogue(embeddings, np.arange(24) < 7, only=('image',)).modalities == ('image',)
    without_titles = Embeddings({'image': np.eye(3)}, list('abc'), groups=[0, 0, 1])
    assert {*among_themselves(without_titles).spaces} == {'image'}


def trained(): return some_embeddings(trained=True)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: among_themselves(trained()), '^16 of 24 listings were trained on .*: judging a rule'),
        (lambda: in_the_catalogue(trained(), np.arange(24) < 10), '^rows: 2 listings were trained on'),
        (lambda: in_the_catalogue(trained(), np.zeros(24, bool)), '^rows: no listing is looked up'),
        (lambda: in_the_catalogue(some_embeddings(), np.ones(24, bool)), '^rows: all listings are looked up'),
        (
            lambda: in_the_catalogue(trained(), np.arange(8)),
            r'^rows of dtype int64, shape \(8,\): give bool \(24,\)',
        ),
        (lambda: in_the_catalogue(trained(), np.ones(23, bool)), r'shape \(23,\)'),
        (
            lambda: among_themselves(Embeddings({'image': np.eye(2)}, list('ab'))),
            '^the listings have no groups',
        ),
        (lambda: among_themselves(some_embeddings()).part(25), '^pool=25: from 24, .* to 24'),
        (lambda: among_themselves(some_embeddings()).part(0), '^pool=0: from 24'),
        (lambda: among_themselves(some_embeddings()).dealt(0), '^pool=0: from 1 to 24'),
        (lambda: among_themselves(some_embeddings()).dealt(25), '^pool=25: from 1 to 24'),
        *(
            (
                lambda share=share: among_themselves(some_embeddings()).without_mates(share),
                '^matchless=.*from 0 to 1',
            )
            for share in (-0.1, 1.1, True, 'half', None, np.nan)
        ),
        (lambda: Setting('', {}, Groups([0]), np.arange(1)), '^setting: spaces'),
        (
            lambda: Setting('', among_themselves(some_embeddings()).spaces, Groups([0, 1]), np.arange(2)),
            r"^setting: spaces of \(rows, pool\) .*'image': \(24, 24\).* groups of \(2, 2\)",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(InputError, match=message): make()
