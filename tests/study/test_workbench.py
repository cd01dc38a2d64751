"The workbench of a rule's study: its quick search is the plain one, and hidden rows change nothing."
import numpy as np
import pytest

from fastmatch.match import Step, heldout, row_f1
from fastmatch.match.candidates import candidates
from fastmatch.match.fuse import fuse
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.thresholds.flat import FUSED
from fastmatch.study.rule_space import RuleStructure
from fastmatch.study.workbench import CrossedSearch, VisibleRows
from tests.study.cases import embeddings, workbench


def all_rows(bench, halvings=2):
    return VisibleRows('all', np.ones(len(bench.groups), bool), bench.groups.codes, halvings, 0)


def test_a_study_sees_no_group_of_the_other_half():
    listings = embeddings()
    groups = listings.groups
    half = next(random_halves(groups, 1, 0))
    changed_groups = groups.copy()
    changed_groups[~half] = np.random.default_rng(9).permutation(groups[~half])
    for steps in ('none', 'standardize'):
        structure = RuleStructure('mean', (('image', .4), ('title', .6)), steps=steps, ranks=2)
        found = []
        for known_groups in (groups, changed_groups):
            bench, rows = workbench(listings, (steps,), known_groups), VisibleRows('a', half, groups, 2, 0)
            search = bench.threshold_search(structure, rows)
            found.append((rows.crossed(search), search.best(half)))
        assert found[0] == found[1]
        # whereas what is scored there changes
        neighbors = fuse(candidates(listings.spaces(), 20))
        assert heldout(neighbors, groups).mean != heldout(neighbors, changed_groups).mean


def unchanged(neighbors): return neighbors


@pytest.mark.parametrize('ranks', [1, 2])
def test_the_quick_search_is_the_plain_one(ranks):
    bench = workbench(embeddings(noise=1.), {'none': (), 'same': (Step(unchanged),)})
    rows = all_rows(bench, 3)
    for how, modality_weights in (('mean', (.3, .7)), ('prob_or', (2., 1.)), ('union', (.5, .6))):
        weights = tuple(zip(('image', 'title'), modality_weights))
        searches = [bench.threshold_search(RuleStructure(how, weights, steps=steps, ranks=ranks), rows)
                    for steps in ('none', 'same')]
        assert isinstance(searches[0], CrossedSearch) and not isinstance(searches[1], CrossedSearch)
        quick_value, plain_value = map(rows.crossed, searches)
        # thresholds for the nearest may stand elsewhere between two scores
        assert quick_value == pytest.approx(plain_value, abs=1e-9 if ranks == 1 else 5e-3)


@pytest.mark.parametrize('how', FUSED)
def test_any_fusion_as_a_rule(how):
    listings = embeddings(noise=1.)
    bench = workbench(listings)
    rows = all_rows(bench)
    structure = RuleStructure(how, (('image', .5), ('title', .8)), power=1.5)
    thresholds, value = bench.threshold_search(structure, rows).best(rows.mask)
    matches = bench.rule(structure, thresholds).apply(listings.spaces())
    assert row_f1(matches, listings.groups).mean() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize('steps', ['expand', 'augment', 'blend', 'standardize', 'k_reciprocal'])
@pytest.mark.parametrize('ranks', [1, 2])
def test_refined_rules_do_what_was_tuned(steps, ranks):
    listings = embeddings()
    bench = workbench(listings, (steps,))
    rows = all_rows(bench)
    structure = RuleStructure('mean', (('image', .5), ('title', .5)), steps=steps, ranks=ranks)
    thresholds, value = bench.threshold_search(structure, rows).best(rows.mask)
    matches = bench.rule(structure, thresholds).apply(listings.spaces())
    assert row_f1(matches, listings.groups).mean() == pytest.approx(value, abs=1e-9)


def test_searches_are_kept_until_forgotten():
    bench = workbench(embeddings(), ('standardize',))
    visible_rows = all_rows(bench)
    half_of_rows = VisibleRows('half', np.arange(120) % 40 < 20, bench.groups.codes, 2, 0)
    structure = RuleStructure('mean', (('image', .5), ('title', .5)))
    for rows in (visible_rows, half_of_rows, visible_rows): bench.threshold_search(structure, rows)
    assert len(bench._candidates) == 1 and {rows_name for _, rows_name in bench._pairs} == {'all', 'half'}
    bench.forget(half_of_rows)
    assert {rows_name for _, rows_name in bench._pairs} == {'all'}


def test_a_search_has_the_common_form():
    bench = workbench(embeddings(), {'same': (Step(unchanged),)})
    structure = RuleStructure('mean', (('image', .5), ('title', .5)), steps='same')
    search = bench.threshold_search(structure, all_rows(bench))
    threshold, value = search.best()
    assert search.at(threshold).mean() == pytest.approx(value)
