"Columns of a table in rules, against a double loop over pairs; a ladder in which a code decides."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule, Step, row_f1
from fastmatch.match.candidates import candidates
from fastmatch.match.fuse import fuse
from fastmatch.match.judge.choose import fusion_options
from fastmatch.match.judge.groups import Groups
from fastmatch.match.judge.setting import among_themselves, in_the_catalogue
from fastmatch.match.search.ladder import ladder
from fastmatch.match.search.menu import FULL, Menu, field_vetoes, with_field
from fastmatch.match.search.structure import RuleStructure
from fastmatch.match.search.workbench import Workbench
from fastmatch.match.spaces.sources import of_one_source
from fastmatch.match.thresholds.flat import Flat, FlatSweep
from fastmatch.match.thresholds.sweep import RankSweep, Sweep
from fastmatch.match.words import rule_in_words
from tests.match.fielded import fielded

EMB = fielded()
SPACES = EMB.spaces()
SETTING = among_themselves(EMB)


def code(row): return EMB.fields['modelno'].cells[row]


def price(row):
    cell = EMB.fields['price'].cells[row]
    return None if cell is None else float(cell.split()[0])


def edits(one, other):
    "Levenshtein by its recurrence."
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return table[-1, -1]


def similarity(name, i, j):
    "By hand; None where unknown."
    if name == 'image': return float(EMB['image'][i] @ EMB['image'][j])
    if name == 'modelno':
        if None in (code(i), code(j)): return None
        return 1 - edits(code(i), code(j)) / max(len(code(i)), len(code(j)))
    if None in (price(i), price(j)): return None
    return 1 - abs(price(i) - price(j)) / max(price(i), price(j))


def matches_by_hand(weights, threshold, veto=None):
    found = []
    for i in range(len(EMB)):
        own = {i}
        for j in range(len(EMB)):
            if i == j: continue
            known = [(weight, similarity(name, i, j)) for name, weight in weights.items()
                     if similarity(name, i, j) is not None]
            score = sum(weight * each for weight, each in known) / sum(weight for weight, _ in known)
            vetoed_by = None if veto is None else similarity(veto[0], i, j)
            contradicts = vetoed_by is not None and vetoed_by <= veto[1]
            if score >= threshold and not contradicts: own.add(j)
        found.append(own)
    return found


@pytest.mark.parametrize('veto', [None, ('modelno', .9), ('price', .8)])
def test_a_rule_is_a_double_loop_over_pairs(veto):
    weights = {'image': .5, 'modelno': .3, 'price': .2}
    steps = [] if veto is None else [Step('veto', units=veto[0], least=veto[1])]
    rule = Rule('mean', weights, .83, k=len(EMB), steps=steps, max_matches=len(EMB))
    restored = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    expected = matches_by_hand(weights, .83, veto)
    for each in (rule, restored):
        matches = each.apply(SPACES)
        assert [set(matches[row].tolist()) for row in range(len(EMB))] == expected
    # not all the same, or the test would see nothing
    assert len({len(own) for own in expected}) > 2


@pytest.mark.parametrize('how', ['mean', 'prob_or', 'union', 'above', 'power'])
def test_what_is_compared_and_not_fused_changes_no_score(how):
    weights = {'image': .5, 'tfidf': .4}
    plain = Rule(how, weights, .4, k=len(EMB))
    compared = Rule(how, weights, .4, k=len(EMB), compared=('modelno', 'price'))
    assert compared.reads == ['image', 'tfidf', 'modelno', 'price']
    for one, other in zip(plain.neighbors(SPACES), compared.neighbors(SPACES)):
        np.testing.assert_array_equal(one, other)
    assert 'compared' not in plain.to_dict() and compared.to_dict()['compared'] == ['modelno', 'price']
    with pytest.raises(InputError, match='fused or joined'): Rule(how, weights, .4, compared=('image',))


def test_a_compared_code_finds_candidates():
    rule = Rule('mean', {'image': 1.}, .4, k=2)
    alone, with_code = rule.neighbors(SPACES), Rule.from_dict(
        {**rule.to_dict(), 'compared': ['modelno']}).neighbors(SPACES)
    assert (with_code.ids >= 0).sum() > (alone.ids >= 0).sum()


def test_fields_stay_out_of_the_grid():
    assert SETTING.modalities == ('image', 'tfidf') and SETTING.keys == () and SETTING.apart is None
    assert SETTING.fields == ('modelno', 'price', 'brand', 'notes')
    found = candidates({name: SPACES[name] for name in ('image', 'modelno', 'price')}, 9)
    assert {name for option in fusion_options(found) for name in option.weights} == {'image'}


def test_columns_of_text_are_fused_where_there_is_nothing_else():
    only_text = among_themselves(EMB, ('notes', 'price'))
    assert only_text.modalities == ('notes',) and only_text.fields == ('price',)


@pytest.mark.parametrize('ranks', [1, 2])
def test_unknown_similarities_are_swept_as_a_whole(ranks):
    found = candidates({name: SPACES[name] for name in ('image', 'tfidf', 'notes', 'price')}, 20)
    flat, groups = Flat(found, EMB.groups), Groups(EMB.groups)
    assert flat.swept == ['notes', 'price'] and flat.names == ['image', 'tfidf']
    for weights in ({'image': .6, 'price': .4}, {'image': .5, 'notes': .5}):
        search = flat.sweep('mean', weights, ranks=ranks)
        neighbors = fuse(found, 'mean', weights)
        whole = Sweep(neighbors, groups) if ranks == 1 else RankSweep(neighbors, groups, 2)
        assert search.best() == whole.best() and not isinstance(search, FlatSweep)
    # what has no weight is not looked at
    quick = flat.sweep('mean', {'image': 1., 'price': 0.}, ranks=ranks)
    assert isinstance(quick, FlatSweep)
    assert quick.best() == flat.sweep('mean', {'image': 1.}, ranks=ranks).best()


def test_a_column_joins_with_its_share():
    fusion = with_field(RuleStructure('mean', (('image', .6), ('tfidf', .4))), 'price', .2)
    assert dict(fusion.weights) == pytest.approx({'image': .48, 'tfidf': .32, 'price': .2})
    assert [steps[0].params for steps in field_vetoes('ean', 'code')] == [
        {'units': 'ean', 'least': .5}, {'units': 'ean', 'least': .9}]
    assert field_vetoes('brand', 'category') == ()
    with_veto = RuleStructure('mean', (('image', 1.),), score_steps=field_vetoes('ean', 'code')[0])
    assert 'by ean' in str(with_veto)


def test_the_ladder_takes_a_code_that_decides():
    found = ladder(SETTING, FULL, halvings=2)
    by_name = {rung.name: rung for rung in found.rungs}
    assert by_name['+ fields'].over_before.low > .1
    assert found.heldout.mean > by_name['fused'].heldout.mean + .1
    assert 'modelno' in found.rule.weights
    assert row_f1(found.rule.apply(SETTING.spaces), SETTING.groups).mean() == pytest.approx(
        found.rule.score['row_f1_chosen_on'], abs=1e-5)
    assert Rule.from_dict(json.loads(json.dumps(found.rule.to_dict()))) == found.rule
    words = ' '.join(rule_in_words(found.rule))
    assert '× modelno' in words
    # codes and texts find candidates: whoever applies the rule must find them too
    assert {'modelno', 'notes'} <= set(found.rule.modalities)


def test_a_code_may_forbid_where_it_is_not_fused():
    menu = Menu(more_fusions=False, fields=False, vetoes=((Step('veto'),),))
    found = ladder(SETTING, menu, halvings=1, pools=False)
    assert {step.params['units'] for step in found.rule.steps if step.do == 'veto'} & {'modelno', 'price'}
    assert found.heldout.mean > found.fused.mean + .05


def test_a_pair_model_reads_all_columns():
    setting = in_the_catalogue(EMB, np.arange(len(EMB)) % 6 < 3)
    menu = Menu(more_fusions=False, fields=False, min2=False, pair_model=True)
    found = ladder(setting, menu, halvings=1, pools=False)
    step = found.rule.steps[-1]
    assert step.do == 'pair_model'
    assert {'modelno', 'price', 'brand same', 'price ratio', 'notes'} <= set(step.pair_model.names)
    assert found.rule.compared == ('modelno', 'price', 'brand', 'notes')
    # thresholds are chosen on scores of models that did not see the rows, which the rule's own did
    reached = row_f1(found.rule.apply(setting.spaces), setting.groups).mean()
    assert reached > found.rule.score['row_f1_chosen_on'] - .05


def test_a_rule_keeps_sources_apart():
    source = [f'shop {row % 3}' for row in range(len(EMB))]
    setting = among_themselves(fielded(source=source))
    assert setting.apart == 'source' and 'source' not in (*setting.keys, *setting.modalities)
    found = ladder(setting, 'quick', halvings=1)
    assert found.rule.apart == 'source'
    matches = found.rule.apply(setting.spaces)
    rows = np.repeat(np.arange(len(matches)), np.diff(matches.indptr))
    is_other = rows != matches.ids
    assert is_other.sum() > 50
    assert (rows[is_other] % 3 != matches.ids[is_other] % 3).all()
    assert row_f1(matches, setting.groups).mean() == pytest.approx(
        found.rule.score['row_f1_chosen_on'], abs=1e-5)


def test_a_rare_source_may_be_missing_in_a_part_of_the_pool():
    embeddings = fielded(48, source=['market' if row % 48 else 'corner shop' for row in range(144)])
    for setting in (among_themselves(embeddings), in_the_catalogue(embeddings, np.arange(144) % 6 < 3)):
        rule = ladder(setting, 'quick', halvings=1).rule
        parts = setting.dealt(36)
        assert any(of_one_source(part.spaces['source']) for part in parts)
        assert len(rule.pools.sizes) > 3 and np.isfinite(rule.pools.thresholds).all()


def test_unlabelled_listings_are_found_and_not_asked_for():
    groups = EMB.groups.astype(object)
    groups[-6:] = None
    some = Embeddings(EMB, EMB.ids, EMB.titles, groups)
    rows = np.arange(len(EMB)) < 30
    setting = in_the_catalogue(some, rows)
    codes = setting.groups.codes
    assert len(set(codes[-6:])) == 6 and not set(codes[-6:]) & set(codes[:-6])
    with pytest.raises(InputError, match='have no group'): in_the_catalogue(some, ~rows)


def test_workbench_and_rule_agree_with_steps():
    workbench = Workbench(SETTING, 20)
    fusion = RuleStructure('mean', (('image', .7), ('modelno', .3)))
    for structure in (fusion, RuleStructure('mean', fusion.weights, vector_steps=(Step('augment', k=2),)),
                      RuleStructure('mean', fusion.weights, score_steps=field_vetoes('price', 'number')[0])):
        search = workbench.threshold_search(structure)
        thresholds, value = search.best()
        rule = workbench.rule(structure, thresholds)
        assert row_f1(rule.apply(SETTING.spaces), SETTING.groups).mean() == pytest.approx(value)
