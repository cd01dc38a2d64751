"""The ladder: a whole rule is built step by step, and each step is kept only where it adds.

The whole search is done on one half of the groups and scored on the other half, several times, so the figure
of each rung is what a rule that was chosen like this scores on groups it was not chosen on.
"""
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from tqdm import tqdm

from ...core import InputError
from ..judge.choose import MEANS
from ..judge.heldout import HeldOut, alone_heldout, random_halves
from ..judge.paired import Paired, paired
from ..judge.pool_thresholds import pool_thresholds
from ..judge.score import recall_and_precision
from ..judge.setting import Setting
from ..neighbors import NEAREST
from ..rule import Rule
from ..steps.step import Step
from ..thresholds.sweep import RankSweep, Sweep
from .menu import (
    FIELD_SHARES,
    MORE_FUSIONS,
    PLAIN_FUSIONS,
    Menu,
    bound,
    field_vetoes,
    finder_fusions,
    fusions,
    menu_of,
    with_field,
)
from .structure import RuleStructure
from .workbench import Workbench

# what a step must add on the half that it is chosen on: less is noise, and the plainer rule stays
WORTH = .002
FUSIONS_KEPT = 3  # fusions that did best on a half, which are tried again after the steps on vectors
HALVINGS = 10
LARGE_HALVINGS = 2  # of more than `MANY` listings: their figures vary little, and each halving takes long
MANY = 2_000


@dataclass
class Rung:
    "One step of the ladder."
    name: str  # What was offered: 'fused', '+ min2', ...
    heldout: HeldOut  # What the rule scores, chosen on other groups; `picks` say what was chosen
    over_before: Paired | None  # The paired difference to the rung before


@dataclass(frozen=True)
class HalfRule:
    "The rule that was chosen on one half of the groups."
    structure: RuleStructure
    thresholds: object  # One, or two: (that of the nearest, that of all others)
    scored: np.ndarray  # bool (n,), the rows it was not chosen on


@dataclass
class LadderResult:
    "A rule, and what each step on the way to it was worth."
    rule: Rule  # Chosen on all rows
    structure: RuleStructure  # Of the rule
    rungs: list  # `Rung`s, the last of them what the rule promises
    halves: list = field(default_factory=list)  # `HalfRule`s that the last rung's figure is made of

    @property
    def heldout(self) -> HeldOut:
        "What the whole search promises: chosen on one half of the groups, scored on the other."
        return self.rungs[-1].heldout

    @property
    def fused(self) -> HeldOut:
        "What the plain fusion with one threshold is worth: the first rung."
        return next(rung.heldout for rung in self.rungs if rung.name == 'fused')

    def scores_in(
        self,
        setting: Setting,  # Another setting with the same rows in the same order
        shift: float = 0.,  # Added to the thresholds, whose best values depend on the pool
    ) -> HeldOut:
        "What the rules of the halves score in another setting, on the groups they were not chosen on."
        workbench, groups = Workbench(setting, self.rule.k), setting.groups
        totals, times = np.zeros((3, len(setting))), np.zeros(len(setting))
        # by what is searched, so that halves of equal steps share the work
        for half in sorted(self.halves, key=lambda half: repr(half.structure)):
            search = workbench.threshold_search(half.structure)
            thresholds = tuple(np.add(half.thresholds, shift)) if np.ndim(half.thresholds) else (
                half.thresholds + shift)
            neighbors = search.neighbors
            scores = search.at(thresholds), *recall_and_precision(neighbors, groups)
            for row_totals, of_rows in zip(totals, scores): row_totals[half.scored] += of_rows[half.scored]
            times[half.scored] += 1
        row_f1, recall, precision = totals / times
        return HeldOut(row_f1, groups.row_codes, recall, precision)

    def table(self):
        "The rungs as a DataFrame: row F1, its standard error, and the difference to the rung before."
        import pandas as pd
        rows = []
        for rung in self.rungs:
            row = {'rung': rung.name, 'row_f1': rung.heldout.mean, 'se': rung.heldout.se}
            if rung.over_before is not None:
                row |= {
                    'adds': rung.over_before.diff,
                    'low': rung.over_before.low,
                    'high': rung.over_before.high,
                }
            rows.append(row)
        return pd.DataFrame(rows)


def ladder(
    setting: Setting,  # Where the rule is going to work
    menu: Menu | str | None = None,  # What may be chosen, as for `menu_of`; default by the size of the pool
    halvings: int | None = None,  # Of the groups, for the figures; default 10, for many listings 2
    seed: int = 0,  # Of the halvings
    k: int = NEAREST,  # Candidates of each modality, the listing itself included
    echo=None,  # Called with a line of text after each rung; None: says nothing
    pools: bool = True,  # Find the rule's thresholds for other sizes of the pool as well
) -> LadderResult:
    "Choose a whole rule, fusion first and one refinement after the other, each taken only where it adds."
    if halvings is None: halvings = LARGE_HALVINGS if len(setting) > MANY else HALVINGS
    if halvings < 1: raise InputError(f'halvings={halvings}: 1 or more')
    climb = _Climb(Workbench(setting, k), menu_of(menu, setting.pool), halvings, seed)
    rungs = [Rung('alone', alone_heldout(setting.groups), None)]
    for name, climb_rung in climb.rungs():
        climb_rung()
        heldout = climb.heldout()
        rungs.append(Rung(name, heldout, paired(heldout, rungs[-1].heldout)))
        if echo is not None: echo(f'  {name:>16} {heldout.mean:.4f}  {climb.everything.structure}')
    final = climb.everything
    score = {'row_f1_chosen_on': round(float(final.value), 5), 'heldout': rungs[-1].heldout.summary(),
             'setting': setting.name, 'pool': setting.pool}
    rule = climb.workbench.rule(final.structure, final.thresholds, score=score)
    if pools:
        has_model = any(step.pair_model is not None for step in final.structure.score_steps)
        # what was searched in the whole pool is at hand; but a model's scores are made anew
        neighbors = None if has_model else climb.workbench.neighbors(final.structure)
        rule = replace(rule, pools=pool_thresholds(setting, rule, seed=seed, neighbors=neighbors))
    halves = [HalfRule(side.structure, side.thresholds, side.scored) for side in climb.halves]
    return LadderResult(rule, final.structure, rungs, halves)


class _Side:
    "Some of the rows, the best rule found on them so far, and what it scores on the others."
    def __init__(self, chosen_on, scored):
        self.chosen_on = chosen_on  # bool (n,)
        self.scored = scored  # bool (n,)
        self.fusions = {}  # structure without steps -> its value here
        self.structure = None
        self.thresholds = None
        self.scores = ()  # row F1, recall@1 and mAP@R of the rows that are scored
        self.value = -np.inf
        self.least = -np.inf  # what an option must reach

    def offer(self, structure, search, recall_and_precision):
        """Take an option where it reaches more than what is held, by as much as a step must add.

        `recall_and_precision` gives its recall@1 and map@r for each listing, which cost a look at all
        neighbors.
        """
        thresholds, value = search.best(self.chosen_on)
        if value > self.value and value >= self.least:
            self.structure, self.thresholds, self.value = structure, thresholds, value
            scores = search.at(thresholds), *recall_and_precision()
            self.scores = [of_rows[self.scored] for of_rows in scores]
        return value

    def must_add(self, worth):
        "From here on an option must beat what is held now by `worth`."
        self.least = self.value + worth

    def finder(self, modalities):
        "The fusion that finds the neighbors of steps on vectors, the best of `finder_fusions`."
        return max(finder_fusions(modalities), key=self.fusions.get)

    def best_fusions(self):
        "Those that were worth most here, the plainest first in ties."
        return sorted(self.fusions, key=lambda structure: -self.fusions[structure])[:FUSIONS_KEPT]

    def best_means(self):
        "Those of the best fusions whose weights are shares, and the best of all such."
        means = [structure for structure in self.fusions if structure.how in MEANS]
        best = [structure for structure in self.best_fusions() if structure.how in MEANS]
        return list(dict.fromkeys([*best, max(means, key=self.fusions.get)]))


class _Climb:
    "All halves of the groups climbing the ladder together, so that what two of them ask for is made once."
    def __init__(self, workbench, menu, halvings, seed):
        self.workbench, self.menu, self.halvings = workbench, menu, halvings
        codes = workbench.groups.row_codes
        if codes.max(initial=0) < 1:
            raise InputError('one group only: a rule is chosen on some groups and scored on others')
        self.halves = [side for half in random_halves(codes, halvings, seed)
                       for side in (_Side(half, ~half), _Side(~half, half))]
        every_row = np.ones(len(codes), bool)
        self.everything = _Side(every_row, every_row)
        self.sides = [*self.halves, self.everything]

    def rungs(self):
        "(name, function that offers the options of this rung) for each rung."
        menu, modalities = self.menu, self.workbench.modalities
        yield 'fused', lambda: self._try_fusions(fusions(modalities, PLAIN_FUSIONS))
        if menu.more_fusions and len(modalities) > 1:
            yield '+ other fusions', lambda: self._try_fusions(fusions(modalities, MORE_FUSIONS), WORTH)
        if menu.fields and self.workbench.fields: yield '+ fields', self._try_fields
        if menu.min2: yield '+ min2', self._try_min2
        if menu.refinements: yield '+ neighbors', lambda: self._refine(self._refinements)
        if menu.blends: yield '+ blending', lambda: self._refine(self._blends)
        if menu.rerankings: yield '+ re-ranking', lambda: self._rerank(menu.rerankings)
        if menu.vetoes: yield '+ vetoes', self._try_vetoes
        if menu.pair_model: yield '+ pair model', self._try_pair_model

    def heldout(self) -> HeldOut:
        "What the rules of the halves score on the other halves."
        totals = np.zeros((3, len(self.workbench.groups)))
        for side in self.halves:
            for row_totals, scores in zip(totals, side.scores): row_totals[side.scored] += scores
        picks = [(str(side.structure), side.thresholds) for side in self.halves]
        return HeldOut(*(totals[:1] / self.halvings), self.workbench.groups.row_codes,
                       *(totals[1:] / self.halvings), picks)

    def _offer(self, wanted):
        "Make what each structure needs once, and offer it to the sides that asked for it."
        # by what is searched: each refinement of the spaces is made once and then dropped
        for structure, sides in sorted(wanted.items(), key=lambda item: repr(item[0].vector_steps)):
            search = self.workbench.threshold_search(structure)
            recall_and_precision = self._recall_and_precision(search)
            for side in sides:
                value = side.offer(structure, search, recall_and_precision)
                if not (structure.vector_steps or structure.score_steps):
                    side.fusions[replace(structure, ranks=1)] = value

    def _recall_and_precision(self, search):
        "A function that gives recall@1 and mAP@R of what is searched, made once when first asked for."
        @cache
        def of_neighbors(): return recall_and_precision(search.neighbors, self.workbench.groups)
        return of_neighbors

    def _try_fusions(self, structures, worth=-np.inf):
        for side in self.sides: side.must_add(worth)
        self._offer({structure: self.sides for structure in structures})

    def _try_fields(self):
        "Offer the columns of the table one after the other, each with the fusions that did best on the side."
        for column in self.workbench.fields:
            wanted = {}
            for side in self.sides:
                side.must_add(WORTH)
                for fusion in side.best_means():
                    if column in dict(fusion.weights): continue
                    for share in FIELD_SHARES:
                        wanted.setdefault(with_field(fusion, column, share), []).append(side)
            self._offer(wanted)

    def _try_vetoes(self):
        self._rerank(self.menu.vetoes)
        for column in self.workbench.fields:
            vetoes = field_vetoes(column, self.workbench.kind_of(column))
            if vetoes: self._rerank(vetoes)

    def _try_min2(self):
        wanted = {}
        for side in self.sides:
            side.must_add(WORTH)
            for structure in side.best_fusions():
                wanted.setdefault(replace(structure, ranks=2), []).append(side)
        self._offer(wanted)

    def _refine(self, options_of):
        "Offer steps on vectors, each with the fusions that did best on the side."
        ranks = 2 if self.menu.min2 else 1
        wanted = {}
        for side in self.sides:
            side.must_add(WORTH)
            for steps in options_of(side):
                for fusion in dict.fromkeys(
                    [replace(side.structure, vector_steps=(), score_steps=(), ranks=1), *side.best_fusions()]
                ):
                    structure = replace(fusion, vector_steps=steps, ranks=ranks)
                    wanted.setdefault(structure, []).append(side)
        self._offer(wanted)

    def _refinements(self, side):
        finder = side.finder(self.workbench.modalities)
        return [bound(steps, finder) for steps in self.menu.refinements]

    def _blends(self, side):
        "Stages of blending around the threshold that a side holds, after its steps or in their place."
        threshold = np.atleast_1d(side.thresholds)[-1]
        by = side.finder(self.workbench.modalities).fusion
        kept_steps = tuple(step for step in side.structure.vector_steps if step.do != 'expand')
        options = []
        for steps in dict.fromkeys([(), kept_steps]):
            for shift, stages, k, min2 in self.menu.blends:
                # on a grid, so that halves share the work
                rounded = round(round((threshold + shift) / .02) * .02, 2)
                blend = Step('blend', by=by, threshold=rounded, k=k, min2=min2)
                options.append(steps + (blend,) * stages)
        return options

    def _rerank(self, options):
        "Offer steps on the fused neighbors, on top of what each side holds."
        ranks = 2 if self.menu.min2 else 1
        wanted = {}
        for side in self.sides:
            side.must_add(WORTH)
            for steps in options:
                lacking = {name for step in steps for name in step.reads} - set(self.workbench.setting.spaces)
                # a veto without titles says nothing
                if lacking: continue
                score_steps = side.structure.score_steps + steps
                wanted.setdefault(replace(side.structure, score_steps=score_steps, ranks=ranks), []).append(
                    side
                )
        self._offer(wanted)

    def _try_pair_model(self):
        """Offer a classifier of pairs in place of a side's steps on neighbors.

        It is fitted to the pairs of the side's own rows; their probabilities, which the threshold is chosen
        on, come from models that did not see them.
        """
        ranks = 2 if self.menu.min2 else 1
        wanted = {}
        for side in self.sides:
            side.must_add(WORTH)
            wanted.setdefault(replace(side.structure, score_steps=(), ranks=ranks), []).append(side)
        groups = self.workbench.groups
        for structure, sides in wanted.items():
            pairs = self.workbench.pairs(structure)
            for side in tqdm(sides, desc='pair model', delay=2, leave=False):
                model, neighbors = pairs.crossed(groups, side.chosen_on)
                search = Sweep(neighbors, groups) if ranks == 1 else RankSweep(neighbors, groups, ranks)
                with_model = replace(structure, score_steps=(Step('pair_model', model=model),))
                side.offer(with_model, search, self._recall_and_precision(search))
