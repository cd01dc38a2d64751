"What rules may be made of: the space for Optuna holds every choice, and a trial becomes one structure."
import pytest
from optuna.trial import FixedTrial

from fastmatch.core import InputError
from fastmatch.match import Step
from fastmatch.match.thresholds.flat import FUSED
from fastmatch.study.engine.space import default_values
from fastmatch.study.rule_space import (
    FUSION_NUMBERS,
    QUICK,
    REFINEMENTS,
    RuleChoices,
    RuleStructure,
    check_refinements,
    rule_space,
    suggest_structure,
)

NAMES = ('image', 'title')


def test_every_structure_is_in_the_space():
    space = rule_space(NAMES)
    assert set(space) == {'how', 'steps', 'min2', 'power', 'weight.image', 'weight.title', 'exponent.image',
                          'exponent.title', 'cut.image', 'cut.title'}
    assert set(rule_space(('image',), ('mean',))) == {'steps', 'min2'}
    small_space = rule_space(NAMES, ('union',), ('none',), (50, 5))
    assert set(small_space) == {'max_matches', 'min2', 'cut.image', 'cut.title'}
    assert space['how'].default == 'mean' and space['steps'].default == 'none'


def test_every_fusion_has_a_number(): assert set(FUSION_NUMBERS) == set(FUSED)


def test_a_trial_becomes_a_structure():
    space = rule_space(NAMES, max_matches=(50, 5))

    def structure_of(**params):
        trial = FixedTrial({**default_values(space), **params})
        return suggest_structure(trial, space, NAMES, FUSED, (50, 5))
    equal_weights = (('image', 1.), ('title', 1.))
    assert structure_of() == RuleStructure('mean', equal_weights)
    params = dict(how='power', steps='blend', min2=True, max_matches=5, power=2.)
    chosen_structure = structure_of(**params, **{'cut.image': .3})
    assert chosen_structure == RuleStructure('power', (('image', .3), ('title', .6)), 2., 'blend', 2, 5)
    assert str(chosen_structure) == 'power of image 0.3, title 0.6, power 2, blend, min2'
    # weights that are all 0 weigh nothing: they are equal
    assert structure_of(**{'weight.image': 0., 'weight.title': 0.}).weights == equal_weights


def test_refinements_are_steps():
    assert all(isinstance(step, Step) for steps in REFINEMENTS.values() for step in steps)
    assert list(check_refinements(('blend', 'none'))) == ['none', 'blend']
    assert check_refinements({'own': 'expand'}) == {'none': (), 'own': (Step('expand'),)}
    assert set(QUICK) <= set(REFINEMENTS)


def test_choices_are_checked():
    choices = RuleChoices(hows='union', max_matches=7)
    assert choices.hows == ('union',) and choices.max_matches == (7,)
    for wrong_choice in ((), ('mean', 'magic')):
        with pytest.raises(InputError, match='hows'): RuleChoices(hows=wrong_choice)
    for wrong_choice in (0, (), (3, 2.5)):
        with pytest.raises(InputError, match='max_matches'): RuleChoices(max_matches=wrong_choice)
