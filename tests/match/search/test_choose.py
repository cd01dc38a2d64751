"The quick rule of a setting: it works there as it says, and knows thresholds for other pools."
import pytest

from fastmatch.core import InputError
from fastmatch.match import candidates, choose_rule, ladder, row_f1
from tests.match.search.made import listings, settings


@pytest.mark.parametrize('setting_number', [0, 1])
def test_a_rule_for_a_setting(setting_number):
    setting = settings(listings())[setting_number]
    rule = choose_rule(setting)
    decision = rule.run(setting.spaces)
    # in the pool that it was chosen in the threshold is the one that was chosen
    assert decision.rule.threshold == pytest.approx(rule.threshold)
    assert row_f1(decision.matches, setting.groups).mean() == pytest.approx(
        rule.score['row_f1_chosen_on'], abs=1e-5)
    assert rule.pools.measured == setting.pool and rule.at(4 * setting.pool).threshold >= rule.threshold
    assert rule.steps == ladder(setting, 'quick', halvings=1).rule.steps


def test_refused():
    alone, _ = settings(listings())
    with pytest.raises(InputError, match='groups: give the true groups'):
        choose_rule(candidates({'image': alone.spaces['image']}, 10))
    with pytest.raises(InputError, match='groups and grid are for candidates'):
        choose_rule(alone, groups=alone.groups)
