"What all trials of a rule's study share: candidates are searched once, a trial is arithmetic on them."
from typing import Protocol, runtime_checkable

import numpy as np

from ..core import InputError
from ..match.judge.heldout import random_halves
from ..match.judge.setting import Setting
from ..match.search.menu import finder_fusions
from ..match.search.structure import RuleStructure
from ..match.search.workbench import Workbench as RuleWorkbench
from ..match.thresholds.flat import FUSED, Flat
from .rule_space import RuleChoices, check_refinements, rule_space, suggest_structure


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


class Workbench(RuleWorkbench):
    """The material of a rule's study: a setting and what may be chosen, with the searches that its trials
    need kept for the next trial.

    Candidates are searched once for each refinement of the vectors, and their pairs are prepared once for
    each set of rows. A trial chooses a `RuleStructure` (`structure`), gets the search for its thresholds
    (`threshold_search`), and both together make the `Rule` (`rule`)."""
    def __init__(
        self,
        setting: Setting,  # Where the rules are to work
        k: int,  # Candidates of each modality
        choices: RuleChoices | None = None,  # What rules may be made of; default `RuleChoices()`
    ):
        super().__init__(setting, k)
        choices = RuleChoices() if choices is None else choices
        self.max_matches = choices.max_matches
        self.steps = check_refinements(choices.steps)
        spaces_read = {name for steps in self.steps.values() for step in steps for name in step.reads}
        lacking = sorted(spaces_read - set(setting.spaces))
        if lacking: raise InputError(f'steps: {lacking} are read; there are {list(setting.spaces)}')
        self._pairs = {}  # (steps on vectors, key of the rows) -> `Flat`
        self._finders = {}  # key of the rows -> the fusion that finds neighbors there
        self.hows = self._default_hows() if choices.hows is None else choices.hows
        self.space = rule_space(self.modalities, self.hows, tuple(self.steps), self.max_matches, choices.min2,
                                self.fields)

    def _default_hows(self):
        "All fusions that differ on these listings."
        if len(self.modalities) == 1: return ('mean',)
        present = self.candidates().present
        some_lack = not all(present[modality].all() for modality in self.modalities if modality in present)
        # where all listings have all modalities, 'joint' is the mean
        return tuple(fusion for fusion in FUSED if fusion != 'joint' or some_lack)

    def structure(
        self,
        trial,  # Optuna trial, or `optuna.trial.FixedTrial` of stored parameters
        rows: VisibleRows,  # The rows that may be seen
    ) -> RuleStructure:
        "The structure that a trial chooses."
        return suggest_structure(trial, self.space, self.modalities, self.hows, self.max_matches, self.steps,
                                 self.finder(rows), self.fields)

    def finder(
        self,
        rows: VisibleRows,  # The rows that may be seen
    ) -> RuleStructure:
        """The fusion that finds the neighbors of steps `by='fused'`: the mean in fifths that is best on the
        rows."""
        if rows.key not in self._finders:
            def value(structure): return self.threshold_search(structure, rows).best(rows.mask)[1]
            self._finders[rows.key] = max(finder_fusions(self.modalities), key=value)
        return self._finders[rows.key]

    def threshold_search(
        self,
        structure: RuleStructure,
        rows: VisibleRows | None = None,  # On which thresholds may be chosen; default all
    ):  # `ThresholdSearch`
        "The exact search for the thresholds of a structure."
        if rows is None or structure.score_steps: return super().threshold_search(structure)
        pairs_key = structure.vector_steps, rows.key
        if pairs_key not in self._pairs:
            found = self.candidates(structure.vector_steps)
            self._pairs[pairs_key] = Flat(found, self.groups, rows.mask)
        return self._pairs[pairs_key].sweep(structure.how, dict(structure.weights), structure.power,
                                            structure.ranks, structure.max_matches)

    def forget(
        self,
        rows: VisibleRows,
    ):
        "Free the memory of pairs that were prepared for these rows."
        self._pairs = {(vector_steps, rows_key): pairs
                       for (vector_steps, rows_key), pairs in self._pairs.items() if rows_key != rows.key}
