"The held-out protocol over ways to fuse, and the rule that is chosen among them."

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Tfidf,
    best_threshold,
    candidates,
    choose_rule,
    fuse,
    fusion_grid,
    heldout,
    heldout_fused,
    row_f1,
)
from fastmatch.match.judge.choose import FusionOption
from tests.match.cases import noisy, titles
from tests.reference import match as reference


def two_modalities(n=30, seed=0):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 3, n)
    centers = rng.normal(size=(n, 6))
    first = Dense(centers[groups] + rng.normal(size=(n, 6)) * .7)
    return candidates({'a': first, 'b': Dense(centers[groups] + rng.normal(size=(n, 6)))}, n), groups


def test_fused_is_heldout_over_the_grid():
    scored_candidates, groups = two_modalities()
    actual = heldout_fused(scored_candidates, groups, halvings=2)
    options = {(how, tuple(weights.items())): fuse(scored_candidates, how, weights)
               for how, weights in fusion_grid('ab')}
    expected = heldout(options, groups, halvings=2)
    np.testing.assert_array_equal(actual.row_f1, expected.row_f1)
    assert actual.picks == expected.picks
    assert all(how in ('mean', 'prob_or') for (how, _), _ in actual.picks)
    of_one_option = heldout_fused(scored_candidates, groups, [('mean', {'b': 1.})], halvings=2)
    expected = heldout(fuse(scored_candidates, 'mean', {'b': 1.}), groups, halvings=2)
    np.testing.assert_array_equal(of_one_option.row_f1, expected.row_f1)


def test_an_option_and_its_tuple_are_one():
    scored_candidates, groups = two_modalities()
    tuples = fusion_grid('ab', ('power', 'mean'))
    options = [FusionOption.of(option) for option in tuples]
    assert [FusionOption.of(option) for option in options] == options
    assert heldout_fused(scored_candidates, groups, options, halvings=2).picks == \
        heldout_fused(scored_candidates, groups, tuples, halvings=2).picks
    assert choose_rule(scored_candidates, groups, options) == choose_rule(scored_candidates, groups, tuples)
    power = FusionOption('power', {'a': .6, 'b': .9}, {'power': 2.})
    assert power.key == ('power', (('a', .6), ('b', .9)), (('power', 2.),))
    assert FusionOption('mean', {'a': 1.}).key == ('mean', (('a', 1.),))
    expected = fuse(scored_candidates, 'power', {'a': .6, 'b': .9}, power=2.)
    np.testing.assert_array_equal(power.fuse(scored_candidates).scores, expected.scores)


def test_the_rule_is_the_best_of_the_grid():
    scored_candidates, groups = two_modalities()
    grid = fusion_grid('ab', ('power', 'square'))
    rule = choose_rule(scored_candidates, groups, grid, max_matches=5)
    options = [FusionOption.of(option) for option in grid]
    best_by_option = {option.key: best_threshold(option.fuse(scored_candidates), groups, max_matches=5)
                      for option in options}
    chosen = best_by_option[FusionOption(rule.how, rule.weights, rule.options).key]
    assert chosen == max(best_by_option.values(), key=lambda pair: pair[1])
    assert rule.threshold == chosen[0]
    assert rule.score == {'row_f1_chosen_on': round(max(value for _, value in best_by_option.values()), 5)}
    assert rule.max_matches == 5 and rule.k == scored_candidates.k
    with pytest.raises(InputError, match='grid: give one'): choose_rule(scored_candidates, groups, [])


SPACES = {'image': Dense(noisy(60, 6, 0, 60)), 'tfidf': Tfidf(titles(60, 0))}
GROUPS = np.random.default_rng(1).integers(0, 20, 60)


def test_choose_rule_takes_the_best_of_the_grid():
    scored_candidates = candidates(SPACES, 60)
    grid = [('mean', {'image': 1.}), ('mean', {'tfidf': 1.}), ('prob_or', {'image': 2., 'tfidf': 1.}),
            ('union', {'image': .5, 'tfidf': .3})]
    best_values = []
    similarities = {
        modality: np.array(space.scores(np.arange(60)[:, None], np.arange(60)), np.float64)
        for modality, space in SPACES.items()
    }
    for how, weights in grid:
        ids, scores = reference.nearest(reference.fuse(similarities, how, weights), 60)
        best = reference.best_threshold(ids, scores.astype(np.float32), GROUPS, range(60), 50)
        best_values.append(best[1])
    rule = choose_rule(scored_candidates, GROUPS, grid)
    assert (rule.how, rule.weights) == grid[int(np.argmax(best_values))]
    assert rule.score['row_f1_chosen_on'] == pytest.approx(max(best_values), abs=2e-3)


def test_choose_rule_among_more_fusions():
    scored_candidates = candidates(SPACES, 60)
    modalities = list(SPACES)
    grid = fusion_grid(modalities, ('power', 'square', 'joint'))
    assert (
        len(grid) == 2 * 11 + 2 * 3**2
        and {option[0] for option in grid} == {'power', 'square', 'joint'}
        and all(len(option) == 2 + (option[0] == 'power') for option in grid)
    )
    for options in (grid, [option for option in grid if option[0] == 'power']):
        rule = choose_rule(scored_candidates, GROUPS, options)
        best_value = max(
            best_threshold(fuse(scored_candidates, how, weights, **dict(*fusion_options)), GROUPS)[1]
            for how, weights, *fusion_options in options
        )
        assert (
            rule.score['row_f1_chosen_on']
            == round(best_value, 5)
            == round(row_f1(rule.apply(SPACES), GROUPS).mean(), 5)
        )
        assert (rule.how, rule.weights, *([rule.options] if rule.options else [])) in options
    picks = heldout_fused(scored_candidates, GROUPS, grid, halvings=2).picks
    assert {option[0] for option, _ in picks} <= {'power', 'square', 'joint'}
    with pytest.raises(InputError, match='union'): fusion_grid(modalities, ('union',))
