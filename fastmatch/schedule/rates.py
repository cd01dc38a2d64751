"""Learning rates of parameter groups: by name, as factors on one rate, and in which form they were given."""
import math
from contextlib import contextmanager
from numbers import Integral, Real

from ..core import InputError

# name under which a group's rate may be given -> the group, where the model has no group of the first name
ALIASES = {'text': 'title'}


def _by_group(
    model,  # A model with `param_groups()`, which returns parameters by name of group, as `MatchNet` has
    values: dict,  # Values by name of group
    what: str,  # What they are, for the message
) -> tuple[dict, list]:  # (group -> value, names of all groups)
    "Values by the model's own names of its groups; `InputError` for a name that no group has."
    if not hasattr(model, 'param_groups'):
        name = type(model).__name__
        raise InputError(f'{what} by name ask for a model with `param_groups()`; {name} has none')
    group_names = list(model.param_groups())
    named = {}
    for name, value in values.items(): named[name if name in group_names else ALIASES.get(name, name)] = value
    if len(named) < len(values):
        raise InputError(f'{what} are given for {list(values)}: two of them are of the same group')
    if not set(named) <= set(group_names):
        raise InputError(f'{what} are given for {list(values)}; the groups are {group_names}')
    return named, group_names


def named_rates(
    model,  # A model with `param_groups()`, which returns parameters by name of group, as `MatchNet` has
    rates: dict[str, float],  # Learning rate of each group, by its name
) -> list[float]:
    "Learning rates in the order of the model's parameter groups; `InputError` unless each group has one."
    by_group, group_names = _by_group(model, rates, 'rates')
    if len(by_group) < len(group_names):
        raise InputError(f'rates are given for {list(rates)}; the groups are {group_names}')
    return [by_group[group] for group in group_names]


def rate_factors(
    model,  # A model with `param_groups()`, which returns parameters by name of group, as `MatchNet` has
    factors: dict[str, float],  # Factor on one learning rate, by name of group
) -> list[float]:
    """Factors in the order of the model's parameter groups, 1 for those not named; `InputError` for a name
    that no group has."""
    if not isinstance(factors, dict):
        raise InputError(f'factors on the learning rate are a dict by name of group, not {factors!r}')
    by_group, group_names = _by_group(model, factors, 'factors on the learning rate')
    for name, factor in factors.items():
        if not isinstance(factor, Real) or not 0 <= factor < math.inf:
            raise InputError(f'the factor on the learning rate of {name!r} is {factor!r}: '
                             'give a number, 0 or above')
    return [by_group.get(group, 1.) for group in group_names]


def is_one_rate(
    lr,  # Learning rate in any form that a `fit_*` takes
) -> bool:
    "Whether a rate was given as one number, and not as a list, a slice, or a dict by name of group."
    return isinstance(lr, Real) or getattr(lr, 'ndim', None) == 0


def for_optimizer(
    learner,  # fastai `Learner`
    lr,  # Learning rate in any form that a `fit_*` takes
):
    """A learning rate as fastai's optimizers take it: a dict in the order of the groups, one rate as a float.

    Raises `InputError` for what is no rate, and for more or fewer rates than there are groups.
    """
    if lr is None: return None
    if isinstance(lr, dict): lr = named_rates(learner.model, lr)
    check_rates(lr)
    if is_one_rate(lr): return float(lr)
    if isinstance(lr, slice): return lr
    if learner.opt is None: learner.create_opt()
    n_groups = len(learner.opt.param_lists)
    # fastai takes one rate in a list for all groups
    if len(lr) in (1, n_groups): return lr
    names = f' {list(learner.model.param_groups())}' if hasattr(learner.model, 'param_groups') else ''
    raise InputError(f'lr={list(lr)}: {len(lr)} rates for the {n_groups} parameter groups{names}')


def check_rates(
    lr,  # Learning rate, or rates, in any form but a dict by name of group
):
    "Raise `InputError` unless each rate is a number, 0 or above."
    if isinstance(lr, slice): rates = [rate for rate in (lr.start, lr.stop) if rate is not None]
    elif is_one_rate(lr) or isinstance(lr, str) or not hasattr(lr, '__len__'): rates = [lr]
    else: rates = lr
    if len(rates) and all(_is_rate(rate) for rate in rates): return
    raise InputError(f'lr={lr!r}: a learning rate is a number, 0 or above')


def _is_rate(rate): return is_one_rate(rate) and 0 <= float(rate) < math.inf


@contextmanager
def rates_as_given(
    learner,  # fastai `Learner`
    lr,  # Learning rate in any form that a `fit_*` takes; None: the learner's
):
    """Context of a training: `learner.given_rates` is what the user gave as learning rate.

    A schedule reads rates back from the optimizer, where one number for all groups and a list of equal
    numbers look alike; `GroupRates` spreads the one and leaves the other as it is. Of nested calls the
    outermost counts.
    """
    given_outside = getattr(learner, 'given_rates', None)
    if given_outside is None: learner.given_rates = learner.lr if lr is None else lr
    try: yield
    finally: learner.given_rates = given_outside


def check_epochs(
    n_epoch,  # Epochs of a training
    what: str = 'n_epoch',  # Name of the option, for the message
):
    "Raise `InputError` unless `n_epoch` is an integer above 0."
    if isinstance(n_epoch, Integral) and n_epoch > 0: return
    raise InputError(f'{what}={n_epoch!r}: give a whole number of epochs, 1 or more')
