"""`Step`: one step of a rule by its name and plain values, so that a rule can be kept as json.

`STEPS` lists every step that has a name.
"""
import inspect

import numpy as np

from ...core import InputError
from ..matches import MAX_MATCHES
from ..pairs.model import PairModel
from ..pairs.rule_pairs import pair_model
from .chisel import chisel
from .cross import check_band, cross_encoder
from .group import agglomerate, group, same_group, tiers
from .min2 import min2
from .scores import k_reciprocal, mutual, neighbor_mean, standardize, veto
from .sources import one_to_one
from .vectors import augment, blend, cross_mean, expand

# what a step changes: a rule goes through them in this order
STAGES = ('vectors', 'neighbors', 'matches')


def _components(matches, neighbors, max_matches=MAX_MATCHES):
    return same_group(group(matches), neighbors, max_matches)


def _agglomerate(matches, neighbors, mean_size=2.6, least=0., max_matches=MAX_MATCHES):
    return same_group(agglomerate(neighbors, mean_size, least), neighbors, max_matches)


def _tiers(matches, neighbors, merge=.8, join=.7, pair=.3, max_matches=MAX_MATCHES):
    return same_group(tiers(neighbors, merge, join, pair), neighbors, max_matches)


# name -> (what it changes, the function)
STEPS = {
    **{function.__name__: ('vectors', function) for function in (expand, augment, blend, cross_mean)},
    **{function.__name__: ('neighbors', function)
       for function in (neighbor_mean, k_reciprocal, standardize, pair_model, cross_encoder, mutual,
                        veto)},
    'min2': ('matches', min2), 'chisel': ('matches', chisel), 'components': ('matches', _components),
    'agglomerate': ('matches', _agglomerate), 'tiers': ('matches', _tiers),
    'one_to_one': ('matches', one_to_one)}

# steps after which all listings of a group match: a rule says how many of them a listing gets
GROUPINGS = ('components', 'agglomerate', 'tiers')

# steps on neighbors after which no score is above 1, if none was before
WITHIN_ONE = ('neighbor_mean', 'k_reciprocal', 'mutual', 'veto')

# arguments that are spaces: step -> {argument: the name under which a rule finds the space}
SPACE_ARGUMENTS = {'cross_mean': {'keys': 'phash'}, 'veto': {'units': 'units'},
                   'one_to_one': {'sources': 'source'}, 'cross_encoder': {'titles': 'titles'}}


class Step:
    """One step of a rule: `Step('min2', gap=.1)`, `Step('augment', by='fused', k=2)`, or `Step(my_function)`.

    A function of your own is saved as 'module:name' and never imported by that name: whoever loads the rule
    hands it in. So is the cross-encoder of `Step('cross_encoder', scorer=..., low=.4, high=.7)`, under that
    name.
    """
    def __init__(
        self,
        # A name of `STEPS`, or a function: (space) -> space, (neighbors) -> `Neighbors`, or (matches,
        # neighbors) -> `Matches`, by its stage
        do,
        stage: str | None = None,  # Stage of a function, one of `STAGES`; default 'neighbors'
        # For a step on vectors: the modalities that it changes; default all of the rule's that have vectors
        on=None,
        # For a step on vectors: 'own' takes each modality's own neighbors, 'fused' those of all modalities
        # together as the rule fuses them, {'how': ..., 'weights': ...} (also 'options') as said here
        by: str | dict = 'own',
        **params,  # Further arguments of the function: numbers, strings, lists
    ):
        self.function = None if isinstance(do, str) else do
        self.do = do if isinstance(do, str) else _name_of_function(do)
        named_stage = None
        if self.function is None and ':' not in self.do:
            if do not in STEPS:
                raise InputError(f'step {do!r}: choose one of {", ".join(STEPS)}, or give a function')
            named_stage, self.function = STEPS[do]
            if stage not in (None, named_stage):
                raise InputError(f'step {do!r}: its stage is {named_stage!r}, not {stage!r}')
        self.stage = named_stage or stage or 'neighbors'
        if self.stage not in STAGES:
            raise InputError(f'step {self.do!r}: stage={stage!r}: choose one of {", ".join(STAGES)}')
        by = plain_value(by, f'step {self.do!r}')
        is_fusion = isinstance(by, dict) and {'how', 'weights'} <= set(by) <= {'how', 'weights', 'options'}
        if not is_fusion and by not in ('own', 'fused'):
            raise InputError(f"step {self.do!r}: by={by!r}: choose 'own' or 'fused', or give a fusion, "
                             "{'how': 'mean', 'weights': {'image': .5, 'title': .5}}")
        if self.stage != 'vectors' and (on is not None or by != 'own'):
            raise InputError(
                f"step {self.do!r}: `on` and `by` are for 'vectors', its stage is {self.stage!r}")
        self.on = (on,) if isinstance(on, str) else None if on is None else tuple(on)
        self.by = by
        self.pair_model = None  # the fitted model of the step 'pair_model', read once
        if self.do == 'pair_model': self.pair_model, params = _fitted_model(params)
        self.scorer = None  # the cross-encoder of the step of that name, which is no plain value
        if self.do == 'cross_encoder': self.scorer, params = _scorer(params)
        self.params = plain_value({**SPACE_ARGUMENTS.get(self.do, {}), **params}, f'step {self.do!r}')
        if self.do in GROUPINGS and 'max_matches' in self.params:
            raise InputError(f'step {self.do!r}: max_matches is for the rule to say: Rule(max_matches=...)')
        if self.function is not None: self._check()

    def _check(self):
        """Raise `InputError` unless the function can be called with what its stage gives it and the
        parameters."""
        if not callable(self.function): raise InputError(f'step {self.do!r}: not a function')
        inputs = [None] * (2 if self.stage == 'matches' else 1)
        given = {} if self.by == 'own' else {'neighbors': None}
        if self.pair_model is not None: given['pairs'] = None
        if self.scorer is not None: given['scorer'] = self.scorer
        try: inspect.signature(self.function).bind(*inputs, **given, **self._arguments)
        except TypeError as error: raise InputError(f'step {self.do!r} with {self.params}: {error}') from None

    @property
    def _arguments(self):
        "The parameters that the function takes: all but what says which scorer it was."
        return {name: value for name, value in self.params.items() if name != 'fingerprint'}

    @property
    def within_one(self) -> bool:
        "Whether no score is above 1 after this step on neighbors, if none was before."
        return self.do in WITHIN_ONE or (self.do == 'cross_encoder' and self.params['high'] <= 1)

    def moved(
        self,
        shift: float,  # How far the rule's threshold is moved, for another size of the pool
    ) -> 'Step':
        "min2 with its own threshold moved by as much, a cross-encoder with its band, others as they are."
        if self.do == 'min2': names = [name for name in ('threshold',) if self.params.get(name) is not None]
        else: names = ['low', 'high'] if self.do == 'cross_encoder' else []
        if not names: return self
        scorer = {} if self.scorer is None else {'scorer': self.scorer}
        moved = {name: self.params[name] + shift for name in names}
        return Step(self.do, **{**self.params, **moved, **scorer})

    def __eq__(self, other): return isinstance(other, Step) and self.to_dict(False) == other.to_dict(False)
    def __hash__(self): return hash(self.do)

    def __repr__(self):
        changed_on = {} if self.on is None else {'on': self.on}
        taken_by = {} if self.by == 'own' else {'by': self.by}
        # a fitted model is thousands of numbers
        fitted = {} if self.pair_model is None else {'model': self.pair_model}
        named = {**changed_on, **taken_by, **self.params, **fitted}
        arguments = [f'{argument}={value!r}' for argument, value in named.items()]
        return f'Step({", ".join([repr(self.do), *arguments])})'

    @property
    def reads(self) -> list[str]:
        "Names of the spaces that it needs beside the rule's modalities."
        if self.pair_model is not None: return ['titles'] if self.pair_model.reads_titles else []
        return [self.params[argument] for argument in SPACE_ARGUMENTS.get(self.do, ())]

    @property
    def rowwise(self) -> bool:
        """Whether each row is decided by its own candidates alone; other steps need the neighbors' neighbors
        as well."""
        return self.do in ('veto', 'cross_encoder') or (self.do == 'min2' and not self.params.get('mutual'))

    def __call__(
        self,
        *inputs,  # What its stage hands over: a space, neighbors, or matches and neighbors
        spaces: dict,  # Name -> space, for arguments that are spaces
        # `neighbors` whose vectors are taken, for a step on vectors by fused neighbors; `pairs`, for a pair
        # model
        **given,
    ):
        "Carry the step out; raises `InputError` for a function of somebody else that was not handed in."
        if self.function is None:
            raise InputError(
                f'step {self.do!r}: a function of somebody else: hand it in, functions={{{self.do!r}: ...}}')
        space_arguments = SPACE_ARGUMENTS.get(self.do, ())
        arguments = {argument: spaces[value] if argument in space_arguments else value
                     for argument, value in self._arguments.items()}
        if self.pair_model is not None: arguments['model'] = self.pair_model
        if self.scorer is not None: arguments['scorer'] = self.scorer
        return self.function(*inputs, **given, **arguments)

    def to_dict(
        self,
        saving: bool = True,  # Refuse a function that can't be found by its name
    ) -> dict:
        "The step as plain values, which `from_dict` reads."
        if saving and '<' in self.do:
            raise InputError(
                f'step {self.do!r}: a function without a name of its own (lambda, or inside another) '
                'can not be saved')
        modalities = None if self.on is None else list(self.on)
        return {'do': self.do, 'stage': self.stage, 'on': modalities, 'by': self.by, 'params': self.params}

    @classmethod
    def from_dict(
        cls,
        saved: dict,  # As `to_dict` gives it
        functions: dict | None = None,  # 'module:name' -> function, for steps of your own
    ) -> 'Step':
        "The step that `to_dict` wrote; functions come from `functions` alone, nothing is imported."
        is_step = isinstance(saved, dict) and set(saved) == {'do', 'stage', 'on', 'by', 'params'}
        if not is_step or not isinstance(saved['do'], str) or not isinstance(saved['params'], dict):
            raise InputError(f'rule: {saved!r} is no step')
        step_name = saved['do']
        is_own = ':' in step_name
        functions = functions or {}
        if is_own and step_name not in functions:
            raise InputError(
                f'the rule has a step of its own, {step_name!r}: '
                f'hand it in, functions={{{step_name!r}: ...}}')
        named_or_function = functions[step_name] if is_own else step_name
        params = saved['params']
        if step_name == 'cross_encoder':
            if step_name not in (functions or {}):
                raise InputError("the rule has a step 'cross_encoder': hand in what it reads pairs with, "
                                 "functions={'cross_encoder': CrossEncoder.load(folder)}")
            params = {**params, 'scorer': functions[step_name]}
        step = cls(named_or_function, saved['stage'], saved['on'], saved['by'], **params)
        step.do = step_name  # saved again under the name that it was saved by
        return step


def _fitted_model(params):
    """The fitted model of a step, which is given as a `PairModel` or as its dict; the parameters with the
    dict."""
    model = params.get('model')
    if isinstance(model, PairModel): params = {**params, 'model': model.to_dict()}
    elif model is None: raise InputError("step 'pair_model': model: give a fitted `PairModel`")
    # read from the dict in any case, so that a saved rule gives the same bits
    return PairModel.from_dict(params['model']), params


def _scorer(params):
    """The scorer of a step 'cross_encoder', and the other parameters with its fingerprint, where it has one:
    a rule goes with the very scorer that it was chosen with."""
    scorer = params.get('scorer')
    others = {name: value for name, value in params.items() if name != 'scorer'}
    if not callable(getattr(scorer, 'scores', None)):
        raise InputError(f"step 'cross_encoder': scorer={scorer!r}: give a fitted `CrossEncoder`, or an "
                         'object with scores(first_texts, second_texts)')
    check_band(others.get('low'), others.get('high'))
    fingerprint = getattr(scorer, 'fingerprint', None)
    if others.get('fingerprint') not in (None, fingerprint):
        raise InputError("step 'cross_encoder': chosen with another cross-encoder than the one handed in")
    return scorer, {**others, **({} if fingerprint is None else {'fingerprint': fingerprint})}


def as_step(
    step,  # `Step`, a name of `STEPS`, or a function
) -> Step:
    "Whatever may stand for a step in a rule, as a `Step`."
    return step if isinstance(step, Step) else Step(step)


def _name_of_function(function):
    "'module:name' of a function or other callable."
    name = getattr(function, '__qualname__', type(function).__name__)
    return f'{getattr(function, "__module__", "?")}:{name}'


def plain_value(
    value,  # Numbers, strings, lists and dicts of such
    what: str,  # What it belongs to, for messages
):
    """The value as json would give it back (numpy numbers as Python's, tuples as lists); raises `InputError`
    for anything else."""
    if isinstance(value, np.generic): value = value.item()
    if value is None or isinstance(value, (bool, str, int)): return value
    if isinstance(value, float):
        if not np.isfinite(value): raise InputError(f'{what}: {value}: give finite numbers')
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain_value(element, what) for key, element in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)): return [plain_value(element, what) for element in value]
    raise InputError(f'{what}: {type(value).__name__} is no plain value: give numbers, strings, lists')
