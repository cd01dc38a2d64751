"What all trials of a rule's study share: candidates are searched once, a trial is arithmetic on them."
from typing import Protocol, runtime_checkable

import numpy as np

from ..core import InputError
from ..match.candidates import candidates, made_with_of
from ..match.fuse import fuse
from ..match.judge.groups import Groups
from ..match.judge.heldout import random_halves
from ..match.rule import Rule
from ..match.spaces.keys import Keys
from ..match.steps.step import Step
from ..match.thresholds.flat import FUSED, Flat
from ..match.thresholds.sweep import RankSweep, Sweep
from .rule_space import RuleChoices, RuleStructure, check_refinements, rule_space, suggest_structure


@runtime_checkable
class CrossedSearch(Protocol):
    "A search for thresholds that scores all halvings in one pass, as the flat search does."
    def crossed(self, sides) -> float: ...


class VisibleRows:
    "The rows that a study may see, halved at random: thresholds are chosen on one half, scored on the other."
    def __init__(
        self,
        key,  # Names these rows; hashable
        mask: np.ndarray,  # bool (n,)
        groups: np.ndarray,  # int (n,) group codes from 0
        halvings: int,  # How many random halvings of their groups
        seed: int,  # Of the halvings
    ):
        self.key, self.mask = key, mask
        visible_groups = np.unique(groups[mask], return_inverse=True)[1]
        if visible_groups.max(initial=0) < 1:
            raise InputError('too few groups: a rule is chosen on some groups and scored on others, '
                             'halved twice')
        self.sides = []  # bool (n,) each
        for half_mask in random_halves(visible_groups, halvings, seed):
            side_mask = np.zeros(len(mask), bool)
            side_mask[mask] = half_mask
            self.sides.append(side_mask)

    def crossed(
        self,
        search,  # `ThresholdSearch`
    ) -> float:
        "The mean row F1 of these rows under thresholds that were chosen on the other half of them."
        if isinstance(search, CrossedSearch): return search.crossed(self.sides)
        row_f1_sum = 0.
        for side in self.sides:
            other_side = self.mask & ~side
            for chosen_on, scored in ((side, other_side), (other_side, side)):
                threshold, _ = search.best(chosen_on)
                row_f1_sum += search.at(threshold)[scored].sum()
        return float(row_f1_sum / len(self.sides) / self.mask.sum())


class Workbench:
    """The material of a rule's study: spaces, groups and what may be chosen, with the searches that its
    trials need kept for the next trial.

    Candidates are searched once for each refinement of the vectors, and their pairs are prepared once for
    each set of rows. A trial chooses a `RuleStructure` (`structure`), gets the search for its thresholds
    (`threshold_search`), and both together make the `Rule` (`rule`)."""
    def __init__(
        self,
        spaces: dict,  # Modality -> space
        groups,  # (n,) groups: listings with the same value are the same product
        k: int,  # Candidates of each modality
        choices: RuleChoices | None = None,  # What rules may be made of; default `RuleChoices()`
    ):
        choices = RuleChoices() if choices is None else choices
        self.spaces, self.k = spaces, k
        self.groups = Groups.of(groups)
        self.max_matches = choices.max_matches
        self.steps = check_refinements(choices.steps)
        modalities_read = {modality for steps in self.steps.values() for step in steps
                           for modality in step.reads}
        lacking = sorted(modalities_read - set(spaces))
        if lacking: raise InputError(f'steps: {lacking} are read; there are {list(spaces)}, say only=(...)')
        self.join = tuple(modality for modality, space in spaces.items() if isinstance(space, Keys))
        self.modalities = tuple(modality for modality in spaces if modality not in self.join)
        if not self.modalities: raise InputError('embeddings: exact keys alone, nothing to tune')
        self._candidates = {}  # steps on vectors -> (spaces after them, candidates)
        self._pairs = {}  # (steps on vectors, key of the rows) -> `Flat`
        self.hows = self._default_hows() if choices.hows is None else choices.hows
        self.space = rule_space(self.modalities, self.hows, tuple(self.steps), self.max_matches, choices.min2)

    def _default_hows(self):
        "All fusions that differ on these listings."
        if len(self.modalities) == 1: return ('mean',)
        present = self.refined('none')[1].present
        some_lack = not all(present[modality].all() for modality in self.modalities if modality in present)
        # where all listings have all modalities, 'joint' is the mean
        return tuple(fusion for fusion in FUSED if fusion != 'joint' or some_lack)

    def structure(
        self,
        trial,  # Optuna trial, or `optuna.trial.FixedTrial` of stored parameters
    ) -> RuleStructure:
        "The structure that a trial chooses."
        return suggest_structure(trial, self.space, self.modalities, self.hows, self.max_matches)

    def refined(
        self,
        refinement: str,  # Name of one of the lists of steps that `RuleChoices.steps` offers
    ) -> tuple:  # (dict of spaces, `Candidates`)
        "Spaces and candidates after the refinement's steps on vectors."
        vector_steps = self._vector_steps(refinement)
        if vector_steps not in self._candidates:
            refining_rule = Rule('mean', dict.fromkeys(self.modalities, 1.), 0., self.k, steps=vector_steps)
            spaces = refining_rule.refined(self.spaces)
            self._candidates[vector_steps] = spaces, candidates(spaces, self.k)
        return self._candidates[vector_steps]

    def threshold_search(
        self,
        structure: RuleStructure,
        rows: VisibleRows,  # On which thresholds may be chosen
    ):  # `ThresholdSearch`
        "The exact search for the thresholds of a structure."
        spaces, found_candidates = self.refined(structure.steps)
        weights, groups = dict(structure.weights), self.groups.codes
        vector_steps = self._vector_steps(structure.steps)
        if len(vector_steps) == len(self.steps[structure.steps]):
            pairs_key = vector_steps, rows.key
            if pairs_key not in self._pairs:
                self._pairs[pairs_key] = Flat(found_candidates, groups, rows.mask)
            prepared_pairs = self._pairs[pairs_key]
            return prepared_pairs.sweep(structure.how, weights, structure.power, structure.ranks,
                                        structure.max_matches)
        # steps on neighbors come after the fusion: they are done in every trial
        neighbors = fuse(found_candidates, structure.how, weights, power=structure.power)
        neighbors = self.rule(structure).reranked(neighbors, spaces)[-1][1]
        if structure.ranks == 1: return Sweep(neighbors, groups, structure.max_matches)
        return RankSweep(neighbors, groups, 2, structure.max_matches)

    def rule(
        self,
        structure: RuleStructure,
        thresholds=0.,  # One, or two: (that of the nearest, that of all others)
        score: dict | None = None,  # What the rule is worth, stored with it
    ) -> Rule:
        "The `Rule` of a structure and its thresholds."
        min2_steps = ()
        threshold = thresholds
        if np.ndim(thresholds) > 0:
            nearest_threshold, threshold = thresholds
            min2_steps = (Step('min2', threshold=nearest_threshold),)
        steps = (*self.steps[structure.steps], *min2_steps)
        fusion_options = {'power': structure.power} if structure.how == 'power' else {}
        return Rule(structure.how, dict(structure.weights), threshold, self.k, structure.max_matches,
                    score or {}, self.join, steps, fusion_options, made_with_of(self.spaces))

    def forget(
        self,
        rows: VisibleRows,
    ):
        "Free the memory of pairs that were prepared for these rows."
        self._pairs = {(vector_steps, rows_key): pairs
                       for (vector_steps, rows_key), pairs in self._pairs.items() if rows_key != rows.key}

    def _vector_steps(self, refinement):
        return tuple(step for step in self.steps[refinement] if step.stage == 'vectors')
