"""Thresholds over the size of the pool: between and beyond the sizes, kept as json, in a rule that is carried
out."""
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Pool, PoolThresholds, Rule, Step, Tfidf, Units
from tests.match.cases import noisy, titles
from tests.match.pairs.test_rule_pairs import fitted_rule

POOLS = PoolThresholds((100, 400, 1600, 3200), (.3, .4, .44, .5), .02, measured=1600)
WEIGHTS = {'image': .5, 'tfidf': .5}


@pytest.mark.parametrize('pool, expected', [
    (100, .3), (400, .4), (1600, .44), (3200, .5), (200, .35), (800, .42), (1, .3), (99, .3), (6400, .52),
    (3200 * 8, .56), (np.int64(400), .4)])
def test_at(pool, expected): assert POOLS.at(pool) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True), st.data())
def test_between_its_neighbors(sizes, data):
    "It goes through the points, is never outside of the two beside it, and rises where they do."
    sizes = sorted(sizes)
    thresholds = sorted(data.draw(st.lists(st.floats(-1, 1), min_size=len(sizes), max_size=len(sizes))))
    pools = PoolThresholds(sizes, thresholds, per_doubling=data.draw(st.floats(0, .1)))
    assert [pools.at(size) for size in sizes] == pytest.approx(thresholds, abs=1e-9)
    asked = sorted(data.draw(st.lists(st.integers(1, 10**7), min_size=2, max_size=5)))
    given_thresholds = [pools.at(pool) for pool in asked]
    assert (np.diff(given_thresholds) >= -1e-9).all()
    for pool, threshold in zip(asked, given_thresholds):
        if pool <= sizes[-1]: assert thresholds[0] - 1e-9 <= threshold <= thresholds[-1] + 1e-9
        assert pools.extrapolates(pool) == (pool < sizes[0] or pool > sizes[-1])


def test_what_was_measured():
    assert [POOLS.extrapolates(pool) for pool in (99, 100, 1600, 1601, 3200)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert PoolThresholds((5, 6), (.1, .2)).measured == 6


def test_kept_as_json():
    saved = json.loads(json.dumps(POOLS.to_dict()))
    assert PoolThresholds.of(saved) == POOLS and PoolThresholds.of(POOLS) is POOLS
    assert PoolThresholds.of(None) is None
    del saved['measured']
    assert PoolThresholds.of(saved).measured == 3200


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(sizes=(), thresholds=()), '0 sizes, 0 thresholds'),
        (dict(sizes=(1, 2), thresholds=(0.1,)), '2 sizes, 1 thresholds'),
        (dict(sizes=(0, 2), thresholds=(0.1, 0.2)), r'sizes=\[0, 2\]: whole numbers from 1 that rise'),
        (dict(sizes=(2, 2), thresholds=(0.1, 0.2)), 'that rise'),
        (dict(sizes=(3, 2), thresholds=(0.1, 0.2)), 'that rise'),
        (dict(sizes=(1,), thresholds=(np.nan,)), 'finite'),
        (dict(sizes=(1,), thresholds=(0.1,), per_doubling=np.inf), 'finite'),
        (dict(sizes=(1, 2), thresholds=(0.1, 0.2), measured=3), 'measured=3: give one of the sizes'),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(InputError, match=f'^pools: .*{message}'): PoolThresholds(**fields)


@pytest.mark.parametrize('saved', [{}, {'sizes': [1]}, [1], 'x', {**POOLS.to_dict(), 'more': 1}])
def test_refuses_what_was_not_saved_by_it(saved):
    with pytest.raises(InputError, match='^pools='): PoolThresholds.of(saved)


@pytest.mark.parametrize('pool', [0, -1, True, 2., '3', None, np.float64(3)])
def test_a_pool_is_a_whole_number_from_1(pool):
    rules = Rule('mean', WEIGHTS, .4), Rule('mean', WEIGHTS, .4, pools=POOLS)
    for ask in (POOLS.at, *(rule.at for rule in rules)):
        with pytest.raises(InputError, match='^pool=.*: give the number of listings'): ask(pool)


def test_the_rule_for_a_pool():
    rule = Rule('mean', WEIGHTS, .44, steps=['veto', Step('min2', threshold=.2, gap=.1)], pools=POOLS)
    larger = rule.at(6400)
    assert larger.threshold == pytest.approx(.52) and larger.steps[0] == rule.steps[0]
    assert larger.steps[1].params['threshold'] == pytest.approx(.28) and larger.steps[1].params['gap'] == .1
    assert rule.at(1600) == rule and larger.pools == POOLS
    assert larger.at(1600).threshold == pytest.approx(.44)
    assert larger.at(1600).steps[1].params['threshold'] == pytest.approx(.2)
    any_nearest = Rule('mean', WEIGHTS, .44, steps=['min2', 'components'], pools=POOLS)
    assert any_nearest.at(6400).steps == any_nearest.steps
    without = Rule('mean', WEIGHTS, .44)
    assert without.at(10) is without and 'pools' not in without.to_dict()
    restored = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert restored == rule and restored.pools == POOLS


@pytest.mark.parametrize('threshold', [.3, .777, 1 / 3, -.2])
@pytest.mark.parametrize('edge', [-1.01, 1.01])
def test_cosines_have_a_highest_threshold(threshold, edge):
    rule = Rule('mean', WEIGHTS, threshold, pools=PoolThresholds((10, 20), (threshold, 3 * edge)))
    assert rule.at(20).threshold == edge
    others = Rule('power', {'image': 1., 'tfidf': 1.}, threshold, pools=rule.pools)
    assert others.at(20).threshold == 3 * edge


@pytest.mark.parametrize('how, steps, is_cut', [
    ('mean', ['veto'], True), ('joint', ['k_reciprocal', 'mutual'], True),
    ('square', ['neighbor_mean'], True),
    ('mean', ['standardize'], False), ('mean', ['k_reciprocal', 'standardize'], False),
    ('power', ['k_reciprocal'], False), ('mean', [Step(print)], False)])
def test_scores_that_end_at_one_have_a_highest_threshold(how, steps, is_cut):
    "Steps after which no score is above 1; those of own functions may be anything."
    rule = Rule(how, {'image': 1., 'tfidf': 1.}, .5, pools=PoolThresholds((10, 20), (-3., 7.)), steps=steps)
    assert rule.scores_end_at_one == is_cut
    assert [rule.at(pool).threshold for pool in (10, 20)] == [-3., 1.01 if is_cut else 7.]
    if not is_cut: return
    texts = titles(40, 0)
    spaces = {'image': Dense(noisy(40, 6, 0, 20)), 'tfidf': Tfidf(texts), 'units': Units(texts)}
    assert rule.neighbors(spaces).pairs()[2].max() <= 1


@pytest.mark.parametrize('steps, is_cut', [((), True), (('veto',), True), (('standardize',), False)])
def test_probabilities_have_a_highest_threshold(steps, is_cut):
    rule = fitted_rule(steps=steps)[0]
    rule = replace(rule, how='power', weights={'image': 1., 'tfidf': 1.}, pools=PoolThresholds((10,), (7.,)))
    assert rule.scores_end_at_one == is_cut
    assert rule.at(10).threshold == (1.01 if is_cut else 7.)


@pytest.mark.parametrize(
    'steps', [(), ('min2',), (Step('augment', by='fused', k=2), Step('min2', threshold=0.1))]
)
@pytest.mark.parametrize('n_new', [7, 25, 40])
def test_a_rule_is_carried_out_for_the_pool_it_meets(steps, n_new):
    spaces = {'image': Dense(noisy(40, 6, 0, 20)), 'tfidf': Tfidf(titles(40, 0))}
    rule = Rule('mean', WEIGHTS, .4, 12, steps=steps, pools=PoolThresholds((10, 20, 40), (.1, .4, .6)))
    is_new = np.arange(40) < n_new
    pools = {name: Pool(space.take(is_new), space.take(~is_new)) for name, space in spaces.items()}
    expected = Rule('mean', WEIGHTS, .6, 12, steps=rule.at(40).steps).apply(spaces)
    decision = rule.run(pools if n_new < 40 else spaces)
    assert decision.rule == rule.at(40)
    assert [ids.tolist() for ids in decision.matches] == [ids.tolist() for ids in expected.head(n_new)]
    # of the new listings among themselves
    few = rule.run({name: space.take(is_new) for name, space in spaces.items()})
    assert few.rule.threshold == rule.pools.at(n_new)
    if steps: return
    # not compared with each other: each meets itself and the known ones
    apart = {name: Pool(pool.new, pool.catalogue, within=False) for name, pool in pools.items() if n_new < 40}
    if apart: assert rule.run(apart).rule.threshold == rule.pools.at(41 - n_new)
