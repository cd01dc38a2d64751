"Matched groups beside the true ones, against a loop over the definition, and as the page shows them."
import re

import numpy as np
import pytest

from fastmatch.report.groups import Found, found_groups, varied
from tests.reference import match as reference
from tests.report.test_pairs import RULES, random_case


@pytest.mark.parametrize('seed', range(6))
def test_groups_beside_their_true_group(seed):
    case = random_case(seed, *RULES[0], quantile=.93)
    groups, judged = case.groups, case.judged
    group_of = reference.group([matches.tolist() for matches in judged.matches])
    found = found_groups(judged)
    matched_rows = [set(np.flatnonzero(group_of == number).tolist()) for number in range(group_of.max() + 1)]
    together = [{*group.right.tolist(), *group.wrong.tolist()} for group in found]
    assert together == [rows for rows in matched_rows if len(rows) > 1]
    for group in found:
        true_group, = {groups[row] for row in group.right}
        assert true_group not in {groups[row] for row in group.wrong}
        true_groups = [groups[row] for row in (*group.right, *group.wrong)]
        assert true_groups.count(true_group) == max(map(true_groups.count, true_groups))
        outside = [row for row in range(len(groups)) if groups[row] == true_group and row not in group.right]
        assert group.missed.tolist() == outside
        is_mixed = len(set(true_groups)) > 1
        assert group.kind == ('mixed' if is_mixed else 'incomplete' if len(group.missed) else 'right')


def test_varied_shows_each_kind_from_large_to_small():
    def found_group(n_right, n_wrong, n_missed):
        return Found(np.arange(n_right), np.arange(n_wrong), np.arange(n_missed))
    right_groups = [found_group(n_right, 0, 0) for n_right in range(2, 20)]
    found = [*right_groups, found_group(3, 0, 1), found_group(2, 1, 0), found_group(5, 4, 0)]
    shown = varied(found, 3)
    assert [group.kind for group in shown] == ['right'] * 3 + ['incomplete'] + ['mixed'] * 2
    assert [len(group) for group in shown[:3]] == [19, 11, 2]
    assert [len(group) for group in shown[4:]] == [9, 3]


def test_marks_say_what_colors_say(page_html):
    section = page_html[page_html.index('class="groups"'):page_html.index('Worst mistakes</h2>')]
    for kind, mark in (('right', '✓'), ('wrong', '✗'), ('missed', '○')):
        count = len(re.findall(rf'<div class="listing is-{kind}">', section))
        assert count and len(re.findall(rf'<p class="{kind}">{mark} {kind}</p>', section)) == count
