"A rule that was judged in the catalogue: the report is about what it does there."
import re

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule, Step, among_themselves, in_the_catalogue, row_f1
from fastmatch.match.search.ladder import ladder
from fastmatch.report import report_html
from fastmatch.report.groups import found_groups
from fastmatch.report.origin import Origin
from fastmatch.report.pairs import judge_pairs
from tests.report.made import made_run
from tests.report.reader import SECTIONS, Reader, mistakes_of

RULES = [Rule('mean', {'image': .6, 'title': .4}, .5, 8),
         Rule('mean', {'image': .6, 'title': .4}, .5, 8, steps=(Step('augment', by='fused', k=2), 'min2')),
         Rule('mean', {'image': .6, 'title': .4}, .3, 8, steps=('k_reciprocal', Step('veto')))]


def halved():
    "The listings of a made run, of which those of every second group are held out; the rest was trained on."
    embeddings = made_run().embeddings
    names = list(dict.fromkeys(embeddings.groups))
    held_out = np.array([names.index(group) % 2 == 1 for group in embeddings.groups])
    return Embeddings(
        dict(embeddings), embeddings.ids, embeddings.titles, embeddings.groups, ~held_out
    ), held_out


@pytest.mark.parametrize('rule', RULES)
def test_pairs_in_a_pool_are_those_of_the_definition(rule):
    "All that were candidates, that match, or should: with one that is looked up in each of them."
    embeddings, held_out = halved()
    setting = in_the_catalogue(embeddings, held_out)
    judged = judge_pairs(setting.spaces, rule, setting.groups.codes)
    decision = rule.run(setting.spaces)
    codes, n_rows = setting.groups.codes, len(setting)
    true_pairs = {(row, other) for row in range(n_rows) for other in range(row + 1, setting.pool)
                  if codes[row] == codes[other]}
    matched = {tuple(sorted((row, int(other)))) for row, matches in enumerate(decision.matches)
               for other in matches if other != row}
    candidate = {
        tuple(sorted((row, int(other))))
        for neighbors in (decision.trail[0][1], decision.neighbors)
        for row, nearest in enumerate(neighbors.ids)
        for other in nearest
        if other >= 0 and other != row
    }
    pairs = judged.pairs
    found = list(zip(pairs.first.tolist(), pairs.second.tolist()))
    assert found == sorted(true_pairs | matched | candidate) and max(pairs.second) >= n_rows
    for pair, *flags in zip(found, pairs.true, pairs.matched, pairs.candidate):
        assert flags == [pair in true_pairs, pair in matched, pair in candidate]
    assert np.isfinite(pairs.fused).all()


def test_groups_hold_what_the_catalogue_brought():
    embeddings, held_out = halved()
    setting = in_the_catalogue(embeddings, held_out)
    judged = judge_pairs(setting.spaces, RULES[0], setting.groups.codes)
    links = {(row, int(other)) for row, matches in enumerate(judged.matches) for other in matches}
    for group in found_groups(judged):
        members = {*group.right.tolist(), *group.wrong.tolist()}
        assert any(row < len(setting) for row in members)
        tied = {min(members)}
        while more := {b for pair in links for a, b in (pair, pair[::-1]) if a in tied and b not in tied}:
            tied |= more
        assert tied == members
    named = {row for group in found_groups(judged) for row in (*group.right, *group.wrong)}
    assert any(row >= len(setting) for row in named)


@pytest.fixture(scope='module')
def catalogue_page():
    embeddings, held_out = halved()
    settings = {setting.name: setting for setting in
                (in_the_catalogue(embeddings, held_out), among_themselves(embeddings.take(held_out)))}
    whole, of_rows = settings.values()
    found = ladder(whole, 'quick', halvings=2)
    table = {'fused': found.fused, 'rule': found.heldout}
    plain = ladder(of_rows, 'plain', halvings=2).heldout
    others = {of_rows.name: {'fused': plain, 'rule': found.scores_in(of_rows), 'untrained_fused': plain}}
    page_html = report_html(embeddings, found.rule, table, made_run().image_files,
                            Origin(settings, others, found))
    return page_html, settings, found, others


def test_the_page_tells_both_settings(catalogue_page):
    page_html, settings, found, others = catalogue_page
    whole, of_rows = settings.values()
    reader = Reader(page_html)
    assert reader.texts('h2') == [section for section in SECTIONS if section != 'Training']
    n_rows = len(whole)
    assert reader.texts('h1') == [f'{n_rows} listings matched by image, title and tfidf']
    assert reader.texts('h3')[:2] == [
        f'In the catalogue: each of {n_rows} listings looked up among 60',
        f'Among themselves: each of {n_rows} listings looked up among {n_rows}']
    assert reader.by_id['f1'] == f'{found.heldout.mean:.3f}'
    assert 'row F1, in the catalogue' in page_html and 'row F1, among themselves' in page_html
    assert 'looked up in a catalogue of 60' in page_html and 'plain fusion among themselves' in page_html
    tiles = re.findall(r'row F1, among themselves<b>([\d.]+)</b>', page_html)
    assert tiles == [f'{others[of_rows.name]["rule"].mean:.3f}']


def test_its_figures_are_those_of_the_catalogue(catalogue_page):
    page_html, settings, found, _ = catalogue_page
    whole = settings['in the catalogue']
    matches = found.rule.apply(whole.spaces)
    scores = row_f1(matches, whole.groups)
    reader = Reader(page_html)
    assert reader.by_id['at-threshold'] == f'{scores.mean():.5f}'
    assert reader.by_id['exact'] == f'{(scores == 1).mean():.0%}'
    embeddings, _ = halved()
    row_of = {embeddings.ids[row]: position for position, row in enumerate(whole.order)}
    matches_of = list(matches)
    shown = mistakes_of(page_html)
    assert shown
    for kind, posting_ids, *_ in shown:
        first, second = sorted(row_of[posting_id] for posting_id in posting_ids)
        assert first < len(whole)
        is_matched = second in matches_of[first] or (second < len(whole) and first in matches_of[second])
        assert is_matched == (kind == 'wrong')
        assert (whole.groups.codes[first] == whole.groups.codes[second]) == (kind == 'missed')


def test_a_threshold_that_moves_with_the_pool_is_the_one_that_is_judged():
    "The threshold for so many listings, not the one that the rule holds for another pool."
    embeddings = made_run().embeddings
    rule = Rule(
        'mean', {'image': 1.0}, 0.9, 8, pools=dict(sizes=[60, 600], thresholds=[0.4, 0.9], per_doubling=0.1)
    )
    judged = judge_pairs(embeddings.spaces(only=('image',)), rule, embeddings.groups)
    assert judged.rule.threshold == .4 and judged.pairs.matched.any()
    reader = Reader(report_html(embeddings, rule, made_run().table))
    assert reader.by_id['at-threshold'] == f'{row_f1(judged.matches, embeddings.groups).mean():.5f}'


def test_pictures_must_be_of_all_listings():
    embeddings, held_out = halved()
    whole = in_the_catalogue(embeddings, held_out)
    table = {'fused': ladder(whole, 'plain', halvings=1).heldout}
    with pytest.raises(InputError, match='images: 3 for 60 listings'):
        report_html(embeddings, RULES[0], table, ['x'] * 3, Origin({whole.name: whole}, {}))
