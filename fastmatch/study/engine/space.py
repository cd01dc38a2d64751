"Search spaces: the kit's ranges by name, your own as tuples and lists; the kit's values are the first trial."
import math
from typing import Any, NamedTuple

from ...core import IMAGE_ARCH, TEXT_ARCH, InputError


class Param(NamedTuple):
    "What a study chooses for one parameter, and the value that its first trial gets."
    dist: Any  # Optuna distribution, or (low, high), (low, high, 'log'), [choices], which become one
    default: Any = None  # Value in the first trial; None: it is drawn as in any other trial


class NamedRange(NamedTuple):
    "A range that the kit knows by name, and the kit's own value."
    values: tuple | list  # (low, high), (low, high, 'log'), or a list of choices
    default: Any  # What the kit uses where nothing is searched


# The ranges are about a factor of ten to either side of what did well on the samples; margins in radians, as
# in ArcFace.
NAMED = {
    'margin': NamedRange((0., .8), .3),
    'scale': NamedRange((5., 64., 'log'), 20.),
    'loss': NamedRange(['ArcFace', 'CosFace', 'CurricularFace', 'NormSoftmax'], 'ArcFace'),
    'opt': NamedRange(['adamw', 'radam', 'adabelief', 'ranger', 'rangeradabelief', 'sgd_momentum'], 'adamw'),
    'lr': NamedRange((2e-4, 2e-2, 'log'), 2e-3),
    'wd': NamedRange((1e-4, .3, 'log'), .01),
    'eps': NamedRange((1e-8, 1e-3, 'log'), 1e-5),
    'schedule': NamedRange(['flat_cos', 'cos', 'one_cycle', 'steps', 'exp'], 'flat_cos'),
    'rho': NamedRange([0., .02, .05, .1, .2], 0.),  # 0: no SAM, and half its cost
    'image_arch': NamedRange([IMAGE_ARCH, 'mobilenetv3_large_100', 'resnet18'], IMAGE_ARCH),
    'text_arch': NamedRange([TEXT_ARCH, 'paraphrase-multilingual-MiniLM-L12-v2'], TEXT_ARCH),
    'image_pool': NamedRange([None, 'gem', 'avg', 'max', 'avgmax'], None),
    'pool': NamedRange([None, 'mean', 'cls'], None),
}


def search_space(
    *names: str,  # Of the kit's ranges, the keys of `NAMED`: 'margin', 'scale', 'loss', 'opt', 'lr', ...
    **own,  # Name -> (low, high), (low, high, 'log'), [choices], an Optuna distribution, or a `Param`
) -> dict[str, Param]:
    """What a study is to search: ranges of the kit by name, your own by keyword.

    `search_space('margin', lr=(1e-4, 1e-2, 'log'), size=[96, 128])`. A list's first choice is its default
    unless the kit has one of its own."""
    unknown = [parameter for parameter in names if parameter not in NAMED]
    if unknown:
        raise InputError(f'no space {unknown}: choose from {list(NAMED)}, '
                         'or give a range of your own: name=(low, high)')
    given_twice = set(names) & set(own)
    if given_twice: raise InputError(f'{sorted(given_twice)}: given by name and by range, give one')
    return as_space({**{parameter: NAMED[parameter].values for parameter in names}, **own})


def as_space(
    space: dict,  # Name -> what `search_space` takes, or a dict that `search_space` made
) -> dict[str, Param]:
    "A search space with its ranges checked and as Optuna distributions; an empty one raises `InputError`."
    if not isinstance(space, dict):
        raise InputError(f"space={space!r}: a dict of names, "
                         "as from search_space('margin', lr=(1e-4, 1e-2, 'log'))")
    if not space:
        raise InputError("the space is empty: name what to search, as search_space('margin', 'scale')")
    return {parameter: _param(parameter, given) for parameter, given in space.items()}


def suggest(
    trial,  # Optuna trial
    space: dict[str, Param],  # As `search_space` gives it
) -> dict:  # Name -> value
    "Ask Optuna for the trial's value of every parameter of a space."
    return {parameter: _suggest_one(trial, parameter, param.dist) for parameter, param in space.items()}


def default_values(
    space: dict[str, Param],  # As `search_space` gives it
) -> dict:  # Name -> value, without parameters that have no default
    "The values of a study's first trial: the kit as it comes."
    return {parameter: param.default for parameter, param in space.items()
            if param.default is not None or _is_choice_none(param)}


def describe_space(
    space: dict[str, Param],  # As `search_space` gives it
) -> dict[str, str]:
    "The ranges of a space in words: stored with a study, and shown where another space is refused."
    return {parameter: _describe_distribution(param.dist) for parameter, param in sorted(space.items())}


def _param(parameter, given):
    "A `Param` with an Optuna distribution, from whatever a user may give for one parameter."
    if isinstance(given, Param):
        distribution = _distribution(parameter, given.dist)
        if given.default is not None and not _contains(distribution, given.default):
            raise InputError(f'{parameter}: the first trial is to have {given.default!r}, '
                             f'which is not among {_describe_distribution(distribution)}')
        return Param(distribution, given.default)
    distribution = _distribution(parameter, given)
    kit_value = NAMED[parameter].default if parameter in NAMED else None
    if _is_choice(distribution):
        choices = distribution.choices
        return Param(distribution, kit_value if kit_value in choices else choices[0])
    inside = kit_value is not None and distribution.low <= kit_value <= distribution.high
    return Param(distribution, kit_value if inside else None)


def _distribution(parameter, values):
    "An Optuna distribution from a tuple (a range) or a list (choices)."
    from optuna import distributions
    if isinstance(values, distributions.BaseDistribution): return values
    if isinstance(values, list):
        _check_choices(parameter, values)
        return distributions.CategoricalDistribution(values)
    low, high, is_log = _read_range(parameter, values)
    # (1, 10) means whole numbers, unless the kit's own value has a fraction: then the point was left out
    has_fraction = parameter in NAMED and isinstance(NAMED[parameter].default, float)
    is_whole = isinstance(low, int) and isinstance(high, int) and not has_fraction
    distribution_class = distributions.IntDistribution if is_whole else distributions.FloatDistribution
    return distribution_class(low, high, log=is_log)


def _check_choices(parameter, choices):
    unusable = [choice for choice in choices if not isinstance(choice, (str, bool, int, float, type(None)))]
    if unusable:
        raise InputError(f'{parameter}: the choice {unusable[0]!r} is a {type(unusable[0]).__name__}; '
                         'name it by a string, or give a number')
    # to Optuna 1, 1. and True are one choice
    if not choices or len(set(choices)) < len(choices):
        raise InputError(f'{parameter}={choices}: give a list of different choices')


def _read_range(parameter, values):
    "(low, high, whether on a log scale) of a tuple."
    is_range = (isinstance(values, tuple) and len(values) in (2, 3) and values[2:] in ((), ('log',))
                and all(isinstance(end, (int, float)) for end in values[:2]))
    if not is_range:
        raise InputError(f"{parameter}={values!r}: give (low, high), (low, high, 'log') or a list of choices")
    low, high = values[:2]
    is_log = len(values) == 3
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f'{parameter}={values}: give ends that are finite')
    if not low < high:
        raise InputError(f'{parameter}={values}: the lower end comes first, below the upper one')
    if is_log and low <= 0: raise InputError(f'{parameter}={values}: on a log scale the lower end is above 0')
    return low, high, is_log


def _is_choice(distribution):
    from optuna.distributions import CategoricalDistribution
    return isinstance(distribution, CategoricalDistribution)


def _is_whole(distribution):
    from optuna.distributions import IntDistribution
    return isinstance(distribution, IntDistribution)


def _is_choice_none(param):
    "Whether None as the default is one of the choices, and not the lack of a default."
    return _is_choice(param.dist) and None in param.dist.choices


def _contains(distribution, value):
    if _is_choice(distribution): return value in distribution.choices
    if not isinstance(value, (int, float)) or not distribution.low <= value <= distribution.high: return False
    return not _is_whole(distribution) or value == int(value)


def _suggest_one(trial, parameter, distribution):
    if _is_choice(distribution): return trial.suggest_categorical(parameter, distribution.choices)
    suggest_number = trial.suggest_int if _is_whole(distribution) else trial.suggest_float
    return suggest_number(parameter, distribution.low, distribution.high, step=distribution.step,
                          log=distribution.log)


def _describe_distribution(distribution):
    "A distribution in words. Databases hold these texts: a study goes on only where they are the same."
    if _is_choice(distribution): return repr(list(distribution.choices))
    words = [f'{distribution.low:g} to {distribution.high:g}']
    if _is_whole(distribution): words.append('whole')
    if distribution.log: words.append('log')
    if distribution.step not in (None, 1): words.append(f'by {distribution.step:g}')
    return ' '.join(words)
