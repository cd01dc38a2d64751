"What all candidates for a rule share: spaces are refined and searched once, the rest is arithmetic on that."
from collections import OrderedDict

from ...core import InputError
from ..candidates import Candidates, candidates, made_with_of
from ..fuse import fuse
from ..judge.setting import READ_ONLY, Setting
from ..neighbors import NEAREST, Neighbors, k_among_more
from ..pairs.rule_pairs import RulePairs
from ..rule import Rule
from ..spaces.pool import Pool, finds_candidates, first_rows, holds_column
from ..thresholds.flat import FUSED, Flat
from ..thresholds.sweep import RankSweep, Sweep
from .structure import RuleStructure

KEPT_SPACES = 6  # refinements whose spaces are kept
KEPT_CANDIDATES = 12  # refinements whose candidates of the judged rows are kept
KEPT_WHOLE = 2  # refinements whose candidates of the whole pool are kept: the largest arrays there are


class Workbench:
    """A setting, and everything that was made in it for one rule and that another rule can use.

    Only the judged rows are looked up, in the pool of all, except where a step asks for the neighbors of
    other listings too: then all listings of the pool are looked up, as the rule does it in use.
    """
    def __init__(
        self,
        setting: Setting,  # Where the rules are to work
        k: int = NEAREST,  # Candidates of each modality, the listing itself included
    ):
        self.setting = setting
        self.groups = setting.groups
        self.modalities = setting.modalities
        self.fields = setting.fields
        self.join = setting.keys
        if not self.modalities: raise InputError('exact keys alone: there is nothing to choose')
        self.k = k_among_more(k, setting.pool)  # of the rules; here no more are searched than there are
        self.searched = min(k, setting.pool)
        self._spaces = _Kept(KEPT_SPACES)
        self._candidates = _Kept(KEPT_CANDIDATES)
        self._whole = _Kept(KEPT_WHOLE)
        self._flat = _Kept(KEPT_CANDIDATES)
        self._fused_whole = _Kept(1)

    @property
    def looks_among_themselves(self) -> bool:
        "Whether all listings of the pool are judged."
        return len(self.groups) == self.groups.pool

    def spaces(
        self,
        vector_steps: tuple = (),  # `Step`s on vectors
    ) -> dict:  # Name -> space of all listings of the pool
        "The spaces after these steps, new and known listings as one."
        return self._spaces.get(vector_steps, lambda: self._refined(vector_steps))

    def _refined(self, vector_steps):
        if not vector_steps:
            return {name: space.whole('a step') if isinstance(space, Pool) else space
                    for name, space in self.setting.spaces.items()}
        *earlier, step = vector_steps
        spaces = self.spaces(tuple(earlier))
        neighbors = None
        if step.by != 'own':
            found = self.candidates(tuple(earlier), whole=True)
            neighbors = fuse(
                found, step.by['how'], step.by['weights'], self.join, **step.by.get('options', {})
            )
        given = {} if neighbors is None else {'neighbors': neighbors}
        return {**spaces, **{modality: step(spaces[modality], spaces=spaces, **given)
                             for modality in step.on or self._with_vectors()}}

    def _with_vectors(self):
        return [name for name in self.modalities if not holds_column(self.setting.spaces[name])]

    def candidates(
        self,
        vector_steps: tuple = (),  # `Step`s on vectors
        whole: bool = False,  # Of all listings of the pool, not of the judged rows alone
    ) -> Candidates:
        "The candidates after these steps."
        if whole and not self.looks_among_themselves:
            return self._whole.get(vector_steps, lambda: self._search(self.spaces(vector_steps)))
        return self._candidates.get(vector_steps, lambda: self._of_rows(vector_steps))

    def _of_rows(self, vector_steps):
        # plain pools are searched as they are
        if not vector_steps: return self._search(self.setting.spaces)
        n_rows = len(self.groups)
        return self._search({name: first_rows(space, n_rows)
                             for name, space in self.spaces(vector_steps).items() if name not in READ_ONLY})

    def _search(self, spaces):
        names = *self.modalities, *self.fields, *self.join
        return candidates({name: spaces[name] for name in names}, self.searched, self.setting.sources)

    def neighbors(
        self,
        structure: RuleStructure,
    ) -> Neighbors:
        "The fused and refined neighbors of the judged rows."
        if not structure.score_steps: return self._fused(self.candidates(structure.vector_steps), structure)
        looks_further = not all(step.rowwise for step in structure.score_steps)
        rule = self.rule(structure)
        if not looks_further:
            fused = self._fused(self.candidates(structure.vector_steps), structure)
            return rule.reranked(fused, self._first_rows(structure.vector_steps))[-1][1]
        fused = self._fused_of_all(structure)
        reranked = rule.reranked(fused, self.spaces(structure.vector_steps), self.spaces())[-1][1]
        return reranked.head(len(self.groups))

    def _fused_of_all(self, structure):
        "The fused neighbors of all listings of the pool, before any step on neighbors."
        key = structure.vector_steps, structure.how, structure.weights, structure.power
        return self._fused_whole.get(
            key, lambda: self._fused(self.candidates(structure.vector_steps, whole=True), structure))

    def pairs(
        self,
        structure: RuleStructure,  # Its steps on neighbors are not regarded
    ) -> RulePairs:
        "The candidate pairs of the judged rows, for a pair model to be fitted to."
        return RulePairs(
            self._fused_of_all(structure), self.spaces(structure.vector_steps), plain=self.spaces(),
            modalities=[*dict(structure.weights), *self._not_fused(structure)], join=self.join,
            n_rows=len(self.groups))

    def _first_rows(self, vector_steps):
        if not vector_steps: return self.setting.spaces
        n_rows = len(self.groups)
        return {name: first_rows(space, n_rows) for name, space in self.spaces(vector_steps).items()}

    def _fused(self, found, structure):
        return fuse(found, structure.how, dict(structure.weights), self.join, **structure.options)

    def threshold_search(
        self,
        structure: RuleStructure,
    ):  # `ThresholdSearch`
        "The exact search for the thresholds of a structure, over the judged rows."
        if not structure.score_steps and structure.how in FUSED:
            flat = self._flat.get(structure.vector_steps,
                                  lambda: Flat(self.candidates(structure.vector_steps), self.groups))
            return flat.sweep(structure.how, dict(structure.weights), structure.power, structure.ranks,
                              structure.max_matches)
        neighbors = self.neighbors(structure)
        if structure.ranks == 1: return Sweep(neighbors, self.groups, structure.max_matches)
        return RankSweep(neighbors, self.groups, structure.ranks, structure.max_matches)

    def rule(
        self,
        structure: RuleStructure,
        thresholds=0.,  # One, or two: (that of the nearest, that of all others)
        **fields,  # More for `Rule`
    ) -> Rule:
        "The rule of a structure, as it is used."
        made_with = made_with_of(self.setting.spaces)
        return structure.rule(thresholds, k=self.k, join=self.join, made_with=made_with,
                              compared=self._compared(structure), apart=self.setting.apart, **fields)

    def kind_of(
        self,
        field: str,  # One of `fields`
    ) -> str:
        "What a column holds: 'text', 'code', 'category', 'number'."
        space = self.setting.spaces[field]
        return (space.new if isinstance(space, Pool) else space).kind

    def _not_fused(self, structure):
        return tuple(name for name in self.fields if name not in dict(structure.weights))

    def _compared(self, structure):
        "The columns that find candidates or that a pair model reads, without those that are fused."
        reads_all = any(step.pair_model is not None for step in structure.score_steps)
        return tuple(name for name in self._not_fused(structure)
                     if reads_all or finds_candidates(self.setting.spaces[name]))


class _Kept:
    "The last few results by what they were made of."
    def __init__(self, size):
        self.size = size
        self.results = OrderedDict()

    def get(self, key, make):
        if key not in self.results: self.results[key] = make()
        self.results.move_to_end(key)
        while len(self.results) > self.size: self.results.popitem(last=False)
        return self.results[key]
