"A rule that can be kept: how modalities are fused, what is refined, where the cut is."
from dataclasses import dataclass, field, fields

import numpy as np

from ..core import InputError
from .candidates import candidates
from .decide import decide
from .fuse import FUSIONS, check_thresholds, check_weights, fuse
from .matches import MAX_MATCHES, Matches, at_most
from .neighbors import NEAREST, Neighbors, check_self_first
from .spaces.keys import Keys
from .spaces.pool import Pool
from .steps.step import STAGES, Step, as_step, plain


@dataclass
class Decision:
    "What a rule found, and how."
    neighbors: Neighbors  # Fused and refined candidates
    matches: Matches
    trail: list  # (step, `Neighbors` or `Matches` after it): 'fuse' first, the cut as 'score'


@dataclass(frozen=True)
class Rule:
    "A fusion, refining and deciding steps, and a cut: to be kept as json and applied to other listings."
    how: str  # One of `FUSIONS`
    weights: dict  # Modality -> weight, power or threshold
    threshold: float  # On the fused score
    k: int = NEAREST  # Candidates of each modality; all where there are fewer
    max_matches: int = MAX_MATCHES  # Most matches a row, itself included
    score: dict = field(default_factory=dict)  # What it was worth where it was chosen
    join: tuple = ()  # Exact keys ('phash', 'same_title') that match by themselves
    steps: tuple = ()  # `Step`s, names of such, or functions: on vectors, then on neighbours, then on matches
    options: dict = field(default_factory=dict)  # More for `fuse`: `power`, `planes`

    def __post_init__(self):
        if self.how not in FUSIONS: raise InputError(f'how={self.how!r}: choose one of {", ".join(FUSIONS)}')
        if not isinstance(self.weights, dict): raise InputError(f'weights={self.weights!r}: give a dict, a number for each modality')
        for name, o in {'threshold': self.threshold, **{f'weights[{k!r}]': w for k, w in self.weights.items()}}.items():
            if isinstance(o, bool) or not isinstance(o, (int, float, np.number)) or not np.isfinite(o): raise InputError(f'{name}={o!r}: give a finite number')
        if not isinstance(self.options, dict) or set(self.options) - {'power', 'planes'}: raise InputError(f'options={self.options!r}: power, planes')
        check_weights(self.how, self.weights, **self.options)
        for name in ('k', 'max_matches'):
            o = getattr(self, name)
            if isinstance(o, bool) or not isinstance(o, (int, np.integer)) or o < 1: raise InputError(f'{name}={o!r}: give a whole number from 1')
        object.__setattr__(self, 'steps', tuple(as_step(o) for o in ([self.steps] if isinstance(self.steps, str) else self.steps)))
        if self.how in ('mean', 'square', 'joint', 'prob_or') and all(o.stage != 'neighbors' for o in self.steps):
            check_thresholds({'threshold': self.threshold})
        # plain numbers, so that json takes them
        object.__setattr__(self, 'threshold', float(self.threshold))
        object.__setattr__(self, 'weights', {k: float(w) for k, w in self.weights.items()})
        if isinstance(self.join, str) or not all(isinstance(o, str) for o in self.join): raise InputError(f'join={self.join!r}: give a list of names')
        object.__setattr__(self, 'join', tuple(self.join))
        object.__setattr__(self, 'options', plain(self.options, 'options'))
        for step, after in zip(self.steps, self.steps[1:]):
            if STAGES.index(after.stage) < STAGES.index(step.stage):
                raise InputError(f'steps: {after.do!r} works on {after.stage}, {step.do!r} before it on {step.stage}')
        for step in self.steps:
            if unknown := set(step.on or ()) - set(self.weights): raise InputError(f'step {step.do!r} on {sorted(unknown)}: the weights name {list(self.weights)}')

    @property
    def modalities(self) -> list[str]:
        "The modalities whose neighbours are candidates, exact keys last."
        return [*self.weights, *self.join]

    @property
    def reads(self) -> list[str]:
        "All spaces it needs: the modalities, then what steps look up ('units', say)."
        return list(dict.fromkeys([*self.modalities, *(name for o in self.steps for name in o.reads)]))

    def neighbors(
        self,
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Neighbors:
        "The fused and refined neighbours of the listings in `spaces`."
        return self.run(spaces).neighbors

    def apply(
        self,
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Matches:
        "The matches of the listings in `spaces`."
        return self.run(spaces).matches

    def run(
        self,
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Decision:
        "The matches of the listings in `spaces`, with what each step left."
        if missing := [k for k in self.reads if k not in spaces]: raise InputError(f'the rule needs the modalities {missing}; there are {list(spaces)}')
        spaces = {k: spaces[k] for k in self.reads}
        n = len(next(iter(spaces.values())))
        if wide := [o for o in self.steps if not o.rowwise]:
            # such a step asks the neighbours for theirs: new listings and catalogue are refined as one
            spaces = {k: o.whole(f'step {wide[0].do!r}') if isinstance(o, Pool) else o for k, o in spaces.items()}
        spaces = self.refined(spaces)
        nb = self._fuse(spaces)
        pool, trail = next(iter(spaces.values())).pool, [('fuse', nb), *self.reranked(nb, spaces)]
        nb = trail[-1][1]
        m = decide(nb, self.threshold, self.max_matches, pool)
        trail.append(('score', m))
        for step in (o for o in self.steps if o.stage == 'matches'):
            m = at_most(_checked(step, step(m, nb, spaces=spaces), m, pool), self.max_matches)
            trail.append((step.do, m))
        return Decision(nb.head(n), m.head(n), [(name, o.head(n)) for name, o in trail])

    def refined(
        self,
        spaces: dict,  # Name -> space
    ) -> dict:
        "The spaces after the steps on vectors."
        spaces = dict(spaces)
        for step in (o for o in self.steps if o.stage == 'vectors'):
            more = {'neighbors': self._fuse(spaces)} if step.by == 'fused' else {}
            names = step.on or [k for k in self.weights if not isinstance(getattr(spaces[k], 'new', spaces[k]), Keys)]
            spaces |= {k: step(spaces[k], spaces=spaces, **more) for k in names}
        return spaces

    def reranked(
        self,
        neighbors: Neighbors,  # Fused
        spaces: dict,  # Name -> space, refined
    ) -> list:  # (step, `Neighbors` after it)
        "What each step on neighbours leaves."
        out, pool = [], next(iter(spaces.values())).pool
        for step in (o for o in self.steps if o.stage == 'neighbors'):
            neighbors = self._joined(_checked(step, step(neighbors, spaces=spaces), neighbors, pool), spaces)
            out.append((step.do, neighbors))
        return out

    def _fuse(self, spaces):
        preview = {k: spaces[k] for k in self.modalities}
        # chosen on many, applied to few
        return fuse(candidates(preview, min(self.k, next(iter(preview.values())).pool)), self.how, self.weights, self.join, **self.options)

    def _joined(self, neighbors, spaces):
        # a refined score is on another scale: pairs of an equal key go on top of it, and over a cut that nobody here reaches
        rows, ids, scores = neighbors.pairs()
        equal = np.any([spaces[k].scores(rows, ids) == 1 for k in self.join] or [np.zeros(len(rows), bool)], axis=0) & (rows != ids)
        if not equal.any(): return neighbors
        top = max(np.float32(1), scores.max(), np.nextafter(np.float32(self.threshold), np.float32(np.inf)))
        out = Neighbors(neighbors.ids.copy(), neighbors.scores.copy())
        out.scores[out.ids >= 0] = np.where(equal, top, scores)
        order = np.lexsort((np.where(out.ids[:, 1:] < 0, len(rows) + out.ids.max(), out.ids[:, 1:]), -out.scores[:, 1:]), axis=1)
        for o in out: o[:, 1:] = np.take_along_axis(o[:, 1:], order, 1)
        out.scores[:, 0] = np.maximum(out.scores[:, 0], out.scores.max(1))
        return out

    def to_dict(self) -> dict:
        "Plain values; `steps` and `options` only where there are any, so that older versions read the others."
        d = {o.name: getattr(self, o.name) for o in fields(self)}
        d |= {'weights': dict(self.weights), 'score': dict(self.score), 'join': list(self.join), 'steps': [o.to_dict() for o in self.steps]}
        return {k: v for k, v in d.items() if v or k not in ('steps', 'options')}

    @classmethod
    def from_dict(
        cls,
        d: dict,  # As `to_dict` gives it
        functions: dict | None = None,  # 'module:name' -> function, for steps of your own
    ) -> 'Rule':
        "The rule that `to_dict` wrote."
        if unknown := set(d) - {o for o in cls.__dataclass_fields__}: raise InputError(f'rule: unknown entries {sorted(unknown)}')
        if missing := {'how', 'weights', 'threshold'} - set(d): raise InputError(f'rule: {sorted(missing)} missing')
        return cls(**{**d, 'steps': [Step.from_dict(o, functions) for o in d.get('steps', ())]})


def _checked(step, out, before, pool):
    "What a step gave, if it is what its stage hands on."
    what = 'Neighbors' if step.stage == 'neighbors' else 'Matches'
    if type(out) is not type(before): raise InputError(f'step {step.do!r} gave {type(out).__name__}, not {what}')
    rows, n = (len(o.ids) if step.stage == 'neighbors' else len(o) for o in (out, before))
    if rows != n: raise InputError(f'step {step.do!r} gave {rows} rows for {n}')
    if step.stage == 'neighbors':
        try: check_self_first(out.check(), pool)
        except InputError as e: raise InputError(f'step {step.do!r}: {e}') from e
    return out
