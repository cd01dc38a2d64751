"The held-out protocol against a double loop."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Tfidf,
    alone,
    alone_heldout,
    candidates,
    heldout,
    heldout_fused,
    map_at_r,
    paired,
    recall_at,
)
from fastmatch.match.judge.heldout import random_halves
from tests.match.cases import cases, noisy, titles
from tests.reference import match as reference


def by_first_appearance(groups):
    seen = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.array([seen[group] for group in groups])


def naive(options, groups, clusters, halvings, seed, max_matches=50):
    masks = list(random_halves(by_first_appearance(clusters), halvings, seed))
    plain = {name: tuple(neighbors) for name, neighbors in options.items()}
    return reference.heldout(plain, list(groups), masks, max_matches)


@settings(max_examples=60, deadline=None)
@given(case=cases(smallest=3), halvings=st.integers(1, 4), seed=st.integers(0, 9),
       max_matches=st.sampled_from([1, 3, 50]), larger=st.booleans())
def test_one_option_against_a_double_loop(case, halvings, seed, max_matches, larger):
    neighbors, groups = case
    clusters = (np.asarray(groups) // 2 + 7) if larger else groups
    if len(set(clusters)) < 2: return
    names = [f'g{group}' for group in groups]
    got = heldout(neighbors, names, clusters if larger else None, halvings, seed, max_matches)
    wanted, picks = naive({'': neighbors}, groups, list(clusters), halvings, seed, max_matches)
    np.testing.assert_allclose(got.row_f1, wanted, atol=1e-12)
    assert got.picks == picks and len(picks) == 2 * halvings
    np.testing.assert_allclose(got.recall_at_1, recall_at(neighbors, groups), atol=1e-12)
    np.testing.assert_allclose(got.map_at_r, map_at_r(neighbors, groups), atol=1e-12)
    assert got.mean == pytest.approx(wanted.mean())
    assert got.se == pytest.approx(reference.cluster_se(wanted, list(clusters)), abs=1e-12)


def listings(n=40, seed=0):
    "Two spaces around the centers of the groups, the first the better one, and the groups."
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 3, n)
    centers = rng.normal(size=(n, 6))
    first = Dense(centers[groups] + rng.normal(size=(n, 6)) * .7)
    return first, Dense(centers[groups] + rng.normal(size=(n, 6))), groups


@pytest.mark.parametrize('seed', [7, 9])
def test_several_options_against_a_double_loop(seed):
    first, _, groups = listings(seed=seed)
    # nearly as good as the first, so that some halves take it
    noise = np.random.default_rng(seed + 100).normal(size=first.vectors.shape)
    close = Dense(first.vectors + noise * .15)
    options = {'a': first.search(8), 'close': close.search(12), 'again': first.search(8),
               'tfidf': Tfidf(titles(40, seed)).search(5)}
    got = heldout(options, groups, halvings=5, seed=seed)
    wanted, picks = naive(options, groups, list(groups), 5, seed)
    np.testing.assert_allclose(got.row_f1, wanted, atol=1e-12)
    assert got.picks == picks and {option for option, _ in picks} == {'a', 'close'}
    recall = {name: recall_at(neighbors, groups) for name, neighbors in options.items()}
    precision = {name: map_at_r(neighbors, groups) for name, neighbors in options.items()}
    for scores, of_option in ((got.recall_at_1, recall), (got.map_at_r, precision)):
        total = np.zeros(40)
        for i, mask in enumerate(random_halves(by_first_appearance(groups), 5, seed)):
            # the first half is scored by what was chosen on the second, and the other way round
            on_first, on_second = picks[2 * i], picks[2 * i + 1]
            total += np.where(mask, of_option[on_second[0]], of_option[on_first[0]])
        np.testing.assert_allclose(scores, total / 5, atol=1e-12)


@pytest.mark.parametrize('sizes', [[1, 1], [3, 1, 2], [2] * 9 + [5]])
def test_halves_keep_groups_together(sizes):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    masks = list(random_halves(groups, 20, 3))
    assert len(masks) == 20 and (len(sizes) < 3 or len({mask.tobytes() for mask in masks}) > 1)
    for mask in masks:
        inside = {int(group) for group in groups[mask]}
        assert len(inside) == len(sizes) // 2 and not inside & set(groups[~mask].tolist())
    assert all((mask == again).all() for mask, again in zip(masks, random_halves(groups, 20, 3)))
    assert any((mask != other).any() for mask, other in zip(masks, random_halves(groups, 20, 4)))


def test_the_groups_never_help_their_own_half():
    "Random scores: on its own half a threshold would be chosen that pays there, held out it doesn't pay."
    rng = np.random.default_rng(0)
    space, groups = Dense(rng.normal(size=(60, 30))), np.arange(60) // 2
    got = heldout(space.search(10), groups, halvings=5)
    assert got.mean <= alone(groups).mean() + .01


def test_summary():
    space, _, groups = listings()
    groups[groups == groups[0]] = 999
    got = heldout(space.search(9), groups)
    summary = got.summary()
    assert set(summary) == {'row_f1', 'se', 'recall_at_1', 'map_at_r', 'n'} and summary['n'] == 40
    assert summary['row_f1'] == round(got.row_f1.mean(), 5) and summary['se'] == round(got.se, 5)
    assert summary['recall_at_1'] == round(np.nanmean(recall_at(space.search(9), groups)), 5)
    assert summary['map_at_r'] == round(np.nanmean(map_at_r(space.search(9), groups)), 5)
    assert all(type(value) in (int, float) for value in summary.values())
    assert f'{got.mean:.3f}' in repr(got) and 'n=40' in repr(got)
    lonely = alone_heldout(list('aabc'))
    assert lonely.row_f1.tolist() == alone(list('aabc')).tolist()
    wanted = {'row_f1': round(10 / 12, 5), 'recall_at_1': None, 'map_at_r': None, 'n': 4}
    assert {name: value for name, value in lonely.summary().items() if name != 'se'} == wanted
    assert 'mostly' not in repr(lonely)
    without_mates = heldout(space.search(3), np.arange(40)).summary()
    assert without_mates['recall_at_1'] is None and without_mates['map_at_r'] is None


def test_refuses():
    space, _, groups = listings()
    neighbors = space.search(5)
    few = Dense(np.ones((3, 2))).search(2)
    for args, words in [
            ((neighbors, [1] * 40), 'one group only'), ((neighbors, groups, [1] * 40), 'one group only'),
            (({}, groups), 'options'), ((neighbors, groups[:-1]), 'give 40'),
            ((neighbors, groups, groups[:-1]), '^clusters .*give 40'),
            (({'a': neighbors, 'b': few}, groups), 'give 3'),
            (({'a': 5}, groups), "option 'a' is of type int")]:
        with pytest.raises(InputError, match=words): heldout(*args)
    with pytest.raises(InputError, match='halvings=0'): heldout(neighbors, groups, halvings=0)
    with pytest.raises(InputError, match='max_matches=0'): heldout(neighbors, groups, max_matches=0)


def test_a_group_cut_by_clusters_is_refused():
    space, _, groups = listings()
    with pytest.raises(InputError, match='cut through a group'):
        heldout(space.search(5), np.zeros(len(groups), int), np.arange(len(groups)))


def test_options_may_come_one_by_one():
    first, second, groups = listings()
    options = {'a': first.search(9), 'b': second.search(9)}
    got = heldout(((name, neighbors) for name, neighbors in options.items()), groups)
    np.testing.assert_array_equal(got.row_f1, heldout(options, groups).row_f1)
    with pytest.raises(InputError, match='one at least'): heldout({}, groups)


def test_emoji_titles_untrained(real_data):
    "What data/README.md promises of untrained character TF-IDF on fold 0: .683, every listing alone .517."
    import pandas as pd
    df = pd.read_csv(real_data/'emoji'/'listings.csv', keep_default_na=False).query('fold == 0')
    got = heldout(Tfidf(df.title).search(50), df.label_group)
    lonely = alone_heldout(df.label_group)
    assert len(df) == 463
    assert got.mean == pytest.approx(.683, abs=.02) and lonely.mean == pytest.approx(.517, abs=.001)
    assert got.se == pytest.approx(.017, abs=.004) and paired(got, lonely).low > .1
    # noise as a second modality is left aside by the choice
    found = candidates({'noise': Dense(noisy(463, 16, 0)), 'tfidf': Tfidf(df.title)}, 20)
    assert heldout_fused(found, df.label_group, halvings=2).mean > got.mean - .03
