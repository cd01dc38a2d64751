"Matched groups beside the true ones, against a loop over the definition, and as the page shows them."
import re

import numpy as np
import pytest

from fastmatch.report.groups import Found, found_groups, varied
from tests.reference import match as reference
from tests.report.test_pairs import RULES, case


@pytest.mark.parametrize('seed', range(6))
def test_groups_beside_their_true_group(seed):
    _, groups, _, _, judged = case(seed, *RULES[0], quantile=.93)
    member = reference.group([matches.tolist() for matches in judged.matches])
    found = found_groups(judged)
    sets = [set(np.flatnonzero(member == number).tolist()) for number in range(member.max() + 1)]
    together = [{*each.right.tolist(), *each.wrong.tolist()} for each in found]
    assert together == [rows for rows in sets if len(rows) > 1]
    for each in found:
        true_group, = {groups[i] for i in each.right}
        assert true_group not in {groups[i] for i in each.wrong}
        here = [groups[i] for i in (*each.right, *each.wrong)]
        assert here.count(true_group) == max(map(here.count, here))
        outside = [i for i in range(len(groups)) if groups[i] == true_group and i not in each.right]
        assert each.missed.tolist() == outside
        assert each.kind == ('mixed' if len(set(here)) > 1 else 'incomplete' if len(each.missed) else 'right')


def test_varied_shows_each_kind_from_large_to_small():
    def make(right, wrong, missed): return Found(np.arange(right), np.arange(wrong), np.arange(missed))
    found = [*(make(i, 0, 0) for i in range(2, 20)), make(3, 0, 1), make(2, 1, 0), make(5, 4, 0)]
    shown = varied(found, 3)
    assert [each.kind for each in shown] == ['right'] * 3 + ['incomplete'] + ['mixed'] * 2
    assert [len(each) for each in shown[:3]] == [19, 11, 2] and [len(each) for each in shown[4:]] == [9, 3]


def test_marks_say_what_colors_say(html):
    body = html[html.index('class="groups"'):html.index('Worst mistakes</h2>')]
    for kind, mark in (('right', '✓'), ('wrong', '✗'), ('missed', '○')):
        count = len(re.findall(rf'<div class="listing is-{kind}">', body))
        assert count and len(re.findall(rf'<p class="{kind}">{mark} {kind}</p>', body)) == count
