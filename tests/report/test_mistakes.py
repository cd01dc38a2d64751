"The worst mistakes against loops over the definitions, and as the page shows them."
from typing import NamedTuple

import numpy as np
import pytest

from fastmatch.match import Dense, Rule
from fastmatch.report import report_html
from fastmatch.report.groups import found_groups
from fastmatch.report.mistakes import worst_false, worst_missed
from fastmatch.report.pairs import judge_pairs
from tests.report.made import made_run
from tests.report.reader import Reader, mistakes_of
from tests.report.test_pairs import RULES, random_case


class Pair(NamedTuple):
    "Two rows, whether they are of one group, and whether they match."
    score: float
    first: int
    second: int
    true: bool
    matched: bool


@pytest.mark.parametrize('seed', range(6))
def test_worst_mistakes_are_the_worst(seed):
    case = random_case(seed, *RULES[0], n_listings=40)
    groups, judged = case.groups, case.judged
    pairs = judged.pairs
    all_pairs = [Pair(float(score), int(first), int(second), bool(true), bool(matched))
                 for score, first, second, true, matched
                 in zip(pairs.fused, pairs.first, pairs.second, pairs.true, pairs.matched)]
    for worst, is_wrong, groups_of, sign in (
            (worst_false, lambda pair: pair.matched and not pair.true,
             lambda pair: frozenset((groups[pair.first], groups[pair.second])), -1),
            (worst_missed, lambda pair: pair.true and not pair.matched, lambda pair: groups[pair.first], 1)):
        worst_of = {}
        for pair in filter(is_wrong, all_pairs):
            key = groups_of(pair)
            if key not in worst_of or sign * pair.score < sign * worst_of[key].score: worst_of[key] = pair
        expected = sorted(worst_of.values(), key=lambda pair: (sign * pair.score, pair.first, pair.second))
        assert len(expected) > 2
        for n_shown in (1000, 2):
            found = [(pairs.first[position], pairs.second[position]) for position in worst(judged, n_shown)]
            assert found == [(pair.first, pair.second) for pair in expected[:n_shown]]


def test_no_mistakes():
    spaces = {'image': Dense(np.eye(3)[[0, 0, 1, 1, 2]])}
    judged = judge_pairs(spaces, Rule('mean', {'image': 1.}, .5), list('aabbc'))
    assert len(worst_false(judged)) == len(worst_missed(judged)) == 0
    assert [found.kind for found in found_groups(judged)] == ['right', 'right']


def test_the_mistakes_shown_are_the_worst(page_html):
    run = made_run()
    embeddings, rule = run.embeddings, run.rule
    row_of = {posting_id: row for row, posting_id in enumerate(embeddings.ids)}
    groups, spaces = embeddings.groups, embeddings.spaces()
    matches_of = list(rule.apply(spaces))
    shown = mistakes_of(page_html)
    false = [mistake for mistake in shown if mistake.kind == 'wrong']
    missed = [mistake for mistake in shown if mistake.kind == 'missed']
    assert len(false) == 9 and 0 < len(missed) <= 9

    def fused_score(first, second):
        weighted_scores = [weight * float(spaces[modality].scores(first, second))
                           for modality, weight in rule.weights.items()]
        return sum(weighted_scores) / sum(rule.weights.values())

    def is_matched(first, second): return second in matches_of[first] or first in matches_of[second]

    assert rule.how == 'mean'
    for kind, posting_ids, scores, no_candidate in shown:
        first, second = (row_of[posting_id] for posting_id in posting_ids)
        assert (groups[first] == groups[second]) == (kind == 'missed')
        assert is_matched(first, second) == (kind == 'wrong')
        assert scores['fused'] == pytest.approx(fused_score(first, second), abs=6e-4)
        assert scores['threshold'] == pytest.approx(rule.threshold, abs=6e-4)
        for modality, space in spaces.items():
            assert scores[modality] == pytest.approx(float(space.scores(first, second)), abs=6e-4)
        neighbors = [space.search(rule.k).ids for space in spaces.values()]
        is_candidate = any(second in nearest[first] or first in nearest[second] for nearest in neighbors)
        assert no_candidate == (not is_candidate)
    assert any(mistake.no_candidate for mistake in missed)
    for mistakes, sign in ((false, -1), (missed, 1)):
        assert (np.diff([sign * mistake.scores['fused'] for mistake in mistakes]) >= 0).all()
    all_pairs = [(fused_score(first, second), groups[first] == groups[second], is_matched(first, second))
                 for first in range(len(groups)) for second in range(first)]
    highest_false = max(score for score, true, matched in all_pairs if matched and not true)
    lowest_missed = min(score for score, true, matched in all_pairs if true and not matched)
    assert false[0].scores['fused'] == pytest.approx(highest_false, abs=6e-4)
    assert missed[0].scores['fused'] == pytest.approx(lowest_missed, abs=6e-4)
    assert f'{sum(matched and not true for _, true, matched in all_pairs)} false matches' in page_html
    assert f'{sum(true and not matched for _, true, matched in all_pairs)} missed matches' in page_html


def test_a_rule_that_names_nobody_and_one_that_names_all():
    embeddings, table = made_run().embeddings, made_run().table
    nobody = report_html(embeddings, Rule('mean', {'image': 1.}, 1.01, 8), table)
    assert 'No two listings match' in nobody and '0 false matches' in nobody and Reader(nobody)
    everybody = report_html(embeddings, Rule('mean', {'image': 1.}, -1., 60, 60), table)
    assert Reader(everybody).by_id['recall'] == '100%'
    assert '0 missed matches' in everybody and '60 together' in everybody
    alone = report_html(embeddings, Rule('mean', {'image': 1.}, .5, 1), table)
    assert 'No listing has a candidate' in alone and Reader(alone).by_id['precision'] == 'none'
    few = report_html(embeddings, Rule('mean', {'image': 1.}, -1., 60, 2), table)
    assert 'beyond the 2 matches a listing may have' in few
