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
from fastmatch.match.judge.score import recall_and_precision
from tests.match.cases import cases, noisy, titles
from tests.reference import match as reference


def by_first_appearance(groups):
    code_of_group = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    return np.array([code_of_group[group] for group in groups])


def naive(options, groups, clusters, halvings, seed, max_matches=50):
    masks = list(random_halves(by_first_appearance(clusters), halvings, seed))
    plain_options = {name: tuple(neighbors) for name, neighbors in options.items()}
    return reference.heldout(plain_options, list(groups), masks, max_matches)


@settings(max_examples=60, deadline=None)
@given(random_case=cases(smallest=3), halvings=st.integers(1, 4), seed=st.integers(0, 9),
       max_matches=st.sampled_from([1, 3, 50]), larger_clusters=st.booleans())
def test_one_option_against_a_double_loop(random_case, halvings, seed, max_matches, larger_clusters):
    neighbors, groups = random_case
    clusters = (np.asarray(groups) // 2 + 7) if larger_clusters else groups
    if len(set(clusters)) < 2: return
    group_names = [f'g{group}' for group in groups]
    given_clusters = clusters if larger_clusters else None
    actual = heldout(neighbors, group_names, given_clusters, halvings, seed, max_matches)
    expected, picks = naive({'': neighbors}, groups, list(clusters), halvings, seed, max_matches)
    np.testing.assert_allclose(actual.row_f1, expected, atol=1e-12)
    assert actual.picks == picks and len(picks) == 2 * halvings
    recall, precision = recall_and_precision(neighbors, groups)
    np.testing.assert_allclose(actual.recall_at_1, recall, atol=1e-12)
    np.testing.assert_allclose(actual.map_at_r, precision, atol=1e-12)
    assert actual.mean == pytest.approx(expected.mean())
    factor = 1.1 * np.sqrt(1 + 2.2 / np.sqrt(len(set(clusters))))
    assert actual.se == pytest.approx(factor * reference.cluster_se(expected, list(clusters)), abs=1e-12)


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
    close_space = Dense(first.vectors + noise * .15)
    options = {'a': first.search(9), 'close': close_space.search(12), 'again': first.search(9),
               'tfidf': Tfidf(titles(40, seed)).search(9)}
    actual = heldout(options, groups, halvings=5, seed=seed)
    expected, picks = naive(options, groups, list(groups), 5, seed)
    np.testing.assert_allclose(actual.row_f1, expected, atol=1e-12)
    assert actual.picks == picks and {option for option, _ in picks} == {'a', 'close'}
    recalls = {name: recall_at(neighbors, groups) for name, neighbors in options.items()}
    precisions = {name: map_at_r(neighbors, groups) for name, neighbors in options.items()}
    for actual_scores, option_scores in ((actual.recall_at_1, recalls), (actual.map_at_r, precisions)):
        total = np.zeros(40)
        for halving, mask in enumerate(random_halves(by_first_appearance(groups), 5, seed)):
            # the first half is scored by what was chosen on the second, and the other way round
            on_first, on_second = picks[2 * halving], picks[2 * halving + 1]
            total += np.where(mask, option_scores[on_second[0]], option_scores[on_first[0]])
        np.testing.assert_allclose(actual_scores, total / 5, atol=1e-12)


@pytest.mark.parametrize('sizes', [[1, 1], [3, 1, 2], [2] * 9 + [5]])
def test_halves_keep_groups_together(sizes):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    sides = list(random_halves(groups, 20, 3))
    assert len(sides) == 20 and (len(sizes) < 3 or len({on_side.tobytes() for on_side in sides}) > 1)
    for on_side in sides:
        groups_inside = {int(group) for group in groups[on_side]}
        assert len(groups_inside) == len(sizes) // 2 and not groups_inside & set(groups[~on_side].tolist())
    same_seed, other_seed = random_halves(groups, 20, 3), random_halves(groups, 20, 4)
    assert all((on_side == again).all() for on_side, again in zip(sides, same_seed))
    assert any((on_side != other).any() for on_side, other in zip(sides, other_seed))


def test_the_groups_never_help_their_own_half():
    "Random scores: on its own half a threshold would be chosen that pays there, held out it doesn't pay."
    rng = np.random.default_rng(0)
    space, groups = Dense(rng.normal(size=(60, 30))), np.arange(60) // 2
    actual = heldout(space.search(10), groups, halvings=5)
    assert actual.mean <= alone(groups).mean() + .01


def test_summary():
    space, _, groups = listings()
    groups[groups == groups[0]] = 999
    actual = heldout(space.search(9), groups)
    summary = actual.summary()
    assert set(summary) == {'row_f1', 'se', 'recall_at_1', 'map_at_r', 'n'} and summary['n'] == 40
    assert summary['row_f1'] == round(actual.row_f1.mean(), 5) and summary['se'] == round(actual.se, 5)
    assert summary['recall_at_1'] == round(np.nanmean(recall_at(space.search(9), groups)), 5)
    assert summary['map_at_r'] == round(np.nanmean(map_at_r(space.search(9), groups)), 5)
    assert all(type(value) in (int, float) for value in summary.values())
    assert f'{actual.mean:.3f}' in repr(actual) and 'n=40' in repr(actual)
    all_alone = alone_heldout(list('aabc'))
    assert all_alone.row_f1.tolist() == alone(list('aabc')).tolist()
    expected = {'row_f1': round(10 / 12, 5), 'recall_at_1': None, 'map_at_r': None, 'n': 4}
    assert {name: value for name, value in all_alone.summary().items() if name != 'se'} == expected
    assert 'mostly' not in repr(all_alone)
    without_mates = heldout(space.search(3), np.arange(40)).summary()
    assert without_mates['recall_at_1'] is None and without_mates['map_at_r'] is None


def test_refuses():
    space, _, groups = listings()
    neighbors = space.search(5)
    of_fewer_listings = Dense(np.ones((3, 2))).search(2)
    for args, message in [
            ((neighbors, [1] * 40), 'one group only'), ((neighbors, groups, [1] * 40), 'one group only'),
            (({}, groups), 'options'), ((neighbors, groups[:-1]), 'give 40'),
            ((neighbors, groups, groups[:-1]), '^clusters .*give 40'),
            (({'a': neighbors, 'b': of_fewer_listings}, groups), 'give 3'),
            (({'a': 5}, groups), "option 'a' is of type int")]:
        with pytest.raises(InputError, match=message): heldout(*args)
    with pytest.raises(InputError, match='halvings=0'): heldout(neighbors, groups, halvings=0)
    with pytest.raises(InputError, match='max_matches=0'): heldout(neighbors, groups, max_matches=0)


def test_a_group_cut_by_clusters_is_refused():
    space, _, groups = listings()
    with pytest.raises(InputError, match='cut through a group'):
        heldout(space.search(5), np.zeros(len(groups), int), np.arange(len(groups)))


def test_options_may_come_one_by_one():
    first, second, groups = listings()
    options = {'a': first.search(9), 'b': second.search(9)}
    actual = heldout(((name, neighbors) for name, neighbors in options.items()), groups)
    np.testing.assert_array_equal(actual.row_f1, heldout(options, groups).row_f1)
    with pytest.raises(InputError, match='one at least'): heldout({}, groups)


def test_emoji_titles_untrained(real_data):
    "What data/README.md promises of untrained character TF-IDF on fold 0: .683, every listing alone .517."
    import pandas as pd
    df = pd.read_csv(real_data/'emoji'/'listings.csv', keep_default_na=False).query('fold == 0')
    actual = heldout(Tfidf(df.title).search(50), df.label_group)
    all_alone = alone_heldout(df.label_group)
    assert len(df) == 463
    assert actual.mean == pytest.approx(.683, abs=.02) and all_alone.mean == pytest.approx(.517, abs=.001)
    assert actual.se == pytest.approx(.017, abs=.004) and paired(actual, all_alone).low > .1
    # noise as a second modality is left aside by the choice
    scored_candidates = candidates({'noise': Dense(noisy(463, 16, 0)), 'tfidf': Tfidf(df.title)}, 20)
    assert heldout_fused(scored_candidates, df.label_group, halvings=2).mean > actual.mean - .03
