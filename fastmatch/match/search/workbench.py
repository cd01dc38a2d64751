"What all candidates for a rule share: spaces are refined and searched once, the rest is arithmetic on that."
from collections import OrderedDict
from dataclasses import replace
from functools import cached_property

from scipy import sparse

from ...core import InputError
from ..candidates import Candidates, candidates, made_with_of
from ..fuse import fuse
from ..judge.setting import Setting
from ..neighbors import NEAREST, Neighbors, k_among_more
from ..pairs.rule_pairs import RulePairs
from ..rule import Rule
from ..spaces.asymmetric import AsymmetricSpace
from ..spaces.base import VectorSpace
from ..spaces.pool import Pool, finds_candidates, first_rows, holds_column
from ..thresholds.flat import FUSED, Flat
from ..thresholds.sweep import RankSweep, Sweep
from .remembered import Remembered
from .structure import RuleStructure

KEPT_SPACES = 6  # refinements whose spaces are kept, whatever their size
KEPT_CANDIDATES = 12  # refinements whose candidates of the judged rows are kept
KEPT_WHOLE = 2  # refinements whose candidates of the whole pool are kept: the largest arrays there are
KEPT_FUSED = 1  # fusions, and fusions with steps on neighbors, whose neighbors are kept
KEPT_BYTES = 1 << 28  # that the results of one kind may take together, where they are more than these


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
        self._spaces = _Kept(KEPT_SPACES, self._bytes_of_spaces)
        self._candidates = _Kept(KEPT_CANDIDATES, _bytes_of_candidates)
        self._whole = _Kept(KEPT_WHOLE, _bytes_of_candidates)
        self._flat = _Kept(KEPT_CANDIDATES, lambda flat: _bytes_of_candidates(flat.candidates))
        self._fused_whole = _Kept(KEPT_FUSED, _bytes_of_neighbors)
        self._reranked = _Kept(KEPT_FUSED, _bytes_of_neighbors)

    @property
    def looks_among_themselves(self) -> bool:
        "Whether all listings of the pool are judged."
        return len(self.groups) == self.groups.pool

    def spaces(
        self,
        vector_steps: tuple = (),  # `Step`s on vectors
    ) -> dict:  # Name -> space of all listings of the pool
        "The spaces after these steps, new and known listings as one."
        if not vector_steps: return self._plain
        return self._spaces.get(vector_steps, lambda: self._refined(vector_steps))

    @cached_property
    def _plain(self):
        return {name: space.whole('a step') if isinstance(space, Pool) else space
                for name, space in self.setting.spaces.items()}

    @cached_property
    def _plain_rows(self):
        n_rows = len(self.groups)
        return {name: first_rows(space, n_rows) for name, space in self._plain.items()}

    @cached_property
    def _remembered(self):
        "What was found in all that no step changed, columns above all: of the whole pool, and of the rows."
        columns = *self.fields, *self.join
        return {True: Remembered(self._plain, columns), False: Remembered(self._plain_rows, columns)}

    def _refined(self, vector_steps):
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
            return self._whole.get(
                vector_steps, lambda: self._search(self.spaces(vector_steps), self._remembered[True]))
        return self._candidates.get(vector_steps, lambda: self._of_rows(vector_steps))

    def _of_rows(self, vector_steps):
        # plain pools are searched as they are
        if not vector_steps: return self._search(self.setting.spaces)
        return self._search(self._first_rows(vector_steps), self._remembered[False])

    def _search(self, spaces, remembered=None):
        names = *self.modalities, *self.fields, *self.join
        return candidates({name: spaces[name] for name in names}, self.searched, self.setting.sources,
                          remembered)

    def neighbors(
        self,
        structure: RuleStructure,
    ) -> Neighbors:
        "The fused and refined neighbors of the judged rows."
        if not structure.score_steps: return self._fused(self.candidates(structure.vector_steps), structure)
        looks_further = not all(step.rowwise for step in structure.score_steps)
        return self._after_steps(structure, looks_further).head(len(self.groups))

    def _after_steps(self, structure, whole):
        """The neighbors after the steps on neighbors: of all listings of the pool where `whole`, otherwise of
        the judged rows alone."""
        key = *_fusion_key(structure), structure.score_steps, whole
        return self._reranked.get(key, lambda: self._after_last_step(structure, whole))

    def _after_last_step(self, structure, whole):
        *earlier, step = structure.score_steps
        # the steps before it are those of another structure, whose neighbors are at hand
        if earlier: before = self._after_steps(replace(structure, score_steps=tuple(earlier)), whole)
        elif whole: before = self._fused_of_all(structure)
        else: before = self._fused(self.candidates(structure.vector_steps), structure)
        rule = self.rule(replace(structure, score_steps=(step,)))
        if not whole: return rule.reranked(before, self._first_rows(structure.vector_steps))[-1][1]
        return rule.reranked(before, self.spaces(structure.vector_steps), self.spaces())[-1][1]

    def _fused_of_all(self, structure):
        "The fused neighbors of all listings of the pool, before any step on neighbors."
        return self._fused_whole.get(
            _fusion_key(structure),
            lambda: self._fused(self.candidates(structure.vector_steps, whole=True), structure))

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
        return {name: self._plain_rows[name] if space is self._plain[name] else first_rows(space, n_rows)
                for name, space in self.spaces(vector_steps).items()}

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


    def _bytes_of_spaces(self, spaces):
        return sum(_bytes_of_space(space) for name, space in spaces.items() if space is not self._plain[name])


class _Kept:
    "The last few results by what they were made of, and more of them as long as they are small."
    def __init__(
        self,
        least,  # Results that are kept whatever their size
        bytes_of,  # Function of a result that gives the bytes it takes
    ):
        self.least = least
        self.bytes_of = bytes_of
        self.results = OrderedDict()
        self.sizes = {}

    def get(self, key, make):
        if key not in self.results:
            self.results[key] = made = make()
            self.sizes[key] = self.bytes_of(made)
        self.results.move_to_end(key)
        while len(self.results) > self.least and sum(self.sizes.values()) > KEPT_BYTES:
            oldest, _ = self.results.popitem(last=False)
            del self.sizes[oldest]
        return self.results[key]


def _fusion_key(structure): return structure.vector_steps, structure.how, structure.weights, structure.power


def _bytes_of_candidates(found):
    return found.ids.nbytes + sum(scores.nbytes for scores in found.scores.values())


def _bytes_of_neighbors(neighbors): return neighbors.ids.nbytes + neighbors.scores.nbytes


def _bytes_of_space(space):
    if isinstance(space, AsymmetricSpace):
        return _bytes_of_space(space.listings) + _bytes_of_space(space.queries)
    if not isinstance(space, VectorSpace): return 0
    vectors = space.vectors
    return vectors.data.nbytes + (vectors.indices.nbytes if sparse.issparse(vectors) else 0)
