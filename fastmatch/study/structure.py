"What a rule may be made of: fusions, refinements, cuts; and how good it is on rows that a study may see."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from ..match.candidates import candidates
from ..match.fuse import fuse
from ..match.judge.heldout import random_halves
from ..match.matches import MAX_MATCHES
from ..match.neighbors import group_codes
from ..match.rule import Rule
from ..match.spaces.keys import Keys
from ..match.steps.step import Step, as_step
from ..match.thresholds.flat import FUSED, Flat
from ..match.thresholds.sweep import RankSweep, Sweep
from .engine.space import Param, suggest

# What may be done before the cut. Steps on vectors cost one more search and are quick from then on; steps on neighbours are done in every trial.
REFINEMENTS = {
    'none': (), 'expand': (Step('expand', k=3),), 'augment': (Step('augment', k=2),), 'blend': (Step('blend', threshold=.7),),
    'standardize': (Step('standardize'),), 'neighbor_mean': (Step('neighbor_mean', weight=.5),), 'k_reciprocal': (Step('k_reciprocal'),), 'mutual': (Step('mutual'),),
}
QUICK = 'none', 'expand', 'augment', 'blend'
# which numbers a fusion has of each modality
KINDS = {**dict.fromkeys(('mean', 'square', 'joint'), 'weight'), 'prob_or': 'exponent', **dict.fromkeys(('power', 'union', 'above'), 'cut')}


def rule_space(
    names,  # Modalities
    hows=FUSED,  # Fusions to choose from, the plainest first
    steps=QUICK,  # Names of refinements to choose from
    most=(MAX_MATCHES,),  # Most matches a row to choose from
    min2: bool = True,  # Whether the nearest may have a cut of its own
) -> dict[str, Param]:
    "What `tune_rule` searches; the first trial is the first of each, with equal weights."
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    ranges = {'weight': (FloatDistribution(0, 1), 1.), 'exponent': (FloatDistribution(.25, 8, log=True), 1.), 'cut': (FloatDistribution(.05, 1), .6)}
    def choice(o): return {} if len(o) < 2 else Param(CategoricalDistribution(list(o)), next(iter(o)))
    space = {'how': choice(hows), 'steps': choice(steps), 'max_matches': choice(most), 'min2': choice((False, True) if min2 else (False,))}
    if len(names) > 1:
        for kind in dict.fromkeys(KINDS[o] for o in hows): space |= {f'{kind}.{k}': Param(*ranges[kind]) for k in names}
        if 'power' in hows: space['power'] = Param(FloatDistribution(1, 16, log=True), 6.)
    return {k: v for k, v in space.items() if v}


@dataclass(frozen=True)
class Structure:
    "A rule without its cuts."
    how: str
    weights: tuple  # (modality, number) pairs
    power: float = 6.
    steps: str = 'none'  # Of the refinements
    ranks: int = 1  # Cuts; 2: one of its own for the nearest (min2)
    max_matches: int = MAX_MATCHES

    def __str__(self):
        more = [f'power {self.power:.2g}'] * (self.how == 'power') + [self.steps] * (self.steps != 'none') + ['min2'] * (self.ranks == 2)
        return f'{self.how} of ' + ', '.join(f'{k} {w:.2g}' for k, w in self.weights) + ''.join(f', {o}' for o in more)


class Workbench:
    "What is searched once and shared by all trials: candidates of each refinement, laid flat for the rows that a study may see."
    def __init__(
        self,
        spaces: dict,  # Modality -> space
        groups,  # (n,) groups
        k: int,  # Candidates of each modality
        steps: dict,  # Of `refinements`
        hows: tuple,  # Fusions to choose from
        most: tuple,  # Most matches a row to choose from
    ):
        self.spaces, self.groups, self.k, self.steps, self.hows, self.most = spaces, groups, k, steps, hows, most
        self.codes = group_codes(groups, len(groups))
        self.join = tuple(o for o, s in spaces.items() if isinstance(s, Keys))
        self.names = tuple(o for o in spaces if o not in self.join)
        self.space = rule_space(self.names, hows, tuple(steps), most)
        self._cands, self._flats = {}, {}

    def rule(self, s, cuts=0., score=None):
        "The `Rule` of a structure and its cuts."
        near, far = (None, cuts) if np.ndim(cuts) == 0 else cuts
        force = () if near is None else (Step('min2', threshold=near),)
        return Rule(s.how, dict(s.weights), far, self.k, s.max_matches, score or {}, self.join, (*self.steps[s.steps], *force),
                    {'power': s.power} if s.how == 'power' else {})

    def refined(self, name):
        "(spaces, candidates) after the steps on vectors of a refinement."
        vectors = tuple(o for o in self.steps[name] if o.stage == 'vectors')
        if vectors not in self._cands:
            spaces = Rule('mean', dict.fromkeys(self.names, 1.), 0., self.k, steps=vectors).refined(self.spaces)
            self._cands[vectors] = spaces, candidates(spaces, self.k)
        return self._cands[vectors]

    def sweep(self, s, rows):
        "The sweep over the cuts of a structure; `rows` is a `Rows`."
        spaces, cand = self.refined(s.steps)
        if all(o.stage == 'vectors' for o in self.steps[s.steps]):
            key = id(cand), rows.key
            if key not in self._flats: self._flats[key] = Flat(cand, self.groups, rows.mask)
            return self._flats[key].sweep(s.how, dict(s.weights), s.power, s.ranks, s.max_matches)
        nb = fuse(cand, s.how, dict(s.weights), power=s.power)
        nb = self.rule(s).reranked(nb, spaces)[-1][1]
        return Sweep(nb, self.groups, s.max_matches) if s.ranks == 1 else RankSweep(nb, self.groups, 2, s.max_matches)

    def forget(self, rows): self._flats = {k: v for k, v in self._flats.items() if k[1] != rows.key}

    def structure(self, trial):
        "The structure that a trial asks for."
        def pick(name, only): return suggest(trial, {name: self.space[name]})[name] if name in self.space else only
        how = pick('how', self.hows[0])
        # one modality: its score as it is
        weights = {k: pick(f'{KINDS[how]}.{k}', 1.) for k in self.names}
        if KINDS[how] == 'weight' and not any(weights.values()): weights = dict.fromkeys(self.names, 1.)
        return Structure(how, tuple(weights.items()), pick('power', 6.) if how == 'power' else 6., pick('steps', 'none'),
                         1 + pick('min2', False), pick('max_matches', self.most[0]))


class Rows:
    "Rows that a study may see, and the halves within them."
    def __init__(
        self,
        key,  # Names them
        mask: np.ndarray,  # bool (n,)
        groups: np.ndarray,  # int (n,), from 0
        halvings: int,  # Random halvings of their groups
        seed: int,  # Of the halvings
    ):
        self.key, self.mask = key, mask
        own = np.unique(groups[mask], return_inverse=True)[1]
        if own.max(initial=0) < 1: raise InputError('too few groups: a rule is chosen on some groups and scored on others, halved twice')
        self.sides = []
        for side in random_halves(own, halvings, seed):
            self.sides.append(np.zeros(len(mask), bool))
            self.sides[-1][mask] = side

    def crossed(self, sweep):
        "Mean row F1 under cuts chosen on other groups."
        if hasattr(sweep, 'crossed'): return sweep.crossed(self.sides)
        total = 0.
        for side in self.sides:
            for chosen, scored in ((side, self.mask & ~side), (self.mask & ~side, side)): total += sweep.at(sweep.best(chosen)[0])[scored].sum()
        return float(total / len(self.sides) / self.mask.sum())


class Fixed:
    "Parameters as a trial that suggests them."
    def __init__(self, params): self.params = params
    def _get(self, name, *args, **kwargs): return self.params[name]
    suggest_categorical = suggest_float = suggest_int = _get


def refinements(
    steps,  # Names of `REFINEMENTS`, or {name: steps}
) -> dict:  # name -> tuple of `Step`s
    "The refinements to choose from, checked, the one that does nothing first."
    if isinstance(steps, str): steps = (steps,)
    if not isinstance(steps, dict):
        if unknown := [o for o in steps if o not in REFINEMENTS]: raise InputError(f'steps={unknown}: choose from {", ".join(REFINEMENTS)}, or give {{name: steps}}')
        steps = {o: REFINEMENTS[o] for o in steps}
    steps = {k: tuple(as_step(o) for o in ((v,) if isinstance(v, (str, Step)) or callable(v) else v)) for k, v in steps.items()}
    if bad := [k for k, v in steps.items() if any(o.stage == 'matches' or o.by == 'fused' for o in v)]:
        raise InputError(f"steps {bad}: those before the cut, and by each modality's own neighbours (min2 is searched anyway)")
    # first what does nothing: the first trial is the plain rule
    return {'none': (), **steps}
