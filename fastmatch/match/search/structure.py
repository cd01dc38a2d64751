"""`RuleStructure`: a rule without its thresholds, which is what a search chooses; thresholds are found
exactly."""
from dataclasses import dataclass

import numpy as np

from ..matches import MAX_MATCHES
from ..rule import Rule
from ..steps.step import Step

DEFAULT_POWER = 6.  # of the fusion 'power'


@dataclass(frozen=True)
class RuleStructure:
    "How modalities are fused, which steps refine them, and how many thresholds there are."
    how: str  # One of `FUSIONS`
    weights: tuple  # (modality, number) pairs: a weight, exponent or threshold, by the fusion
    power: float = DEFAULT_POWER  # Of the fusion 'power'
    vector_steps: tuple = ()  # `Step`s on vectors
    score_steps: tuple = ()  # `Step`s on neighbors
    ranks: int = 1  # Thresholds; 2: a lower one for the nearest (min2)
    max_matches: int = MAX_MATCHES  # Most matches a row, itself included

    @property
    def options(self) -> dict:
        "Further arguments of `fuse`."
        return {'power': self.power} if self.how == 'power' else {}

    @property
    def fusion(self) -> dict:
        "The fusion as `Step(by=...)` takes it."
        options = {'options': self.options} if self.options else {}
        return {'how': self.how, 'weights': dict(self.weights), **options}

    def rule(
        self,
        thresholds=0.,  # One, or two: (that of the nearest, that of all others)
        **fields,  # More for `Rule`: `k`, `join`, `score`, ...
    ) -> Rule:
        "The rule of this structure and its thresholds."
        threshold, min2_steps = thresholds, ()
        if np.ndim(thresholds) > 0:
            nearest_threshold, threshold = thresholds
            # a threshold of its own for the nearest is min2: of a listing without a match
            if nearest_threshold < threshold: min2_steps = (Step('min2', threshold=nearest_threshold),)
        # what is taken by the very fusion of the rule is said in one word
        vector_steps = tuple(_by_word(step, self.fusion) for step in self.vector_steps)
        return Rule(self.how, dict(self.weights), threshold, max_matches=self.max_matches,
                    steps=(*vector_steps, *self.score_steps, *min2_steps), options=self.options, **fields)

    def __str__(self):
        weights = ', '.join(f'{modality} {weight:.2g}' for modality, weight in self.weights)
        parts = [f'{self.how} of {weights}' if len(self.weights) > 1 else self.weights[0][0]]
        if self.how == 'power': parts.append(f'power {self.power:.2g}')
        parts += [_short(step) for step in (*self.vector_steps, *self.score_steps)]
        if self.ranks == 2: parts.append('min2')
        return ', '.join(parts)


def _by_word(step, fusion):
    "The step with 'fused' in place of the fusion of the rule itself."
    if step.by != fusion: return step
    return Step(step.do, on=step.on, by='fused', **step.params)


def _short(step):
    "A step in a few words, such as 'augment by fused neighbors (k 2)'."
    by = '' if step.by == 'own' else ' by fused neighbors'
    numbers = ', '.join(f'{name} {value:.3g}' for name, value in step.params.items()
                        if isinstance(value, (int, float)) and not isinstance(value, bool))
    if step.do == 'veto' and step.params['units'] != 'units': by = f' by {step.params["units"]}'
    return f'{step.do}{by}' + (f' ({numbers})' if numbers else '')
