"Learners for the kit's named ranges: what a trial chose becomes arguments of `match_learner`."
import copy

from fastai.learner import Learner
from fastcore.foundation import L

from .. import losses
from ..callback.sharpness import SAM
from ..core import refuse_unknown_options
from ..data.block import MatchDataLoaders
from ..layers.heads import TrackedHead
from ..learner import match_learner
from ..optim import opt_func
from ..optim.registry import EPS
from .engine.space import NAMED
from .engine.work import WrongStudy

# arguments of `match_learner` by the same name
PASSED_ON = ('wd', 'image_arch', 'text_arch', 'image_pool', 'pool')


def learner_maker(
    dls,  # `MatchDataLoaders`, or a function from a trial to them
    also: tuple = (),  # Names in the space that `fit` or such a function reads
    **fixed,  # For `match_learner`, the same in each trial
):  # trial -> `MatchLearner`
    """A `make_learner` for `tune_learner` that knows the kit's named ranges.

    What it makes raises `WrongStudy` for a parameter it does not know, and for one that is both searched and
    given as `fixed`."""
    refuse_unknown_options(fixed, match_learner, Learner)

    def make(trial):
        arguments = _learner_arguments(trial.params, also, fixed)
        return match_learner(dls if isinstance(dls, MatchDataLoaders) else dls(trial), **arguments)
    return make


def make_loss(
    params: dict,  # A trial's values: of 'loss', 'margin' and 'scale' what was chosen
):
    "The loss of a trial, with the kit's default for what was not chosen."
    def value(parameter): return params.get(parameter, NAMED[parameter].default)
    margin = {} if value('loss') == 'NormSoftmax' else {'m': value('margin')}
    return getattr(losses, value('loss'))(s=value('scale'), **margin)


def _learner_arguments(params, read_by_fit, fixed_arguments):
    "The arguments of `match_learner` for a trial's parameters."
    unknown = [parameter for parameter in params if parameter not in NAMED and parameter not in read_by_fit]
    if unknown:
        raise WrongStudy(f'{unknown}: learner_maker knows {list(NAMED)}; '
                         f'name what fit reads as also={tuple(unknown)}, or write a make_learner of your own')
    # copied: callbacks and metrics hold on to the Learner they were given to
    arguments = copy.deepcopy(fixed_arguments)

    def add(parameter, argument):
        if parameter in arguments: raise WrongStudy(f'{parameter} is given and searched too: leave one out')
        arguments[parameter] = argument
    if params.keys() & {'loss', 'margin', 'scale'}:
        add('loss_func', make_loss(params))
        if params.get('loss') == 'CurricularFace': arguments.setdefault('head_func', TrackedHead)
    if params.keys() & {'opt', 'eps'}: add('opt_func', _optimizer(params))
    for parameter in PASSED_ON:
        if parameter in params: add(parameter, params[parameter])
    if params.get('rho'): arguments['cbs'] = [*L(arguments.get('cbs')), SAM(params['rho'])]
    return arguments


def _optimizer(params):
    optimizer = params.get('opt', NAMED['opt'].default)
    # plain SGD has no eps to choose
    takes_eps = 'eps' in params and optimizer.removeprefix('lookahead_') in EPS
    return opt_func(optimizer, **({'eps': params['eps']} if takes_eps else {}))
