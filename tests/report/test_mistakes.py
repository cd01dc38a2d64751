"The worst mistakes against loops over the definitions, and as the page shows them."
import numpy as np
import pytest

from fastmatch.match import Dense, Rule
from fastmatch.report import report_html
from fastmatch.report.groups import found_groups
from fastmatch.report.mistakes import worst_false, worst_missed
from fastmatch.report.pairs import judge_pairs
from tests.report.made import run
from tests.report.reader import Reader, mistakes_of
from tests.report.test_pairs import RULES, case


@pytest.mark.parametrize('seed', range(6))
def test_worst_mistakes_are_the_worst(seed):
    _, groups, _, _, judged = case(seed, *RULES[0], n=40)
    pairs = judged.pairs
    rows = [(float(score), int(i), int(j), bool(true), bool(matched)) for score, i, j, true, matched
            in zip(pairs.fused, pairs.first, pairs.second, pairs.true, pairs.matched)]
    for worst, is_wrong, key, sign in (
            (worst_false, lambda row: row[4] and not row[3],
             lambda row: frozenset((groups[row[1]], groups[row[2]])), -1),
            (worst_missed, lambda row: row[3] and not row[4], lambda row: groups[row[1]], 1)):
        best = {}
        for row in filter(is_wrong, rows):
            if key(row) not in best or sign * row[0] < sign * best[key(row)][0]: best[key(row)] = row
        want = sorted(best.values(), key=lambda row: (sign * row[0], row[1], row[2]))
        assert len(want) > 2
        for n in (1000, 2):
            found = [(pairs.first[at], pairs.second[at]) for at in worst(judged, n)]
            assert found == [row[1:3] for row in want[:n]]


def test_no_mistakes():
    spaces = {'image': Dense(np.eye(3)[[0, 0, 1, 1, 2]])}
    judged = judge_pairs(spaces, Rule('mean', {'image': 1.}, .5), list('aabbc'))
    assert len(worst_false(judged)) == len(worst_missed(judged)) == 0
    assert [found.kind for found in found_groups(judged)] == ['right', 'right']


def test_the_mistakes_shown_are_the_worst(html):
    embeddings, rule, *_ = run()
    row_of = {posting_id: i for i, posting_id in enumerate(embeddings.ids)}
    groups = embeddings.groups
    spaces = embeddings.spaces()
    sets = list(rule.apply(spaces))
    shown = mistakes_of(html)
    false = [mistake for mistake in shown if mistake[0] == 'wrong']
    missed = [mistake for mistake in shown if mistake[0] == 'missed']
    assert len(false) == 9 and 0 < len(missed) <= 9

    def fused_score(i, j):
        parts = [weight * float(spaces[name].scores(i, j)) for name, weight in rule.weights.items()]
        return sum(parts) / sum(rule.weights.values())

    assert rule.how == 'mean'
    for kind, ids, scores, no_candidate in shown:
        i, j = (row_of[posting_id] for posting_id in ids)
        assert (groups[i] == groups[j]) == (kind == 'missed')
        assert (j in sets[i] or i in sets[j]) == (kind == 'wrong')
        assert scores['fused'] == pytest.approx(fused_score(i, j), abs=6e-4)
        assert scores['threshold'] == pytest.approx(rule.threshold, abs=6e-4)
        for name, space in spaces.items():
            assert scores[name] == pytest.approx(float(space.scores(i, j)), abs=6e-4)
        found = [space.search(rule.k).ids for space in spaces.values()]
        near = any(j in nearest[i] or i in nearest[j] for nearest in found)
        assert no_candidate == (not near)
    assert any(mistake[3] for mistake in missed)
    for part, sign in ((false, -1), (missed, 1)):
        assert (np.diff([sign * mistake[2]['fused'] for mistake in part]) >= 0).all()
    every = [(fused_score(i, j), groups[i] == groups[j], j in sets[i] or i in sets[j])
             for i in range(len(groups)) for j in range(i)]
    highest = max(score for score, true, matched in every if matched and not true)
    lowest = min(score for score, true, matched in every if true and not matched)
    assert false[0][2]['fused'] == pytest.approx(highest, abs=6e-4)
    assert missed[0][2]['fused'] == pytest.approx(lowest, abs=6e-4)
    assert f'{sum(matched and not true for _, true, matched in every)} false matches' in html
    assert f'{sum(true and not matched for _, true, matched in every)} missed matches' in html


def test_a_rule_that_names_nobody_and_one_that_names_all():
    embeddings, _, table, _ = run()
    nobody = report_html(embeddings, Rule('mean', {'image': 1.}, 1.01, 8), table)
    assert 'No two listings match' in nobody and '0 false matches' in nobody and Reader(nobody)
    everybody = report_html(embeddings, Rule('mean', {'image': 1.}, -1., 60, 60), table)
    assert Reader(everybody).by_id['recall'] == '100%'
    assert '0 missed matches' in everybody and '60 together' in everybody
    alone = report_html(embeddings, Rule('mean', {'image': 1.}, .5, 1), table)
    assert 'No listing has a candidate' in alone and Reader(alone).by_id['precision'] == 'none'
    few = report_html(embeddings, Rule('mean', {'image': 1.}, -1., 60, 2), table)
    assert 'beyond the 2 matches a listing may have' in few
