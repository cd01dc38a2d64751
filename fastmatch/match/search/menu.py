"What a search for a whole rule may choose from."
from dataclasses import dataclass

from ...core import InputError
from ..judge.choose import fusion_grid
from ..steps.step import Step
from .structure import DEFAULT_POWER, RuleStructure

PLAIN_FUSIONS = ('mean', 'prob_or')
MORE_FUSIONS = ('square', 'joint', 'power')
LARGE = 5_000  # listings of a pool from which a step on vectors takes seconds: fewer are tried then


@dataclass(frozen=True)
class Menu:
    """The options of each rung of the ladder.

    Steps on vectors are made for a fusion, which finds the neighbors.
    """
    more_fusions: bool = True  # Also the fusions beside the mean and probability-or
    min2: bool = True  # A lower threshold for the nearest: not where many listings have no match
    refinements: tuple = ()  # Lists of steps on vectors, `by='fused'` standing for the fusion chosen so far
    blends: tuple = ()  # (what is added to the threshold chosen so far, stages, k, min2) of blending
    rerankings: tuple = ()  # Lists of steps on neighbors
    vetoes: tuple = ()  # Lists of steps on neighbors that take pairs out
    pair_model: bool = False  # A classifier of pairs over all scores


FULL = Menu(
    refinements=(
        *((Step('augment', by=by, k=k, alpha=alpha),)
          for by in ('own', 'fused') for k in (2, 3, 4) for alpha in (None, 1.)),
        *((Step('expand', by=by, k=k, alpha=alpha),)
          for by in ('own', 'fused') for k, alpha in ((2, 1.), (3, 3.), (5, 3.)))),
    blends=tuple((shift, stages, k, min2) for shift in (0., .1, .2)
                 for stages, k in ((1, 4), (1, 10), (2, 10), (3, 10)) for min2 in (False, True)),
    rerankings=(
        *((Step('neighbor_mean', k=k, weight=.5),) for k in (2, 3)),
        *((Step('k_reciprocal', k1=k1, k2=k2, lam=lam),)
          for k1 in (2, 3, 5, 8) for k2 in (1, 2, 3) for lam in (.3, .6)),
        *((Step('standardize', k=k, floor=floor),) for k in (5, 15) for floor in (.05, .2))),
    vetoes=((Step('veto'),), (Step('mutual', k=4),), (Step('mutual', k=8),),
            (Step('veto'), Step('mutual', k=8))),
    pair_model=True)

SHORT = Menu(
    refinements=(
        (Step('augment', by='fused', k=2),), (Step('augment', by='fused', k=3, alpha=1.),),
        (Step('augment', by='own', k=2),), (Step('expand', by='fused', k=3),)),
    blends=((.1, 1, 4, False),),
    rerankings=((Step('k_reciprocal', k1=5, k2=2, lam=.6),), (Step('neighbor_mean', k=2, weight=.5),)),
    vetoes=((Step('veto'),), (Step('mutual', k=8),)),
    pair_model=True)

QUICK = Menu(
    more_fusions=False,
    refinements=((Step('augment', by='fused', k=2),), (Step('augment', by='fused', k=3, alpha=1.),)))

PLAIN = Menu(more_fusions=False, min2=False)

MENUS = {'full': FULL, 'short': SHORT, 'quick': QUICK, 'plain': PLAIN}


def menu_of(
    menu,  # A `Menu`, a name of `MENUS`, or None: 'full', and 'short' for a pool of `LARGE` listings or more
    pool: int,  # Listings searched
) -> Menu:
    "What was asked for as a `Menu`."
    if isinstance(menu, Menu): return menu
    if menu is None: return SHORT if pool >= LARGE else FULL
    if menu not in MENUS: raise InputError(f'menu={menu!r}: choose one of {", ".join(MENUS)}, or give a Menu')
    return MENUS[menu]


def fusions(
    modalities,  # Names
    hows,  # Some of 'mean', 'square', 'joint', 'prob_or', 'power'
) -> list:  # `RuleStructure`s, the plainest first
    "The fusions of `fusion_grid` as structures without any step."
    structures = []
    for how, weights, *options in fusion_grid(modalities, hows):
        power = options[0].get('power', DEFAULT_POWER) if options else DEFAULT_POWER
        structures.append(RuleStructure(how, tuple(weights.items()), power))
    # with one modality every fusion is the same
    return structures


def bound(
    steps: tuple,  # `Step`s on vectors, some `by='fused'`
    structure: RuleStructure,  # Whose fusion finds the neighbors
) -> tuple:
    "The steps with the fusion named in full; what changes queries alone comes last."
    named = [Step(step.do, on=step.on, by=structure.fusion, **step.params) if step.by == 'fused' else step
             for step in steps]
    return tuple(sorted(named, key=lambda step: step.do == 'expand'))
