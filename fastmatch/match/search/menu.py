"What a search for a whole rule may choose from."
from dataclasses import dataclass, replace

from ...core import InputError
from ..judge.choose import fusion_grid
from ..steps.step import Step
from .structure import DEFAULT_POWER, RuleStructure

PLAIN_FUSIONS = ('mean', 'prob_or')
MORE_FUSIONS = ('square', 'joint', 'power')
FIELD_SHARES = .1, .2, .3  # of a column in the sum of the weights
# kind of a column -> similarities up to which two listings contradict each other
VETOES = {'code': (.5, .9), 'number': (.5, .8)}
LARGE = 5_000  # listings of a pool from which a step on vectors takes seconds: fewer are tried then


@dataclass(frozen=True)
class Menu:
    """The options of each rung of the ladder.

    Steps on vectors are made for a fusion, which finds the neighbors.
    """
    more_fusions: bool = True  # Also the fusions beside the mean and probability-or
    fields: bool = True  # Columns of the table in the fusion, one after the other
    min2: bool = True  # A lower threshold for the nearest: not where many listings have no match
    refinements: tuple = ()  # Lists of steps on vectors, `by='fused'` standing for the fusion chosen so far
    blends: tuple = ()  # (what is added to the threshold chosen so far, stages, k, min2) of blending
    rerankings: tuple = ()  # Lists of steps on neighbors
    vetoes: tuple = ()  # Lists of steps on neighbors that take pairs out
    pair_model: bool = False  # A classifier of pairs over all scores


def _augment(k, by='fused'): return Step('augment', by=by, k=k)
def _expand(k): return Step('expand', by='fused', k=k, alpha=1.)
def _k_reciprocal(k1, k2, lam): return Step('k_reciprocal', k1=k1, k2=k2, lam=lam)


FULL = Menu(
    refinements=(
        (_augment(2),), (_augment(3),), (_augment(4),), (_augment(3, 'own'),),
        (_augment(2), _augment(2)), (_augment(3), _augment(2)),
        (_augment(2), _expand(2)), (_augment(3), _expand(3))),
    rerankings=((_k_reciprocal(3, 2, .3),), (_k_reciprocal(5, 2, .6),)),
    vetoes=((Step('veto'),),))

# everything that was tried: on the tested sets the steps that FULL leaves out added nothing
WIDE = replace(
    FULL,
    refinements=(
        *FULL.refinements, (_augment(2, 'own'),), (_expand(2),), (_expand(3),),
        (Step('augment', by='fused', k=3, alpha=1.),)),
    blends=tuple((shift, stages, k, False) for shift in (0., .1) for stages, k in ((1, 4), (2, 10))),
    rerankings=(
        *FULL.rerankings, (_k_reciprocal(8, 2, .6),), (Step('neighbor_mean', k=2, weight=.5),),
        (Step('standardize', k=10),)),
    vetoes=(*FULL.vetoes, (Step('mutual', k=8),)),
    pair_model=True)

SHORT = Menu(
    refinements=((_augment(2),), (_augment(3),), (_augment(2), _expand(2))),
    rerankings=((_k_reciprocal(5, 2, .6),),),
    vetoes=((Step('veto'),),),
    pair_model=True)

QUICK = Menu(more_fusions=False, refinements=((_augment(2),), (_augment(3),)))

PLAIN = Menu(more_fusions=False, fields=False, min2=False)

MENUS = {'full': FULL, 'wide': WIDE, 'short': SHORT, 'quick': QUICK, 'plain': PLAIN}


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


def with_field(
    structure: RuleStructure,  # A fusion whose weights are shares, see `MEANS`
    field: str,  # Name of a column that it does not fuse yet
    share: float,  # Of the column in the sum of the weights
) -> RuleStructure:
    "The fusion with a column in it; the others keep their proportions."
    total = sum(weight for _, weight in structure.weights)
    others = [(modality, round(weight / total * (1 - share), 6)) for modality, weight in structure.weights]
    return replace(structure, weights=(*others, (field, share)))


def field_vetoes(
    field: str,  # Name of a column
    kind: str | None,  # What it holds, as `Field` calls it
) -> tuple:  # Lists of steps on neighbors
    "Steps that take out the pairs whose codes or numbers contradict each other; none for other columns."
    return tuple((Step('veto', units=field, least=least),) for least in VETOES.get(kind, ()))


def finder_fusions(
    modalities,  # Names
) -> list:  # `RuleStructure`s, the most equal weights first
    """The fusions that find the neighbors of steps on vectors: means in fifths.

    Which neighbors are nearest hardly depends on the exact weights, and searches that agree share the work.
    """
    return [structure for structure in fusions(modalities, ('mean',))
            if all(round(10 * weight) % 2 == 0 for _, weight in structure.weights)]


def bound(
    steps: tuple,  # `Step`s on vectors, some `by='fused'`
    structure: RuleStructure,  # Whose fusion finds the neighbors
) -> tuple:
    "The steps with the fusion named in full; what changes queries alone comes last."
    named = [Step(step.do, on=step.on, by=structure.fusion, **step.params) if step.by == 'fused' else step
             for step in steps]
    return tuple(sorted(named, key=lambda step: step.do == 'expand'))
