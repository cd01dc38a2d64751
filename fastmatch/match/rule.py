"A rule that can be kept: how modalities are fused, what is refined, where the cut is."
from dataclasses import asdict, dataclass, field

import numpy as np

from ..core import InputError
from .decide import MAX_MATCHES, Matches, decide
from .fuse import FUSIONS, candidates, check_weights, fuse
from .neighbors import Neighbors


@dataclass(frozen=True)
class Rule:
    "A fusion and a cut, to be kept as json and applied to other listings."
    how: str  # One of `FUSIONS`
    weights: dict  # Modality -> weight, power or threshold
    threshold: float  # On the fused score
    k: int = 50  # Candidates of each modality
    max_matches: int = MAX_MATCHES  # Most matches a row, itself included
    score: dict = field(default_factory=dict)  # What it was worth where it was chosen
    join: tuple = ()  # Exact keys ('phash') that match by themselves

    def __post_init__(self):
        if self.how not in FUSIONS: raise InputError(f'how={self.how!r}: choose one of {", ".join(FUSIONS)}')
        if not isinstance(self.weights, dict): raise InputError(f'weights={self.weights!r}: give a dict, a number for each modality')
        for name, o in {'threshold': self.threshold, **{f'weights[{k!r}]': w for k, w in self.weights.items()}}.items():
            if isinstance(o, bool) or not isinstance(o, (int, float, np.number)) or not np.isfinite(o): raise InputError(f'{name}={o!r}: give a finite number')
        check_weights(self.how, self.weights)
        for name in ('k', 'max_matches'):
            o = getattr(self, name)
            if isinstance(o, bool) or not isinstance(o, (int, np.integer)) or o < 1: raise InputError(f'{name}={o!r}: give a whole number from 1')
        # plain numbers, so that json takes them
        object.__setattr__(self, 'threshold', float(self.threshold))
        object.__setattr__(self, 'weights', {k: float(w) for k, w in self.weights.items()})
        if isinstance(self.join, str) or not all(isinstance(o, str) for o in self.join): raise InputError(f'join={self.join!r}: give a list of names')
        object.__setattr__(self, 'join', tuple(self.join))

    @property
    def modalities(self) -> list[str]:
        "The modalities it reads, exact keys last."
        return [*self.weights, *self.join]

    def neighbors(
        self,
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Neighbors:
        "The fused neighbours of the listings in `spaces`."
        if missing := [k for k in self.modalities if k not in spaces]: raise InputError(f'the rule needs the modalities {missing}; there are {list(spaces)}')
        return fuse(candidates({k: spaces[k] for k in self.modalities}, self.k), self.how, self.weights, self.join)

    def apply(
        self,
        spaces: dict,  # Modality -> space
    ) -> Matches:
        "The matches of the listings in `spaces`."
        return self.cut(self.neighbors(spaces), spaces)

    def cut(
        self,
        neighbors: Neighbors,  # As `neighbors` gave them
        spaces: dict,  # Modality -> space, or `Pool`
    ) -> Matches:
        "The matches among fused neighbours."
        return decide(neighbors, self.threshold, self.max_matches, next(iter(spaces.values())).pool)

    def to_dict(self) -> dict: return {**asdict(self), 'join': list(self.join)}

    @classmethod
    def from_dict(cls, d: dict) -> 'Rule':
        "The rule that `to_dict` wrote."
        if unknown := set(d) - {o for o in cls.__dataclass_fields__}: raise InputError(f'rule: unknown entries {sorted(unknown)}')
        if missing := {'how', 'weights', 'threshold'} - set(d): raise InputError(f'rule: {sorted(missing)} missing')
        return cls(**d)
