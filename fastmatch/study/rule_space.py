"What a tuned rule may be made of: fusions, refinements, limits; as a space for Optuna, or one choice of it."
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import InputError
from ..match.matches import MAX_MATCHES
from ..match.search.menu import bound
from ..match.search.structure import DEFAULT_POWER, RuleStructure
from ..match.steps.step import Step, as_step
from ..match.thresholds.flat import FUSED
from .engine.space import Param, suggest

# What may be done before the threshold. Steps on vectors cost one more search and are quick from then on;
# steps on neighbors are done in every trial.
REFINEMENTS = {
    'none': (),
    'expand': (Step('expand', k=3),),
    'augment': (Step('augment', k=2),),
    'blend': (Step('blend', threshold=.7),),
    'augment_fused': (Step('augment', by='fused', k=3),),
    'augment_twice': (Step('augment', by='fused', k=3), Step('augment', by='fused', k=2)),
    'augment_expand': (Step('augment', by='fused', k=3), Step('expand', by='fused', k=3, alpha=1.)),
    'standardize': (Step('standardize'),),
    'neighbor_mean': (Step('neighbor_mean', weight=.5),),
    'k_reciprocal': (Step('k_reciprocal'),),
    'mutual': (Step('mutual'),),
}
QUICK = ('none', 'expand', 'augment', 'blend', 'augment_fused', 'augment_twice', 'augment_expand')

# Which number a fusion has of each modality: a weight, an exponent, or a threshold. Parameters are named by
# it, and stored studies hold such names ('cut.image').
FUSION_NUMBERS = {
    'mean': 'weight', 'square': 'weight', 'joint': 'weight',
    'prob_or': 'exponent',
    'power': 'cut', 'union': 'cut', 'above': 'cut',
}


@dataclass(frozen=True)
class RuleChoices:
    "What `tune_rule` may choose from; it takes each field as a keyword: `tune_rule(embeddings, min2=False)`."
    hows: Any = None  # Fusions, the default first; None: `FUSED`, 'joint' only where listings lack a modality
    steps: Any = QUICK  # Refinements: names of `REFINEMENTS`, or {name: steps} of your own
    max_matches: Any = (MAX_MATCHES,)  # Most matches a row: one number, or several to choose from
    min2: bool = True  # Whether the nearest may have a lower threshold: not where many listings have no match

    def __post_init__(self):
        is_number = isinstance(self.max_matches, (int, np.integer))
        limits = (self.max_matches,) if is_number else tuple(self.max_matches)
        if not limits or not all(isinstance(limit, (int, np.integer)) and limit >= 1 for limit in limits):
            raise InputError(f'max_matches={self.max_matches}: whole numbers from 1')
        # the way to set fields of a frozen dataclass
        object.__setattr__(self, 'max_matches', tuple(map(int, limits)))
        if self.hows is None: return
        fusions = (self.hows,) if isinstance(self.hows, str) else tuple(self.hows)
        if not fusions or set(fusions) - set(FUSED):
            raise InputError(f'hows={list(fusions)}: choose from {", ".join(FUSED)}')
        object.__setattr__(self, 'hows', fusions)


def rule_space(
    modalities,  # Modalities
    hows=FUSED,  # Fusions to choose from, the plainest first
    steps=QUICK,  # Names of refinements to choose from
    max_matches=(MAX_MATCHES,),  # Most matches a row to choose from
    min2: bool = True,  # Whether the nearest may have a threshold of its own
    fields: tuple = (),  # Columns of the table that may be fused where the numbers are weights
) -> dict[str, Param]:
    "The space that `tune_rule` searches; its first trial has the first of each choice: the plain rule."
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    ranges = {
        'weight': Param(FloatDistribution(0, 1), 1.),
        'exponent': Param(FloatDistribution(.25, 8, log=True), 1.),
        'cut': Param(FloatDistribution(.05, 1), .6),
    }
    min2_options = (False, True) if min2 else (False,)
    choices = {'how': hows, 'steps': steps, 'max_matches': max_matches, 'min2': min2_options}
    # with one option there is nothing to choose
    space = {parameter: Param(CategoricalDistribution(list(options)), next(iter(options)))
             for parameter, options in choices.items() if len(options) > 1}
    if len(modalities) > 1:
        for number_kind in dict.fromkeys(FUSION_NUMBERS[fusion] for fusion in hows):
            for modality in modalities: space[f'{number_kind}.{modality}'] = ranges[number_kind]
        if 'power' in hows: space['power'] = Param(FloatDistribution(1, 16, log=True), DEFAULT_POWER)
    # the first trial leaves them out
    for field in fields: space[f'weight.{field}'] = Param(FloatDistribution(0, 1), 0.)
    return space


def suggest_structure(
    trial,  # Optuna trial, or `optuna.trial.FixedTrial` of stored parameters
    space: dict[str, Param],  # Of `rule_space`
    modalities: tuple,  # Modalities
    hows: tuple,  # Fusions of that space
    max_matches: tuple,  # Limits of that space
    steps: dict | None = None,  # Name of a refinement -> its steps; default `REFINEMENTS`
    finder: RuleStructure | None = None,  # Whose fusion finds the neighbors of steps `by='fused'`
    fields: tuple = (),  # Columns of the table, as for `rule_space`
) -> RuleStructure:
    "The structure that a trial chooses. What the space leaves no choice of is the first option."
    def choose(parameter, only_option):
        if parameter not in space: return only_option
        return suggest(trial, {parameter: space[parameter]})[parameter]
    fusion = choose('how', hows[0])
    number_kind = FUSION_NUMBERS[fusion]
    # a single modality is not in the space: its score counts as it is
    weights = {modality: choose(f'{number_kind}.{modality}', 1.) for modality in modalities}
    if number_kind == 'weight' and not any(weights.values()): weights = dict.fromkeys(modalities, 1.)
    finder_weights = tuple(weights.items())
    if number_kind == 'weight':
        of_fields = {field: choose(f'weight.{field}', 0.) for field in fields}
        weights |= {field: weight for field, weight in of_fields.items() if weight}
    plain = RuleStructure(
        fusion, tuple(weights.items()),
        power=choose('power', DEFAULT_POWER) if fusion == 'power' else DEFAULT_POWER)
    chosen_steps = (REFINEMENTS if steps is None else steps)[choose('steps', 'none')]
    vector_steps = tuple(step for step in chosen_steps if step.stage == 'vectors')
    return replace(
        plain,
        vector_steps=bound(vector_steps, finder or replace(plain, weights=finder_weights)),
        score_steps=tuple(step for step in chosen_steps if step.stage == 'neighbors'),
        ranks=2 if choose('min2', False) else 1,
        max_matches=choose('max_matches', max_matches[0]),
    )


def check_refinements(
    steps,  # Names of `REFINEMENTS`, or {name: steps}
) -> dict:  # name -> tuple of `Step`s
    "The refinements to choose from, checked; first the one that does nothing, which the first trial has."
    if isinstance(steps, str): steps = (steps,)
    if not isinstance(steps, dict):
        unknown = [refinement for refinement in steps if refinement not in REFINEMENTS]
        if unknown:
            known_refinements = ', '.join(REFINEMENTS)
            raise InputError(f'steps={unknown}: choose from {known_refinements}, or give {{name: steps}}')
        steps = {refinement: REFINEMENTS[refinement] for refinement in steps}
    steps = {refinement: _as_steps(given_steps) for refinement, given_steps in steps.items()}

    unfit_refinements = [refinement for refinement, refinement_steps in steps.items()
                         if any(step.stage == 'matches' for step in refinement_steps)]
    if unfit_refinements:
        raise InputError(f'steps {unfit_refinements}: give steps that come before the threshold '
                         '(min2 is searched anyway)')
    return {'none': (), **steps}


def _as_steps(given_steps):
    "A tuple of `Step`s from one step or several, each given in any form that `as_step` takes."
    is_one = isinstance(given_steps, (str, Step)) or callable(given_steps)
    return tuple(as_step(step) for step in ((given_steps,) if is_one else given_steps))
