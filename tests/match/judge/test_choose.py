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
from tests.reference import match as ref


def two_modalities(n=30, seed=0):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, n // 3, n)
    centers = rng.normal(size=(n, 6))
    first = Dense(centers[groups] + rng.normal(size=(n, 6)) * .7)
    return candidates({'a': first, 'b': Dense(centers[groups] + rng.normal(size=(n, 6)))}, n), groups


def test_fused_is_heldout_over_the_grid():
    found, groups = two_modalities()
    got = heldout_fused(found, groups, halvings=2)
    options = {(how, tuple(weights.items())): fuse(found, how, weights) for how, weights in fusion_grid('ab')}
    wanted = heldout(options, groups, halvings=2)
    np.testing.assert_array_equal(got.row_f1, wanted.row_f1)
    assert got.picks == wanted.picks and all(option[0] in ('mean', 'prob_or') for option, _ in got.picks)
    one = heldout_fused(found, groups, [('mean', {'b': 1.})], halvings=2)
    wanted = heldout(fuse(found, 'mean', {'b': 1.}), groups, halvings=2)
    np.testing.assert_array_equal(one.row_f1, wanted.row_f1)


def test_an_option_and_its_tuple_are_one():
    found, groups = two_modalities()
    tuples = fusion_grid('ab', ('power', 'mean'))
    options = [FusionOption.of(option) for option in tuples]
    assert [FusionOption.of(option) for option in options] == options
    assert heldout_fused(found, groups, options, halvings=2).picks == \
        heldout_fused(found, groups, tuples, halvings=2).picks
    assert choose_rule(found, groups, options) == choose_rule(found, groups, tuples)
    power = FusionOption('power', {'a': .6, 'b': .9}, {'power': 2.})
    assert power.key == ('power', (('a', .6), ('b', .9)), (('power', 2.),))
    assert FusionOption('mean', {'a': 1.}).key == ('mean', (('a', 1.),))
    wanted = fuse(found, 'power', {'a': .6, 'b': .9}, power=2.)
    np.testing.assert_array_equal(power.fuse(found).scores, wanted.scores)


def test_the_rule_is_the_best_of_the_grid():
    found, groups = two_modalities()
    grid = fusion_grid('ab', ('power', 'square'))
    rule = choose_rule(found, groups, grid, max_matches=5)
    options = [FusionOption.of(option) for option in grid]
    best = {option.key: best_threshold(option.fuse(found), groups, max_matches=5) for option in options}
    chosen = best[FusionOption(rule.how, rule.weights, rule.options).key]
    assert chosen == max(best.values(), key=lambda pair: pair[1])
    assert rule.threshold == chosen[0]
    assert rule.score == {'row_f1_chosen_on': round(max(value for _, value in best.values()), 5)}
    assert rule.max_matches == 5 and rule.k == found.k
    with pytest.raises(InputError, match='grid: give one'): choose_rule(found, groups, [])


SPACES = {'image': Dense(noisy(60, 6, 0, 60)), 'tfidf': Tfidf(titles(60, 0))}


LABELS = np.random.default_rng(1).integers(0, 20, 60)


def test_choose_rule_takes_the_best_of_the_grid():
    scored = candidates(SPACES, 60)
    grid = [('mean', {'image': 1.}), ('mean', {'tfidf': 1.}), ('prob_or', {'image': 2., 'tfidf': 1.}),
            ('union', {'image': .5, 'tfidf': .3})]
    values = []
    sims = {
        name: np.array(item.scores(np.arange(60)[:, None], np.arange(60)), np.float64)
        for name, item in SPACES.items()
    }
    for how, weights in grid:
        full = ref.nearest(ref.fuse(sims, how, weights), 60)
        values.append(ref.best_threshold(full[0], full[1].astype(np.float32), LABELS, range(60), 50)[1])
    rule = choose_rule(scored, LABELS, grid)
    assert (rule.how, rule.weights) == grid[int(np.argmax(values))]
    assert rule.score['row_f1_chosen_on'] == pytest.approx(max(values), abs=2e-3)


def test_choose_rule_among_more_fusions():
    scored = candidates(SPACES, 60)
    names = list(SPACES)
    grid = fusion_grid(names, ('power', 'square', 'joint'))
    assert (
        len(grid) == 2 * 11 + 2 * 3**2
        and {item[0] for item in grid} == {'power', 'square', 'joint'}
        and all(len(item) == 2 + (item[0] == 'power') for item in grid)
    )
    for part in (grid, [item for item in grid if item[0] == 'power']):
        rule = choose_rule(scored, LABELS, part)
        best = max(
            best_threshold(fuse(scored, how, weights, **dict(*more)), LABELS)[1]
            for how, weights, *more in part
        )
        assert (
            rule.score['row_f1_chosen_on']
            == round(best, 5)
            == round(row_f1(rule.apply(SPACES), LABELS).mean(), 5)
        )
        assert (rule.how, rule.weights, *([rule.options] if rule.options else [])) in part
    assert {pick[0][0] for pick in heldout_fused(scored, LABELS, grid, halvings=2).picks} <= {
        'power',
        'square',
        'joint',
    }
    with pytest.raises(InputError, match='union'): fusion_grid(names, ('union',))
