"""The threshold over the size of the pool: every number counted by hand on few listings, the law on made-up
ones."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Embeddings, PoolThresholds, Rule, Step, among_themselves, in_the_catalogue, row_f1
from fastmatch.match.judge.pool_thresholds import (
    Level,
    WrongMatches,
    measured_levels,
    pool_thresholds,
    threshold_curves,
)
from fastmatch.match.search.structure import RuleStructure
from fastmatch.match.search.workbench import Workbench

MEAN = {'image': .5, 'title': .5}
STRUCTURE = RuleStructure('mean', tuple(MEAN.items()))
REFINED = replace(STRUCTURE, vector_steps=(Step('augment', by={'how': 'mean', 'weights': MEAN}, k=2),),
                  score_steps=(Step('neighbor_mean', k=2),))


def made_embeddings(n_groups, seed=0, dim=6, noise=.7, sizes=(1, 2, 3)):
    "Groups of a few listings around centers that are anywhere."
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.choice(sizes, n_groups))
    groups = rng.permutation(groups)
    centers = {name: rng.normal(size=(n_groups, dim)) for name in MEAN}
    vectors = {name: center[groups] + noise * rng.normal(size=(len(groups), dim))
               for name, center in centers.items()}
    return Embeddings(vectors, np.arange(len(groups)), groups=groups)


def settings_of(embeddings, share=.3, seed=0):
    "The listings among themselves, and some groups of them in the catalogue of all."
    groups = np.unique(embeddings.groups)
    chosen = np.random.default_rng(seed).permutation(groups)[:max(2, int(share * len(groups)))]
    return among_themselves(embeddings), in_the_catalogue(embeddings, np.isin(embeddings.groups, chosen))


def scored(rule, setting):
    "Mean row F1 of a rule carried out in a setting."
    return row_f1(replace(rule, pools=None).run(setting.spaces).matches, setting.groups).mean()


def mean_scored(rule, parts):
    "Mean row F1 over the rows of all parts."
    return np.average([scored(rule, part) for part in parts], weights=[len(part) for part in parts])


def moved(rule, shift):
    "The rule with all thresholds moved."
    pools = PoolThresholds((1,), (float(np.clip(rule.threshold + shift, -1.01, 1.01)),))
    return replace(replace(rule, pools=pools).at(1), pools=None)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), structure=st.sampled_from([STRUCTURE, REFINED]),
       ranks=st.sampled_from([1, 2]), max_matches=st.sampled_from([2, 50]))
def test_a_level_is_the_rule_carried_out(seed, structure, ranks, max_matches):
    "Row F1 at a shift is that of the rule with its thresholds moved, in the whole pool and in each part."
    for setting in settings_of(made_embeddings(12, seed)):
        structure = replace(structure, ranks=ranks, max_matches=max_matches)
        workbench = Workbench(setting)
        rule = workbench.rule(structure, workbench.threshold_search(structure).best()[0])
        half = setting.pool // 2
        levels = measured_levels(setting, rule, [half], seed=seed)
        # with the last of them nothing matches; a rule takes no higher threshold
        highest = 1.01 - rule.threshold
        shifts = np.minimum([-.31, -.1, 0, .013, .11, highest], highest)
        actual = levels[0].curves(shifts).row_f1
        np.testing.assert_allclose(
            actual, [scored(moved(rule, shift), setting) for shift in shifts], atol=1e-12
        )
        assert (levels[0].pool, levels[0].n_rows) == (setting.pool, len(setting))
        if len(levels) == 1: continue
        parts = [part for part in all_deals(setting, half, seed)]
        expected = [mean_scored(moved(rule, shift), parts) for shift in shifts]
        np.testing.assert_allclose(levels[1].curves(shifts).row_f1, expected, atol=1e-12)


def all_deals(setting, size, seed):
    draw_seed = np.random.default_rng([seed, size]).integers(2**31)
    return setting.dealt(size, int(draw_seed))


def test_what_only_right_matches_give():
    "The row F1 if wrong listings were taken out of every row's matches."
    setting, _ = settings_of(made_embeddings(12, 3))
    rule = Rule('mean', MEAN, .5)
    [level] = measured_levels(setting, rule, [])
    for shift in (-.6, -.2, 0, .2):
        matches = list(moved(rule, shift).run(setting.spaces).matches)
        codes = setting.groups.codes
        right = [[other for other in ids if codes[other] == codes[row]] for row, ids in enumerate(matches)]
        curves = level.curves(np.array([shift]))
        assert curves.only_right[0] == pytest.approx(row_f1(right, setting.groups).mean(), abs=1e-12)
        assert curves.n_wrong[0] == sum(map(len, matches)) - sum(map(len, right))


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 999), ranks=st.sampled_from([1, 2]), structure=st.sampled_from([STRUCTURE, REFINED])
)
def test_thresholds_of_parts_by_brute_force(seed, ranks, structure):
    """The whole pool has the rule's own threshold; that of a part has the best row F1 of all shifts,
    every one tried, where it is not above that of a larger pool."""
    for setting in settings_of(made_embeddings(12, seed)):
        structure = replace(structure, ranks=ranks)
        workbench = Workbench(setting)
        thresholds, value = workbench.threshold_search(structure).best()
        rule = workbench.rule(structure, thresholds)
        half = setting.pool // 2
        pools = pool_thresholds(setting, rule, [half], seed=seed)
        assert pools.at(setting.pool) == rule.threshold and pools.measured == setting.pool
        assert (np.diff(pools.thresholds) >= 0).all()
        assert scored(rule, setting) == pytest.approx(value, abs=1e-9)
        assert pools == pool_thresholds(setting, structure, [half], seed=seed)
        parts = all_deals(setting, half, seed)
        size = int(round(np.mean([part.pool for part in parts])))
        if size == setting.pool: continue
        assert pools.sizes[0] == size
        tried = np.concatenate([-np.linspace(.0005, 1.2, 300), [0]])
        best = max(mean_scored(moved(rule, shift), parts) for shift in tried[::12])
        at_size = moved(rule, pools.at(size) - rule.threshold)
        assert mean_scored(at_size, parts) >= best - 1e-9


def test_the_rows_alone_are_the_smallest_pool():
    _, setting = settings_of(made_embeddings(160, 1), share=.4)
    alone = setting.part(setting.needed)
    pools = pool_thresholds(setting, STRUCTURE)
    assert pools.sizes[0] == alone.pool == len(alone) == setting.needed
    rule = Rule('mean', MEAN, pools.thresholds[0])
    best = Workbench(alone).threshold_search(STRUCTURE).best()[1]
    assert scored(rule, alone) == pytest.approx(best, abs=2e-3)
    # of what is dealt, what is larger than the rows alone
    assert all(size >= setting.needed for size in pools.sizes)
    themselves = among_themselves(made_embeddings(160, 1))
    sizes = pool_thresholds(themselves, STRUCTURE).sizes
    assert np.allclose(sizes[:4], [themselves.pool / 8, themselves.pool / 4, themselves.pool / 2,
                                   themselves.pool], atol=2)


def test_a_threshold_for_a_larger_pool():
    "Chosen among few, it is better among many than the same threshold, and nearly as good as the best there."
    everything = made_embeddings(1600, 5, dim=8, noise=.6)
    known = everything.groups < 200
    setting = among_themselves(everything.take(known))
    rule = Workbench(setting).rule(STRUCTURE, Workbench(setting).threshold_search(STRUCTURE).best()[0])
    rule = replace(rule, pools=pool_thresholds(setting, rule))
    whole = in_the_catalogue(everything, ~known)
    search = Workbench(whole).threshold_search(STRUCTURE)
    best = search.best()[1]
    carried, as_is = (search.at(each.threshold).mean() for each in (rule.at(whole.pool), rule))
    assert best - as_is > .03 and best - carried < .01
    decision = rule.run(whole.spaces)
    assert decision.rule.threshold == rule.pools.at(whole.pool)
    assert row_f1(decision.matches, whole.groups).mean() == pytest.approx(carried)
    assert rule.pools.extrapolates(whole.pool) and not rule.pools.extrapolates(setting.pool)


def made_level(pool, wrong_share, n_rows=4000, seed=0, same_rows=0.):
    """Rows with one mate each, and wrong listings as a Poisson process over the scores, as many as the pool;
    a share of them comes to a tenth of the rows."""
    rng = np.random.default_rng(seed)
    rate = np.full(n_rows, wrong_share * pool * (1 - same_rows))
    rate[:n_rows // 10] += wrong_share * pool * same_rows * 10
    right = rng.normal(.7, .12, n_rows)
    entries, gains, right_gains = [], [], []
    for row in range(n_rows):
        scores = .3 + rng.exponential(.08, rng.poisson(rate[row]))
        in_order = sorted([(right[row], True), *((score, False) for score in scores)], reverse=True)
        found, f1, right_f1 = [], 2 / 3, 2 / 3
        for score, is_right in in_order:
            found.append(is_right)
            new_f1 = 2 * (1 + sum(found)) / (3 + len(found))
            new_right_f1 = 1. if sum(found) else 2 / 3
            entries.append(score)
            gains.append(new_f1 - f1)
            right_gains.append(new_right_f1 - right_f1)
            f1, right_f1 = new_f1, new_right_f1
    return Level.of([Level(pool, n_rows, n_rows * 2 / 3, np.array(entries), np.array(gains),
                           np.array(right_gains))])


@pytest.mark.parametrize('same_rows', [0., .6])
def test_the_law_predicts_a_larger_pool(same_rows):
    "Wrong matches at random: the row F1 in a pool four times as large, at thresholds that are any good."
    levels = [made_level(pool, .002, seed=pool, same_rows=same_rows) for pool in (800, 400, 200, 100)]
    larger = made_level(3200, .002, seed=7, same_rows=same_rows)
    shifts = np.linspace(.35, .9, 111)
    law = WrongMatches.fitted(levels, shifts)
    actual = larger.curves(shifts).row_f1
    good = actual > actual.max() - .1
    np.testing.assert_allclose(law.row_f1(4)[good], actual[good], atol=.02)
    assert actual.max() - actual[law.row_f1(4).argmax()] < .002
    as_is = actual[levels[0].curves(shifts).row_f1.argmax()]
    assert actual.max() - as_is > .005
    np.testing.assert_allclose(law.row_f1(1), law.here.row_f1, rtol=1e-12)
    # spread evenly they grow as the pool does; where they come to the same rows, less
    assert (.93 < law.power <= 1) if not same_rows else law.power < .93
    assert (law.drift == 0).all() or law.drift.min() > -.01


def test_without_wrong_matches_the_threshold_stays():
    embeddings = Embeddings({'image': np.repeat(np.eye(64), 2, 0), 'title': np.repeat(np.eye(64), 2, 0)},
                            np.arange(128), groups=np.arange(128) // 2)
    for setting in settings_of(embeddings):
        pools = pool_thresholds(setting, Rule('mean', MEAN, .5))
        assert set(pools.thresholds) == {.5} and pools.per_doubling == 0


def test_where_nothing_is_worth_matching():
    "Groups of one listing each: the threshold is above all scores, in whatever pool."
    rng = np.random.default_rng(0)
    embeddings = Embeddings({name: rng.normal(size=(200, 3)) for name in MEAN}, np.arange(200),
                            groups=np.arange(200))
    pools = pool_thresholds(among_themselves(embeddings), STRUCTURE)
    rule = Rule('mean', MEAN, pools.thresholds[-1], pools=pools)
    for size in (100, 200, 1000, 10**6):
        assert len(rule.at(size).apply(embeddings.spaces()).ids) == 200


@pytest.mark.parametrize('structure', [STRUCTURE, Rule('mean', MEAN, .9)])
def test_identical_listings_match_in_any_pool(structure):
    "Chosen among few that chance joins often, and used among a hundred thousand."
    rng = np.random.default_rng(0)
    groups = np.arange(120) // 2
    vectors = {name: rng.normal(size=(60, 4))[groups] + .9 * rng.normal(size=(120, 4)) for name in MEAN}
    twins = groups < 8
    for each in vectors.values():
        each[np.flatnonzero(twins)[1::2]] = each[np.flatnonzero(twins)[::2]]
        # some are of two groups: the curve then says that among many nothing is worth matching
        each[40:44] = each[60:64]
    embeddings = Embeddings(vectors, np.arange(120), groups=groups)
    pools = pool_thresholds(among_themselves(embeddings), structure)
    assert pools.per_doubling == 0 and (np.diff(pools.thresholds) >= 0).all()
    rule = Rule('mean', MEAN, pools.thresholds[-1], pools=pools)
    found = rule.at(100_000).apply(embeddings.spaces())
    assert row_f1(found, embeddings.groups)[twins].mean() > .9
    # and hardly anything else does
    assert len(found.ids) < 1.1 * (120 + twins.sum() + 8)


def test_what_a_predicted_threshold_leaves():
    level = made_level(400, .01)
    right = level.entries[level.right_gains > 0]
    for share in (.05, .5):
        assert np.mean(right >= level.reached_by(share)) == pytest.approx(share, abs=1e-3)
    # the curve of a pool a thousand times as large wants a higher one
    shifts = np.linspace(.3, 2, 500)
    law = WrongMatches.fitted([level], shifts)
    assert shifts[law.row_f1(1e3).argmax()] > level.reached_by(.05)
    assert Level(3, 3, 3., np.zeros(0), np.zeros(0), np.zeros(0)).reached_by(.05) == np.inf


def test_too_few_for_parts():
    setting = among_themselves(made_embeddings(12, 0))
    pools = pool_thresholds(setting, Rule('mean', MEAN, .5))
    assert pools.sizes[0] == setting.pool and pools.at(setting.pool) == .5


def test_a_rule_that_knows_pools_already():
    setting = among_themselves(made_embeddings(60, 0))
    rule = Rule('mean', MEAN, .3, pools=PoolThresholds((setting.pool,), (.6,)))
    pools = pool_thresholds(setting, rule)
    assert pools.at(setting.pool) == .6
    assert pools == pool_thresholds(setting, Rule('mean', MEAN, .6))
    # what was found in the whole pool may be handed in
    neighbors = rule.run(setting.spaces).neighbors
    assert pools == pool_thresholds(setting, rule, neighbors=neighbors)
    assert pools == PoolThresholds.of(pools.to_dict())


def test_draws_and_seeds():
    setting = among_themselves(made_embeddings(60, 0))
    rule = Rule('mean', MEAN, .6)
    half = setting.pool // 2
    rows = [level.n_rows for level in measured_levels(setting, rule, [half], draws=1)]
    assert rows[0] == setting.pool and abs(rows[1] - half) < 3
    assert measured_levels(setting, rule, [half], draws=6)[1].n_rows > 2 * setting.pool
    entries = [measured_levels(setting, rule, [half], seed=seed)[1].entries for seed in (0, 0, 1)]
    assert np.array_equal(entries[0], entries[1]) and not np.array_equal(entries[0], entries[2])


def test_curves_for_a_picture():
    setting = among_themselves(made_embeddings(100, 0))
    rule = Workbench(setting).rule(STRUCTURE, Workbench(setting).threshold_search(STRUCTURE).best()[0])
    sizes = [setting.pool // 2**i for i in range(1, 4)]
    table = threshold_curves(setting, rule, sizes, points=50)
    assert [*table] == ['pool', 'threshold', 'row_f1'] and len(table) == 4 * 50
    whole = table[table.pool == setting.pool]
    for threshold, value in whole[['threshold', 'row_f1']].values[::9]:
        assert value == pytest.approx(scored(Rule('mean', MEAN, threshold), setting), abs=1e-12)
    best = table.groupby('pool').row_f1.max()
    assert best.is_monotonic_decreasing and len(best) == 4


SETTING = among_themselves(made_embeddings(20, 0))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(sizes=[0]), '^pool=0: give the number'),
        (dict(sizes=[-3]), '^pool=-3'),
        (dict(sizes=[True]), '^pool=True'),
        (dict(sizes=[2.5]), r'^pool=2\.5'),
        (dict(sizes=[10**4]), r'^sizes=\[10000\]: the pool has'),
        (dict(draws=0), '^draws=0: give a whole number from 1'),
        (dict(draws=True), '^draws=True'),
        (dict(draws=1.5), r'^draws=1\.5'),
        (dict(rule='mean'), '^rule of type str: give a Rule or a RuleStructure'),
        (dict(rule=None), '^rule of type NoneType'),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        pool_thresholds(SETTING, **{'rule': Rule('mean', MEAN, .5), **arguments})
