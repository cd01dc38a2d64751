"Search spaces: the kit's own by name, a user's as plain tuples and lists; the kit's defaults become the first trial."
import math
from collections import namedtuple

from ...core import InputError

Param = namedtuple('Param', 'dist default', defaults=[None])
Param.__doc__ = "What a study chooses: an Optuna distribution (or what `spaces` makes one of), and the value of the first trial (None: it is drawn too)."

# name -> (what is searched, the kit's own value): (low, high), (low, high, 'log'), or a list of choices. The ranges are about a factor of ten
# to either side of what did well on the samples; margins in radians, as ArcFace's.
NAMED = {
    'margin': ((0., .8), .3),
    'scale': ((5., 64., 'log'), 20.),
    'loss': (['ArcFace', 'CosFace', 'CurricularFace', 'NormSoftmax'], 'ArcFace'),
    'opt': (['adamw', 'radam', 'adabelief', 'ranger', 'rangeradabelief', 'sgd_momentum'], 'adamw'),
    'lr': ((2e-4, 2e-2, 'log'), 2e-3),
    'wd': ((1e-4, .3, 'log'), .01),
    'eps': ((1e-8, 1e-3, 'log'), 1e-5),
    'schedule': (['flat_cos', 'cos', 'one_cycle', 'steps', 'exp'], 'flat_cos'),
    'rho': ([0., .02, .05, .1, .2], 0.),  # 0: no SAM, and half its cost
    'image_arch': (['tf_efficientnet_lite0', 'mobilenetv3_large_100', 'resnet18'], 'tf_efficientnet_lite0'),
    'text_arch': (['all-MiniLM-L6-v2', 'paraphrase-multilingual-MiniLM-L12-v2'], 'all-MiniLM-L6-v2'),
    'image_pool': ([None, 'gem', 'avg', 'max', 'avgmax'], None),
    'pool': (['mean', 'cls'], 'mean'),
}


def _dist(name, o):
    "An Optuna distribution from a tuple or a list."
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    if isinstance(o, BaseDistribution): return o
    if isinstance(o, list):
        if bad := [c for c in o if not isinstance(c, (str, bool, int, float, type(None)))]:
            raise InputError(f'{name}: the choice {bad[0]!r} is a {type(bad[0]).__name__}; name it by a string, or give a number')
        # 1, 1. and True are one choice to Optuna
        if len(o) < 1 or len(set(o)) < len(o): raise InputError(f'{name}={o}: give a list of different choices')
        return CategoricalDistribution(o)
    if not (isinstance(o, tuple) and len(o) in (2, 3) and o[2:] in ((), ('log',)) and all(isinstance(x, (int, float)) for x in o[:2])):
        raise InputError(f"{name}={o!r}: give (low, high), (low, high, 'log') or a list of choices")
    low, high, log = *o[:2], len(o) == 3
    if not all(map(math.isfinite, (low, high))): raise InputError(f'{name}={o}: give ends that are finite')
    if not low < high: raise InputError(f'{name}={o}: the lower end comes first, below the upper one')
    if log and low <= 0: raise InputError(f'{name}={o}: on a log scale the lower end is above 0')
    # (1, 10) is of whole numbers, but where the kit's own range has fractions a user's may be written without a point
    whole = isinstance(low, int) and isinstance(high, int) and not (name in NAMED and isinstance(NAMED[name][1], float))
    return (IntDistribution if whole else FloatDistribution)(low, high, log=log)


def _within(dist, x): return isinstance(x, (int, float)) and dist.low <= x <= dist.high and (not isinstance(dist.low, int) or x == int(x))


def _param(name, o):
    if isinstance(o, Param):
        dist = _dist(name, o.dist)
        if o.default is not None and not (o.default in dist.choices if hasattr(dist, 'choices') else _within(dist, o.default)):
            raise InputError(f'{name}: the first trial is to have {o.default!r}, which is not among {_words(dist)}')
        return Param(dist, o.default)
    dist, default = _dist(name, o), NAMED[name][1] if name in NAMED else None
    if hasattr(dist, 'choices'): return Param(dist, default if default in dist.choices else dist.choices[0])
    return Param(dist, default if default is not None and dist.low <= default <= dist.high else None)


def spaces(
    *names: str,  # Of `NAMED`: 'margin', 'scale', 'loss', 'opt', 'lr', 'wd', 'eps', 'schedule', 'rho', 'image_arch', 'text_arch', 'image_pool', 'pool'
    **own,  # Name -> (low, high), (low, high, 'log'), [choices] (the first is the default, where the kit has none), an Optuna distribution, or a `Param`
) -> dict[str, Param]:
    "What to search: ranges of the kit by name, your own by keyword."
    if unknown := [o for o in names if o not in NAMED]: raise InputError(f'no space {unknown}: choose from {list(NAMED)}, or give a range of your own: name=(low, high)')
    if twice := set(names) & set(own): raise InputError(f'{sorted(twice)}: given by name and by range, give one')
    return as_space({**{o: NAMED[o][0] for o in names}, **own})


def as_space(
    space,  # Of `spaces`, or the like by plain tuples and lists
) -> dict[str, Param]:
    "A checked space; an empty one is refused."
    if not isinstance(space, dict): raise InputError(f"space={space!r}: a dict of names, as from spaces('margin', lr=(1e-4, 1e-2, 'log'))")
    if not space: raise InputError("the space is empty: name what to search, as spaces('margin', 'scale')")
    return {k: _param(k, v) for k, v in space.items()}


def suggest(
    trial,  # Optuna trial
    space: dict[str, Param],  # Of `spaces`
) -> dict:
    "The trial's value for each name."
    def one(name, d):
        if hasattr(d, 'choices'): return trial.suggest_categorical(name, d.choices)
        return (trial.suggest_int if isinstance(d.low, int) else trial.suggest_float)(name, d.low, d.high, step=d.step, log=d.log)
    return {k: one(k, p.dist) for k, p in space.items()}


def defaults(
    space: dict[str, Param],  # Of `spaces`
) -> dict:
    "The values of the first trial: the kit as it comes."
    return {k: p.default for k, p in space.items() if p.default is not None or None in getattr(p.dist, 'choices', ())}


def plain(
    space: dict[str, Param],  # Of `spaces`
) -> dict[str, str]:
    "The space in words, as the storage keeps it and errors say it."
    return {k: _words(p.dist) for k, p in sorted(space.items())}


def _words(d):
    if hasattr(d, 'choices'): return repr(list(d.choices))
    # to Optuna whole numbers are another kind of parameter
    return f'{d.low:g} to {d.high:g}' + ' whole' * isinstance(d.low, int) + ' log' * d.log + (f' by {d.step:g}' if d.step not in (None, 1) else '')
