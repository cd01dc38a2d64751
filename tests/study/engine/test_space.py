"Spaces by name and by plain tuples: what a trial may draw, what the first one is, and what is refused."
import inspect
import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fastmatch.core import InputError
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace
from fastmatch.optim import adamw
from fastmatch.study import Param, search_space, suggest
from fastmatch.study.engine.space import NAMED, as_space, default_values, describe_space


@pytest.mark.parametrize('name', list(NAMED))
def test_a_named_space_holds_the_kits_own_value(name):
    parameter = search_space(name)[name]
    assert parameter.default == NAMED[name].default
    if isinstance(parameter.dist, CategoricalDistribution): assert parameter.default in parameter.dist.choices
    else: assert parameter.dist.low <= parameter.default <= parameter.dist.high


def test_the_named_values_are_the_kits():
    "By the signatures themselves: whoever changes a default must change it here."
    parameters = inspect.signature(match_learner).parameters
    kit_defaults = {name: parameter.default for name, parameter in parameters.items()}
    for name in ('wd', 'image_arch', 'text_arch', 'image_pool', 'pool'):
        assert NAMED[name].default == kit_defaults[name], name
    assert kit_defaults['opt_func'] is adamw and NAMED['opt'].default == 'adamw'
    assert NAMED['eps'].default == inspect.signature(adamw).parameters['eps'].default
    assert NAMED['loss'].default == ArcFace.__name__
    assert 'ArcFace(m=.3, s=20)' in inspect.getsource(match_learner)
    assert (NAMED['margin'].default, NAMED['scale'].default) == (.3, 20.)


def test_plain_tuples_and_lists():
    space = search_space('margin', lr=(1e-4, 1e-2, 'log'), scale=(10, 40), k=(1, 9), size=[96, 128],
                         drop=(0., .5), own=Param(FloatDistribution(0, 1), .25), plain=Param((0., 1.), .5))
    assert space['lr'] == (FloatDistribution(1e-4, 1e-2, log=True), 2e-3)
    # whole numbers for a range of the user's own, but not where the kit's value has a fraction
    assert space['scale'].dist == FloatDistribution(10, 40) and space['k'] == (IntDistribution(1, 9), None)
    assert space['size'] == (CategoricalDistribution([96, 128]), 96)
    assert space['drop'] == (FloatDistribution(0, .5), None)
    assert default_values(space) == {
        'margin': .3, 'lr': 2e-3, 'scale': 20., 'size': 96, 'own': .25, 'plain': .5}
    assert as_space({'lr': (1e-4, 1e-2, 'log')})['lr'] == space['lr']
    # the kit's rate lies outside: the first trial draws
    assert search_space(lr=(1e-2, 1e-1, 'log'))['lr'].default is None
    assert default_values(search_space('image_pool')) == {'image_pool': None}


@pytest.mark.parametrize('names, own_ranges, message', [
    (('margn',), {}, "'margn'"), (('lr',), {'lr': (1, 2)}, 'lr'),
    ((), {'lr': (1e-2, 1e-4)}, 'lr=(0.01, 0.0001)'),
    ((), {'lr': (0, 1, 'log')}, 'log'), ((), {'lr': (1, 2, 'lin')}, "'lin'"), ((), {'opt': []}, 'opt'),
    ((), {'opt': ['a', 'a']}, 'opt'), ((), {'loss': [len]}, 'builtin_function'),
    ((), {'on': [0, False]}, 'different'),
    ((), {'x': (0., math.inf)}, 'finite'), ((), {'x': Param((0., 1.), 5.)}, '5.0'),
    ((), {'x': Param(['a', 'b'], 'c')}, "'c'"), ((), {'x': Param((1, 9), 2.5)}, '2.5'),
    ((), {'x': Param(3, 3)}, 'x=3'), ((), {'lr': 3}, 'lr=3')])
def test_bad_spaces_are_refused(names, own_ranges, message):
    with pytest.raises(InputError) as error: search_space(*names, **own_ranges)
    assert message in str(error.value)


@pytest.mark.parametrize('empty_space', [{}, None, ('margin',)])
def test_an_empty_space_is_refused(empty_space):
    with pytest.raises(InputError, match='space'): as_space(empty_space)


@given(low=st.floats(1e-6, 1), ratio=st.floats(1.1, 1e4), is_log=st.booleans(), seed=st.integers(0, 99))
def test_suggestions_lie_within(low, ratio, is_log, seed):
    bounds = (low, low * ratio, 'log') if is_log else (low, low * ratio)
    space = search_space(x=bounds, n=(2, 7), choice=['a', None, 3, .5, True])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    params = suggest(study.ask(), space)
    assert low <= params['x'] <= low * ratio
    assert params['n'] in range(2, 8) and isinstance(params['n'], int)
    assert params['choice'] in ('a', None, 3, .5, True)


def test_log_ranges_are_drawn_by_decades():
    space = search_space(lr=(1e-6, 1e-2, 'log'))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    learning_rates = [suggest(study.ask(), space)['lr'] for _ in range(400)]
    # half of them below the middle of the logarithms; evenly drawn, one in a hundred would be
    assert .4 < sum(math.log10(rate) < -4 for rate in learning_rates) / 400 < .6


def test_words_tell_spaces_apart():
    expected = {'lr': '0.0002 to 0.02 log', 'margin': '0 to 0.8'}
    one_way, other_way = search_space('margin', 'lr'), search_space('lr', 'margin')
    assert describe_space(one_way) == describe_space(other_way) == expected
    different_ranges = ((0., 1.), (.5, 1.), (.5, 1., 'log'), [.5, 1.], ['0.5', '1.0'], (1, 2), (1., 2.))
    assert len({repr(describe_space(search_space(x=range_given))) for range_given in different_ranges}) == 7


def test_words_are_those_of_stored_studies():
    "Databases hold these texts: other words would make an old study another one."
    space = search_space('loss', whole=(1, 8), log=(1, 8, 'log'), by=IntDistribution(0, 9, step=3),
                   half=FloatDistribution(0, 2, step=.5), empty=[None, 'a'])
    assert describe_space(space) == {
        'loss': "['ArcFace', 'CosFace', 'CurricularFace', 'NormSoftmax']", 'whole': '1 to 8 whole',
        'log': '1 to 8 whole log', 'by': '0 to 9 whole by 3', 'half': '0 to 2 by 0.5', 'empty': "[None, 'a']"}
