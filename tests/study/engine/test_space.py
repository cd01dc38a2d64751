"Spaces by name and by plain tuples: what a trial may draw, what the first one is, and what is refused."
import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fastmatch.core import InputError
from fastmatch.study import Param, spaces, suggest
from fastmatch.study.engine.space import NAMED, as_space, defaults, plain


@pytest.mark.parametrize('name', list(NAMED))
def test_a_named_space_holds_the_kits_own_value(name):
    p = spaces(name)[name]
    assert p.default == NAMED[name][1] and p.dist._contains(p.dist.to_internal_repr(p.default))


def test_the_named_values_are_the_kits():
    "By the signatures themselves: whoever changes a default must change it here."
    import inspect

    from fastmatch.learner import match_learner
    from fastmatch.losses import ArcFace
    from fastmatch.optim import adamw
    own = {k: v.default for k, v in inspect.signature(match_learner).parameters.items()}
    for k in ('wd', 'image_arch', 'text_arch', 'image_pool', 'pool'): assert NAMED[k][1] == own[k], k
    assert own['opt_func'] is adamw and NAMED['opt'][1] == 'adamw' and NAMED['eps'][1] == inspect.signature(adamw).parameters['eps'].default
    assert NAMED['loss'][1] == ArcFace.__name__ and 'ArcFace(m=.3, s=20)' in inspect.getsource(match_learner)
    assert (NAMED['margin'][1], NAMED['scale'][1]) == (.3, 20.)


def test_plain_tuples_and_lists():
    s = spaces('margin', lr=(1e-4, 1e-2, 'log'), scale=(10, 40), k=(1, 9), size=[96, 128], drop=(0., .5), own=Param(FloatDistribution(0, 1), .25), plain=Param((0., 1.), .5))
    assert s['lr'] == (FloatDistribution(1e-4, 1e-2, log=True), 2e-3)
    # whole numbers for a range of the user's own, but not where the kit's value has a fraction
    assert s['scale'].dist == FloatDistribution(10, 40) and s['k'] == (IntDistribution(1, 9), None)
    assert s['size'] == (CategoricalDistribution([96, 128]), 96) and s['drop'] == (FloatDistribution(0, .5), None)
    assert defaults(s) == {'margin': .3, 'lr': 2e-3, 'scale': 20., 'size': 96, 'own': .25, 'plain': .5}
    assert as_space({'lr': (1e-4, 1e-2, 'log')})['lr'] == s['lr']
    # the kit's rate lies outside: the first trial draws
    assert spaces(lr=(1e-2, 1e-1, 'log'))['lr'].default is None
    assert defaults(spaces('image_pool')) == {'image_pool': None}


@pytest.mark.parametrize('names, own, words', [
    (('margn',), {}, "'margn'"), (('lr',), {'lr': (1, 2)}, 'lr'), ((), {'lr': (1e-2, 1e-4)}, 'lr=(0.01, 0.0001)'), ((), {'lr': (0, 1, 'log')}, 'log'),
    ((), {'lr': (1, 2, 'lin')}, "'lin'"), ((), {'opt': []}, 'opt'), ((), {'opt': ['a', 'a']}, 'opt'), ((), {'loss': [len]}, 'builtin_function'), ((), {'on': [0, False]}, 'different'), ((), {'x': (0., math.inf)}, 'finite'),
    ((), {'x': Param((0., 1.), 5.)}, '5.0'), ((), {'x': Param(['a', 'b'], 'c')}, "'c'"), ((), {'x': Param((1, 9), 2.5)}, '2.5'), ((), {'x': Param(3, 3)}, 'x=3'), ((), {'lr': 3}, 'lr=3')])
def test_bad_spaces_are_refused(names, own, words):
    with pytest.raises(InputError) as e: spaces(*names, **own)
    assert words in str(e.value)


@pytest.mark.parametrize('bad', [{}, None, ('margin',)])
def test_an_empty_space_is_refused(bad):
    with pytest.raises(InputError, match='space'): as_space(bad)


@given(low=st.floats(1e-6, 1), ratio=st.floats(1.1, 1e4), log=st.booleans(), seed=st.integers(0, 99))
def test_suggestions_lie_within(low, ratio, log, seed):
    s = spaces(x=(low, low * ratio, *(['log'] if log else [])), n=(2, 7), c=['a', None, 3, .5, True])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    p = suggest(study.ask(), s)
    assert low <= p['x'] <= low * ratio and p['n'] in range(2, 8) and p['c'] in ('a', None, 3, .5, True) and isinstance(p['n'], int)


def test_log_ranges_are_drawn_by_decades():
    s, study = spaces(lr=(1e-6, 1e-2, 'log')), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    x = [suggest(study.ask(), s)['lr'] for _ in range(400)]
    # half of them below the middle of the logarithms; evenly drawn, one in a hundred would be
    assert .4 < sum(math.log10(o) < -4 for o in x) / 400 < .6


def test_words_tell_spaces_apart():
    a = plain(spaces('margin', 'lr'))
    assert a == plain(spaces('lr', 'margin')) == {'lr': '0.0002 to 0.02 log', 'margin': '0 to 0.8'}
    assert len({repr(plain(spaces(x=o))) for o in ((0., 1.), (.5, 1.), (.5, 1., 'log'), [.5, 1.], ['0.5', '1.0'], (1, 2), (1., 2.))}) == 7
