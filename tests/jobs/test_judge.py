"The rule that is judged: in both settings, on the same listings, by rules that were chosen on other groups."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.demo import demo_path
from fastmatch.jobs.judge import judge, judge_modalities, judge_plain, settings_for
from fastmatch.jobs.options import RuleChoice
from fastmatch.match import (
    Embeddings,
    HeldOut,
    Pool,
    Tfidf,
    among_themselves,
    heldout,
    in_the_catalogue,
    row_f1,
)
from fastmatch.match.search.ladder import LadderResult, Rung, ladder
from tests.match.search.made import listings

IN, AMONG = 'in the catalogue', 'among themselves'
ROWS = ['alone', 'image', 'title', 'tfidf', 'phash', 'fused', 'rule']


def shop(n_listings=150):
    "Listings of which those of every third group are held out; the others were trained on."
    embeddings = listings(n_listings, 50, noise=.8)
    held_out = embeddings.groups % 3 == 0
    return Embeddings(dict(embeddings), embeddings.ids, embeddings.titles, embeddings.groups, ~held_out,
                      embeddings.phash), held_out


@pytest.fixture(scope='module')
def judged():
    "What the ladder finds in the catalogue of the shop."
    embeddings, held_out = shop()
    return judge(settings_for(embeddings, held_out, RuleChoice()))


def test_the_setting_of_use_comes_first():
    embeddings, held_out = shop()
    whole = settings_for(embeddings, held_out, RuleChoice(), 'all')
    of_rows = settings_for(embeddings, held_out, RuleChoice(), 'heldout')
    assert list(whole) == [IN, AMONG] and list(of_rows) == [AMONG, IN]
    n_held_out = int(held_out.sum())
    for settings in (whole, of_rows):
        assert [(len(settings[name]), settings[name].pool) for name in (IN, AMONG)] == [
            (n_held_out, 150), (n_held_out, n_held_out)]


def test_held_out_listings_of_one_source_are_refused():
    embeddings, held_out = shop()
    def with_source(source): return Embeddings(embeddings, embeddings.ids, embeddings.titles, source=source,
                                               groups=embeddings.groups, phash=embeddings.phash)
    apart = np.where(held_out, 'corner shop', 'market')
    for catalogue in ('all', 'heldout'):
        with pytest.raises(InputError, match=f"source: all {held_out.sum()} held-out listings are of "
                                             "'corner shop'.*hold out listings of several"):
            settings_for(with_source(apart), held_out, RuleChoice(), catalogue)
    mixed = [f'shop {row % 2}' for row in range(len(embeddings))]
    assert list(settings_for(with_source(mixed), held_out, RuleChoice())) == [IN, AMONG]


@pytest.mark.parametrize('share', [None, 0, .4, 1.])
def test_both_settings_look_the_same_listings_up(share):
    "Also where mates are taken out: row i is the same listing in both, with as many mates in the pool."
    embeddings, held_out = shop()
    settings = settings_for(embeddings, held_out, RuleChoice(matchless=share, seed=3))
    whole, of_rows = settings[IN], settings[AMONG]
    n_rows = len(of_rows)
    ids_of_rows = embeddings.ids[of_rows.order]
    np.testing.assert_array_equal(embeddings.ids[whole.order[:n_rows]], ids_of_rows)
    np.testing.assert_array_equal(whole.groups.sizes, of_rows.groups.sizes)
    np.testing.assert_array_equal(whole.groups.row_codes, of_rows.groups.row_codes)
    n_alone = (np.bincount(embeddings.groups[held_out])[embeddings.groups[held_out]] == 1).sum()
    if share == 1.: assert (of_rows.groups.sizes == 1).all()
    elif share: assert (of_rows.groups.sizes == 1).sum() > n_alone
    else: assert n_rows == held_out.sum()


@pytest.mark.parametrize('with_catalogue', [True, False])
def test_new_titles_are_matched_as_they_were_judged(with_catalogue):
    """Judged with all titles in one vocabulary; in use new titles meet a vocabulary that never held them.

    Scikit-learn's own vectors, which leave unknown n-grams out, are the other side: they lose there.
    """
    table = pd.read_csv(demo_path()/'listings.csv', keep_default_na=False)
    held_out = (table.fold == 0).to_numpy()
    embeddings = Embeddings({}, table.posting_id, table.title, table.label_group)
    settings = settings_for(embeddings, held_out, RuleChoice())
    setting = settings[IN if with_catalogue else AMONG]
    rule = ladder(setting, 'plain', halvings=1, pools=False).rule
    judged = row_f1(rule.run(setting.spaces).matches, setting.groups).mean()

    known = Tfidf(table.title[~held_out])
    new_titles = table.title[held_out]
    vectors = known.vectorizer.transform(new_titles).tocsr()
    left_out = Tfidf(None, vectorizer=known.vectorizer, vectors=vectors)
    scores = {}
    for way, new in (('kept', known.transform(new_titles)), ('left out', left_out)):
        pool = Pool(new, known if with_catalogue else None)
        scores[way] = row_f1(rule.run({'tfidf': pool}).matches, setting.groups).mean()
    assert abs(scores['kept'] - judged) < .004
    assert scores['left out'] < judged - .01


def test_a_fold_that_leaves_no_catalogue():
    embeddings, _ = shop()
    untrained = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles, embeddings.groups)
    with pytest.raises(InputError, match='all 150 listings are held out: there is no catalogue'):
        settings_for(untrained, np.ones(150, bool), RuleChoice())
    with pytest.raises(InputError, match='no listing is looked up'):
        settings_for(untrained, np.zeros(150, bool), RuleChoice())


def test_a_catalogue_smaller_than_the_fold_is_judged_as_it_is():
    embeddings, held_out = shop()
    smaller = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles, embeddings.groups, held_out)
    settings = settings_for(smaller, ~held_out, RuleChoice())
    assert len(settings[IN]) > 75 and settings[IN].pool == 150


def test_listings_trained_on_or_ungrouped_are_refused():
    embeddings, held_out = shop()
    with pytest.raises(InputError, match='1 listings were trained on'):
        settings_for(embeddings, held_out | (np.arange(150) == np.flatnonzero(~held_out)[0]), RuleChoice())
    ungrouped = Embeddings(dict(embeddings), embeddings.ids)
    with pytest.raises(InputError, match='have no groups'): settings_for(ungrouped, held_out, RuleChoice())
    with pytest.raises(InputError, match='settings of type Embeddings: give'): judge(embeddings)


def test_modalities_are_the_held_out_protocol():
    embeddings, held_out = shop()
    for setting in (among_themselves(embeddings.take(held_out)), in_the_catalogue(embeddings, held_out)):
        rows = judge_modalities(setting, seed=2, k=20)
        assert list(rows) == ROWS[:-2]
        for modality in ROWS[1:-2]:
            wanted = heldout(setting.spaces[modality].search(20), setting.groups, seed=2)
            np.testing.assert_array_equal(rows[modality].row_f1, wanted.row_f1)
        np.testing.assert_allclose(rows['alone'].row_f1, 2 / (1 + setting.groups.sizes))
        assert judge_plain(setting, 2)['fused'].mean == ladder(setting, 'plain', seed=2).heldout.mean


def test_a_judgement_in_both_settings(judged):
    assert judged.main == IN and judged.setting.pool == 150
    assert list(judged.tables) == [IN, AMONG] and all(list(table) == ROWS for table in judged.tables.values())
    n_rows = len(judged.setting)
    assert {len(scores.row_f1) for table in judged.tables.values() for scores in table.values()} == {n_rows}
    assert judged.promised is judged.tables[IN]['rule'] is judged.ladder.heldout
    assert all(table['rule'].recall_at_1 is not None for table in judged.tables.values())
    assert judged.rule.score['setting'] == IN and judged.rule.score['pool'] == 150
    assert judged.rule.at(150).threshold == judged.rule.threshold == judged.ladder.rule.threshold


def test_the_other_setting_is_scored_by_the_rules_of_the_halves(judged):
    "Each half's rule with the threshold for that pool, run as any rule is, on the groups of the other half."
    other = judged.settings[AMONG]
    shift = judged.rule.at(other.pool).threshold - judged.rule.threshold
    totals, times = np.zeros(len(other)), np.zeros(len(other))
    chosen_on_its_own = np.zeros(len(other), bool)
    for half in judged.ladder.halves:
        thresholds = half.thresholds + shift if np.ndim(half.thresholds) == 0 else tuple(
            threshold + shift for threshold in half.thresholds)
        rule = half.structure.rule(thresholds, k=judged.rule.k, join=judged.rule.join)
        scores = row_f1(rule.apply(other.spaces), other.groups)
        totals[half.scored] += scores[half.scored]
        times[half.scored] += 1
        codes = other.groups.row_codes
        chosen_on_its_own |= np.isin(codes, codes[half.scored]) != half.scored
    assert not chosen_on_its_own.any() and (times > 0).all()
    np.testing.assert_allclose(judged.tables[AMONG]['rule'].row_f1, totals / times)


def test_the_summary_is_plain_and_named(judged):
    import json
    summary = judged.summary()
    assert json.loads(json.dumps(summary)) == summary and set(summary) == {'promised', 'judged', 'ladder'}
    promised = summary['promised']
    assert promised['setting'] == IN and promised['pool'] == 150
    assert (
        promised['row_f1']
        == round(judged.promised.mean, 5)
        == summary['judged'][IN]['rows']['rule']['row_f1']
    )
    assert list(summary['judged']) == [IN, AMONG] and summary['judged'][IN]['pool'] == 150
    rungs = summary['ladder']
    assert [rung['rung'] for rung in rungs][:2] == ['alone', 'fused'] and 'adds' not in rungs[0]
    for before, rung in zip(rungs, rungs[1:]):
        assert rung['adds'] == pytest.approx(rung['row_f1'] - before['row_f1'], abs=2e-5)
        assert rung['low'] <= rung['adds'] <= rung['high']
    assert rungs[-1]['row_f1'] == promised['row_f1']


def test_the_promise_at_another_pool(judged):
    "On the line through both settings: exact at their pools, lower beyond, never outside of 0 to 1."
    pools = {name: judged.settings[name].pool for name in (IN, AMONG)}
    for name, pool in pools.items():
        assert judged.promised_at(pool) == pytest.approx(judged.tables[name]['rule'].mean)
    middle = int(round(np.sqrt(pools[IN] * pools[AMONG])))
    means = [judged.tables[name]['rule'].mean for name in (IN, AMONG)]
    assert judged.promised_at(middle) == pytest.approx(np.mean(means), abs=2e-3)
    tables = {
        name: {'rule': HeldOut(np.full(4, mean), np.arange(4))} for name, mean in ((IN, 0.6), (AMONG, 0.8))
    }
    falling = replace(judged, tables=tables)
    doublings = np.log2(pools[IN] / pools[AMONG])
    assert falling.promised_at(2 * pools[IN]) == pytest.approx(.6 - .2 / doublings)
    assert falling.promised_at(1) == .8 and falling.promised_at(10**15) == 0
    rising = replace(judged, tables=dict(zip(tables, reversed(tables.values()))))
    assert rising.promised_at(10**15) == .8
    one = replace(judged, tables={IN: judged.tables[IN]}, settings={IN: judged.setting})
    assert one.promised_at(9999) == judged.promised.mean


@pytest.mark.parametrize('name', ['plain', 'tune'])
def test_other_ways_to_choose(name):
    embeddings, held_out = shop(120)
    found = judge(settings_for(embeddings, held_out, RuleChoice()), RuleChoice(name, n_trials=4))
    assert [rung.name for rung in found.ladder.rungs] == ['alone', 'fused'] + ['tuned'] * (name == 'tune')
    for table in found.tables.values(): assert list(table) == ROWS
    if name == 'plain':
        assert not found.rule.steps
        np.testing.assert_array_equal(found.promised.row_f1, found.tables[IN]['fused'].row_f1)


def test_forced_matches_pay_where_many_have_none():
    "With most mates taken away, min2 costs more than it brings: the rule found doesn't force matches."
    embeddings, held_out = shop(200)
    found = judge(settings_for(embeddings, held_out, RuleChoice(matchless=.9)), RuleChoice(matchless=.9))
    matches = found.rule.apply(found.setting.spaces)
    assert row_f1(matches, found.setting.groups).mean() >= found.tables[IN]['alone'].mean
    assert found.promised.mean > found.tables[IN]['alone'].mean - .02


def test_seeds_repeat():
    embeddings, held_out = shop(100)
    first, second = (judge(settings_for(embeddings, held_out, RuleChoice('plain', .2, seed=4)),
                           RuleChoice('plain', .2, seed=4)) for _ in range(2))
    assert first.rule == second.rule and first.summary() == second.summary()


def test_the_steps_are_said_while_they_are_found():
    lines = []
    embeddings, held_out = shop(90)
    judge(settings_for(embeddings, held_out, RuleChoice()), RuleChoice('plain'), lines.append)
    assert len(lines) == 1 and 'fused' in lines[0]


def test_a_ladder_of_one_setting_in_plain_words():
    scores = HeldOut(np.array([1., .5]), np.array([0, 1]))
    result = LadderResult(None, None, [Rung('fused', scores, None)])
    assert result.heldout is scores is result.fused
