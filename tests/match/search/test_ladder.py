"The ladder: what it promises is what its rules do on groups that took no part in their choice."
from dataclasses import replace

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Embeddings,
    among_themselves,
    candidates,
    heldout_fused,
    pool_thresholds,
    row_f1,
)
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.search.ladder import ladder
from fastmatch.match.search.workbench import Workbench
from tests.match.search.made import FEW, listings, settings


@pytest.mark.parametrize('setting_number', [0, 1])
def test_what_is_promised_is_what_the_rules_of_the_halves_do(setting_number):
    setting = settings(listings())[setting_number]
    found = ladder(setting, FEW, halvings=2, k=15)
    assert [rung.name for rung in found.rungs] == [
        'alone',
        'fused',
        '+ other fusions',
        '+ min2',
        '+ neighbors',
        '+ blending',
        '+ re-ranking',
        '+ vetoes',
    ]
    bench = Workbench(setting, 15)
    expected = np.zeros(len(setting))
    for half in found.halves:
        matches = bench.rule(half.structure, half.thresholds).run(setting.spaces).matches
        expected[half.scored] += row_f1(matches, setting.groups)[half.scored] / 2
    np.testing.assert_allclose(found.heldout.row_f1, expected, atol=1e-9)
    # each half was chosen on the other
    sides = [side for half in random_halves(setting.groups.row_codes, 2, 0) for side in (half, ~half)]
    for side, half in zip(sides, found.halves): np.testing.assert_array_equal(half.scored, ~side)
    # the rule itself is chosen on all rows
    matches = found.rule.run(setting.spaces).matches
    assert row_f1(matches, setting.groups).mean() == pytest.approx(
        found.rule.score['row_f1_chosen_on'], abs=1e-5
    )
    # thresholds for other pools are those that are found when all is searched anew
    assert found.rule.pools == pool_thresholds(setting, replace(found.rule, pools=None))
    assert ladder(setting, 'plain', halvings=1, pools=False).rule.pools is None


def test_the_first_rung_is_the_fused_protocol():
    embeddings = listings()
    setting = among_themselves(embeddings)
    expected = heldout_fused(candidates(embeddings.spaces(), 15), embeddings.groups, halvings=2)
    found = ladder(setting, 'plain', halvings=2, k=15)
    np.testing.assert_allclose(found.fused.row_f1, expected.row_f1, atol=1e-9)
    np.testing.assert_allclose(found.fused.recall_at_1, expected.recall_at_1)
    np.testing.assert_allclose(found.fused.map_at_r, expected.map_at_r)


def test_a_half_sees_nothing_of_the_groups_it_is_scored_on():
    embeddings = listings(hashes=False)
    groups = embeddings.groups
    half = next(random_halves(among_themselves(embeddings).groups.row_codes, 1, 0))
    # the first listing of each group keeps it, so that groups are numbered and halved as before
    is_first = np.isin(np.arange(len(groups)), np.unique(groups, return_index=True)[1])
    moved = np.flatnonzero(~half & ~is_first)
    changed = groups.copy()
    changed[moved] = groups[np.random.default_rng(9).permutation(moved)]
    assert (changed != groups).sum() > 10
    chosen = []
    for known in (groups, changed):
        of_groups = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles, known)
        found = ladder(among_themselves(of_groups), FEW, halvings=1, k=15)
        [half_rule] = [half_rule for half_rule in found.halves if (half_rule.scored == ~half).all()]
        chosen.append((half_rule.structure, half_rule.thresholds))
    assert chosen[0] == chosen[1]


def test_a_modality_of_noise_is_left_out():
    embeddings = listings(200, 60, noise=.5, hashes=False)
    rng = np.random.default_rng(3)
    vectors = {'image': embeddings['image'], 'noise': rng.normal(size=(200, 8))}
    found = ladder(
        among_themselves(Embeddings(vectors, embeddings.ids, groups=embeddings.groups)), 'quick', 2
    )
    weights = dict(found.structure.weights)
    assert weights['image'] > 2 * weights['noise'] or found.structure.how == 'prob_or'
    assert found.heldout.mean > found.rungs[0].heldout.mean + .2


def test_it_repeats_and_says_each_rung():
    setting = settings(listings())[1]
    said = []
    first, again = (ladder(setting, FEW, halvings=1, k=15, echo=said.append) for _ in range(2))
    assert first.rule == again.rule and said[:7] == said[7:] and len(said) == 14
    table = first.table()
    assert list(table.rung) == [rung.name for rung in first.rungs]
    np.testing.assert_allclose(table.adds[1:], np.diff(table.row_f1), atol=1e-9)
    assert (table.low[1:] <= table.adds[1:] + 1e-9).all() and (table.adds[1:] <= table.high[1:] + 1e-9).all()


def test_scored_in_another_setting():
    alone, catalogue = settings(listings())
    found = ladder(catalogue, FEW, halvings=2, k=15)
    np.testing.assert_allclose(found.scores_in(catalogue).row_f1, found.heldout.row_f1, atol=1e-9)
    bench = Workbench(alone, 15)
    expected = np.zeros(len(alone))
    for half in found.halves:
        shifted = tuple(np.add(half.thresholds, -.02)) if np.ndim(half.thresholds) else half.thresholds - .02
        matches = bench.rule(half.structure, shifted).run(alone.spaces).matches
        expected[half.scored] += row_f1(matches, alone.groups)[half.scored] / 2
    np.testing.assert_allclose(found.scores_in(alone, -.02).row_f1, expected, atol=1e-9)


def test_refused():
    setting = among_themselves(listings())
    with pytest.raises(InputError, match='halvings=0'): ladder(setting, halvings=0)
    with pytest.raises(InputError, match="menu='all'"): ladder(setting, 'all')
    embeddings = listings()
    one_group = Embeddings(dict(embeddings), embeddings.ids, groups=np.zeros(120))
    with pytest.raises(InputError, match='one group only'): ladder(among_themselves(one_group), 'plain')
