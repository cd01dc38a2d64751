"Steps of a rule: what is refined, vetoed and forced, by name and with plain values, in order."
import inspect

import numpy as np

from ...core import InputError
from .force import chisel, min2
from .group import agglomerate, group, same_group, tiers
from .scores import k_reciprocal, mutual, neighbor_mean, standardize, veto
from .vectors import augment, blend, cross_mean, expand

# what a step changes; in this order a rule goes through them
STAGES = ('vectors', 'neighbors', 'matches')


def _components(matches, neighbors): return same_group(group(matches), neighbors)
def _agglomerate(matches, neighbors, mean_size=2.6, least=0.): return same_group(agglomerate(neighbors, mean_size, least), neighbors)
def _tiers(matches, neighbors, merge=.8, join=.7, pair=.3): return same_group(tiers(neighbors, merge, join, pair), neighbors)


STEPS = {**{f.__name__: ('vectors', f) for f in (expand, augment, blend, cross_mean)},
         **{f.__name__: ('neighbors', f) for f in (neighbor_mean, k_reciprocal, standardize, mutual, veto)},
         **{f.__name__.lstrip('_'): ('matches', f) for f in (min2, chisel, _components, _agglomerate, _tiers)}}
# arguments that are spaces: by which name a rule finds them
NAMED = {'cross_mean': {'keys': 'phash'}, 'veto': {'units': 'units'}}


class Step:
    "One step of a rule: a name of `STEPS`, or a function of your own (kept as 'module:name', loaded only when handed in)."
    def __init__(
        self,
        do,  # Name, or function: (space) -> space, (neighbors) -> `Neighbors`, or (matches, neighbors) -> `Matches`, by its stage
        stage: str | None = None,  # Of a function: one of `STAGES`; default 'neighbors'
        on=None,  # Of 'vectors': the modalities; default all of the rule's that have vectors
        by: str = 'own',  # Of 'vectors': whose neighbours; 'own': each modality's, 'fused': those of all together
        **params,  # Further arguments: plain values
    ):
        self.function = None if isinstance(do, str) else do
        self.do = do if isinstance(do, str) else f'{getattr(do, "__module__", "?")}:{getattr(do, "__qualname__", type(do).__name__)}'
        known = None
        if self.function is None and ':' not in self.do:
            if do not in STEPS: raise InputError(f'step {do!r}: choose one of {", ".join(STEPS)}, or give a function')
            known, self.function = STEPS[do]
            if stage not in (None, known): raise InputError(f'step {do!r}: its stage is {known!r}, not {stage!r}')
        self.stage = known or stage or 'neighbors'
        if self.stage not in STAGES: raise InputError(f'step {self.do!r}: stage={stage!r}: choose one of {", ".join(STAGES)}')
        if by not in ('own', 'fused'): raise InputError(f"step {self.do!r}: by={by!r}: choose 'own' or 'fused'")
        if self.stage != 'vectors' and (on is not None or by != 'own'):
            raise InputError(f"step {self.do!r}: `on` and `by` are for 'vectors', its stage is {self.stage!r}")
        self.on, self.by = None if on is None else ((on,) if isinstance(on, str) else tuple(on)), by
        self.params = plain({**NAMED.get(self.do, {}), **params}, f'step {self.do!r}')
        if self.function is not None: self._check()

    def _check(self):
        if not callable(self.function): raise InputError(f'step {self.do!r}: not a function')
        args, more = [None] * (2 if self.stage == 'matches' else 1), {'neighbors': None} if self.by == 'fused' else {}
        try: inspect.signature(self.function).bind(*args, **more, **self.params)
        except TypeError as e: raise InputError(f'step {self.do!r} with {self.params}: {e}') from None

    def __eq__(self, other): return isinstance(other, Step) and self.to_dict(False) == other.to_dict(False)
    def __hash__(self): return hash(self.do)
    def __repr__(self):
        more = {**({} if self.on is None else {'on': self.on}), **({} if self.by == 'own' else {'by': self.by}), **self.params}
        return f'Step({", ".join([repr(self.do), *(f"{k}={v!r}" for k, v in more.items())])})'

    @property
    def reads(self) -> list[str]:
        "Spaces it needs beside the rule's modalities."
        return [self.params[k] for k in NAMED.get(self.do, ())]

    @property
    def rowwise(self) -> bool:
        "Whether each row is decided by its own candidates alone."
        return self.do == 'veto' or (self.do == 'min2' and not self.params.get('mutual'))

    def __call__(
        self,
        *args,  # What its stage hands over
        spaces: dict,  # Name -> space
        **more,  # `neighbors` by which vectors are refined
    ):
        "Carry it out."
        if self.function is None: raise InputError(f'step {self.do!r}: a function of somebody else: hand it in, functions={{{self.do!r}: ...}}')
        return self.function(*args, **more, **{k: spaces[v] if k in NAMED.get(self.do, ()) else v for k, v in self.params.items()})

    def to_dict(
        self,
        saving: bool = True,  # Refuse a function that can't be found by its name
    ) -> dict:
        "Plain values."
        if saving and '<' in self.do:
            raise InputError(f'step {self.do!r}: a function without a name of its own (lambda, or inside another) can not be saved')
        return {'do': self.do, 'stage': self.stage, 'on': None if self.on is None else list(self.on), 'by': self.by, 'params': self.params}

    @classmethod
    def from_dict(
        cls,
        d: dict,  # As `to_dict` gives it
        functions: dict | None = None,  # 'module:name' -> function
    ) -> 'Step':
        "The step that `to_dict` wrote; functions come from `functions` alone, nothing is imported."
        if not isinstance(d, dict) or set(d) != {'do', 'stage', 'on', 'by', 'params'} or not isinstance(d['do'], str) or not isinstance(d['params'], dict):
            raise InputError(f'rule: {d!r} is no step')
        do = d['do']
        if ':' in do and do not in (functions or {}): raise InputError(f'the rule has a step of its own, {do!r}: hand it in, functions={{{do!r}: ...}}')
        res = cls((functions or {})[do] if ':' in do else do, d['stage'], d['on'], d['by'], **d['params'])
        # saved again under the name that it was saved by
        res.do = do
        return res


def as_step(
    o,  # `Step`, a name, or a function
) -> Step:
    "What stands for a step, as one."
    return o if isinstance(o, Step) else Step(o)


def plain(
    o,  # Numbers, strings, lists, dicts
    what: str,  # For messages
):
    "The same as json would give it back; raises `InputError` for anything else."
    if isinstance(o, np.generic): o = o.item()
    if o is None or isinstance(o, (bool, str, int)): return o
    if isinstance(o, float):
        if not np.isfinite(o): raise InputError(f'{what}: {o}: give finite numbers')
        return o
    if isinstance(o, dict) and all(isinstance(k, str) for k in o): return {k: plain(v, what) for k, v in o.items()}
    if isinstance(o, (list, tuple, np.ndarray)): return [plain(v, what) for v in o]
    raise InputError(f'{what}: {type(o).__name__} is no plain value: give numbers, strings, lists')
