"""`Rule`: how modalities are fused, which steps refine and decide, and where the threshold is; kept as json,
applied to any listings."""
import math
from dataclasses import dataclass, field, fields, replace
from numbers import Real

import numpy as np

from ..core import InputError
from .candidates import candidates, made_with_of
from .decide import cut_short, decide
from .embeddings import check_made_alike
from .fuse import FUSIONS, check_thresholds, check_weights, fuse
from .matches import MAX_MATCHES, Matches, at_most
from .neighbors import NEAREST, Neighbors, check_self_first
from .pairs.rule_pairs import RulePairs, scores_read
from .pools import PoolThresholds, check_pool
from .spaces.base import Space
from .spaces.pool import Pool, first_rows, holds_column, holds_keys
from .spaces.sources import sources_of
from .steps.sources import across_sources
from .steps.step import GROUPINGS, STAGES, Step, as_step, plain_value

HIGHEST = 1.01  # threshold of scores that end at 1: with it nothing matches
COSINE_FUSIONS = ('mean', 'square', 'joint', 'prob_or')  # fusions whose scores stay within -1 to 1


@dataclass
class Decision:
    "What a rule found, and how it came to it."
    neighbors: Neighbors  # Candidates with their fused and refined scores
    matches: Matches  # What was decided
    trail: list  # (step, `Neighbors` or `Matches` after it): 'fuse' first; 'score' is the threshold
    rule: 'Rule'  # That was carried out, with the threshold for this pool
    pairs: RulePairs | None = None  # What the rule's pair model looked at, where it has one
    # bool (n,), listings that may have more matches than the rule gives: it ends at `max_matches`, and at
    # the `k` candidates of each modality
    cut_short: np.ndarray | None = None


@dataclass(frozen=True)
class Rule:
    """A fusion of modalities, steps that refine and decide, and a threshold: `run` it on spaces, keep it as
    json by `to_dict`."""
    how: str  # One of `FUSIONS`
    weights: dict  # Modality -> weight, power or threshold, as the fusion takes it
    threshold: float  # Pairs with this fused score or more match
    # Candidates from each modality, the listing itself included; all there are where there are fewer
    k: int = NEAREST
    max_matches: int = MAX_MATCHES  # Most matches of a listing, itself included
    score: dict = field(default_factory=dict)  # What the rule was worth where it was chosen
    # Modalities of exact keys ('phash', 'same_title'): listings with an equal key match by that alone
    join: tuple = ()
    # Columns of a table that are compared and not fused: they may find candidates, and a pair model reads
    # their similarities. Whatever the fusion: where weights are thresholds, 0 would let everything in
    compared: tuple = ()
    # `Step`s, names of steps, or functions: those on vectors first, then on neighbors, then on matches
    steps: tuple = ()
    options: dict = field(default_factory=dict)  # Further arguments of `fuse`: `power`, `planes`
    # How the vectors that the rule was chosen on were made ({'tta': True}); a matcher must make its own
    # in the same way
    made_with: dict | None = None
    # Space of keys that say where a listing comes from, 'source': those of one source never match each other
    apart: str | None = None
    # The threshold for other sizes of the pool than that it was chosen in, `PoolThresholds` or a dict of its
    # fields; None: `threshold` is taken whatever the size
    pools: PoolThresholds | dict | None = None

    def __post_init__(self):
        self._check()
        given_threshold = self.threshold
        steps = [self.steps] if isinstance(self.steps, str) else self.steps
        # plain numbers, so that json takes them; object.__setattr__ since a rule is frozen
        plain_values = {'steps': tuple(as_step(step) for step in steps), 'threshold': float(self.threshold),
                        'weights': {modality: float(weight) for modality, weight in self.weights.items()},
                        'join': tuple(self.join), 'compared': tuple(self.compared),
                        'options': plain_value(self.options, 'options'),
                        'made_with': plain_value(self.made_with, 'made_with'),
                        'pools': PoolThresholds.of(self.pools)}
        for field_name, value in plain_values.items(): object.__setattr__(self, field_name, value)
        self._check_steps(given_threshold)

    def _check(self):
        check_fusion(self.how, self.weights, self.options)
        _check_number('threshold', self.threshold)
        for field_name in ('k', 'max_matches'):
            count = getattr(self, field_name)
            if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
                raise InputError(f'{field_name}={count!r}: give a whole number from 1')
        if isinstance(self.join, str) or not all(isinstance(modality, str) for modality in self.join):
            raise InputError(f'join={self.join!r}: give a list of names')
        if isinstance(self.compared, str) or not all(isinstance(name, str) for name in self.compared):
            raise InputError(f'compared={self.compared!r}: give a list of names')
        twice = set(self.compared) & {*self.weights, *self.join}
        if twice: raise InputError(f'compared={sorted(twice)}: they are fused or joined already')

    def _check_steps(self, given_threshold):
        if self.scores_are_cosines:
            check_thresholds({'threshold': given_threshold})
        for step, following in zip(self.steps, self.steps[1:]):
            if STAGES.index(following.stage) < STAGES.index(step.stage):
                raise InputError(
                    f'steps: {following.do!r} works on {following.stage}, '
                    f'{step.do!r} before it on {step.stage}')
        for step in self.steps:
            if unknown_modalities := set(step.on or ()) - set(self.weights):
                raise InputError(
                    f'step {step.do!r} on {sorted(unknown_modalities)}: '
                    f'the weights name {list(self.weights)}')
            if step.pair_model is not None:
                scores_read(step.pair_model, [*self.weights, *self.compared], self.join)
            if isinstance(step.by, dict): self._check_fusion_of(step)

    def _check_fusion_of(self, step):
        try: check_fusion(step.by['how'], step.by['weights'], step.by.get('options', {}))
        except InputError as error: raise InputError(f'step {step.do!r} by: {error}') from None
        if unknown_modalities := set(step.by['weights']) - set(self.weights):
            raise InputError(f'step {step.do!r} by {sorted(unknown_modalities)}: '
                             f'the weights name {list(self.weights)}')

    def steps_on(
        self,
        stage: str,  # One of `STAGES`
    ) -> list[Step]:
        "The steps that change vectors, neighbors or matches."
        return [step for step in self.steps if step.stage == stage]

    def fusion_of(
        self,
        by='fused',  # What a step goes by: the rule's own fusion, or one of its own
    ) -> dict:
        "The arguments of `fuse`."
        fusion = {'how': self.how, 'weights': self.weights, 'options': self.options} if by == 'fused' else by
        return {'how': fusion['how'], 'weights': fusion['weights'], 'join': self.join,
                **fusion.get('options', {})}

    @property
    def scores_are_cosines(self) -> bool:
        "Whether what the threshold is compared with stays within -1 to 1."
        return self.how in COSINE_FUSIONS and not self.steps_on('neighbors')

    @property
    def scores_end_at_one(self) -> bool:
        "Whether what the threshold is compared with is never above 1: cosines, probabilities."
        ends_at_one = self.how in COSINE_FUSIONS
        for step in self.steps_on('neighbors'):
            # a pair model gives probabilities, whatever stood before it
            ends_at_one = step.pair_model is not None or (ends_at_one and step.within_one)
        return ends_at_one

    @property
    def modalities(self) -> list[str]:
        "The modalities that candidates come from, exact keys last."
        return [*self.weights, *self.compared, *self.join]

    @property
    def reads(self) -> list[str]:
        "All spaces that the rule needs: its modalities, then what steps look up ('units', say)."
        sources = [] if self.apart is None else [self.apart]
        of_steps = [name for step in self.steps for name in step.reads]
        return list(dict.fromkeys([*self.modalities, *of_steps, *sources]))

    def neighbors(
        self,
        spaces: dict,  # Name -> space, or `Pool`
    ) -> Neighbors:
        "The candidates of the listings in `spaces` with their fused and refined scores."
        return self.run(spaces).neighbors

    def apply(
        self,
        spaces: dict,  # Name -> space, or `Pool`
    ) -> Matches:
        "The matches of the listings in `spaces`."
        return self.run(spaces).matches

    def run(
        self,
        spaces: dict,  # Name -> space, or `Pool`: all that `reads` names
        prepared=None,  # `PreparedCatalogue` of the known listings of pools, which spares most of the work
    ) -> Decision:
        """The matches of the listings in `spaces`, with what each step left: the one way in which a rule is
        carried out. The threshold is that for the number of listings searched, where the rule knows it."""
        if missing_spaces := [space_name for space_name in self.reads if space_name not in spaces]:
            raise InputError(f'the rule needs the modalities {missing_spaces}; there are {list(spaces)}')
        spaces = {space_name: spaces[space_name] for space_name in self.reads}
        check_made_alike(self.made_with, made_with_of(spaces), 'rule: chosen on embeddings')
        n_listings = len(next(iter(spaces.values())))
        rule = self.at(next(iter(spaces.values())).searched)
        if prepared is not None and not prepared.serves(rule, spaces): prepared = None
        return rule._run(spaces, n_listings, prepared)

    def _run(self, spaces, n_listings, prepared):
        if looking_further := [step for step in self.steps if not step.rowwise]:
            # such a step needs the neighbors' neighbors: new listings and catalogue are refined as one
            reason = f'step {looking_further[0].do!r}'
            spaces = {space_name: space.whole(reason) if isinstance(space, Pool) else space
                      for space_name, space in spaces.items()}
        plain = spaces
        spaces = self.refined(spaces) if prepared is None else prepared.refined(spaces, n_listings)
        if all(step.rowwise for step in self.steps if step.stage != 'vectors'):
            # nothing asks for the neighbors of the catalogue's listings any more
            spaces = {space_name: first_rows(space, n_listings) if isinstance(space, Space) else space
                      for space_name, space in spaces.items()}
        neighbors = self._fuse(spaces)
        pool = next(iter(spaces.values())).pool
        trail, pairs = [('fuse', neighbors)], None
        for step, after, pairs_of_step in self._reranked(neighbors, spaces, plain, n_listings):
            trail.append((step.do, after))
            if pairs_of_step is not None: pairs = pairs_of_step
        neighbors = trail[-1][1]
        decided, is_cut = self._decided(neighbors, spaces, pool)
        trail += decided
        own_trail = [(step_name, outcome.head(n_listings)) for step_name, outcome in trail]
        return Decision(neighbors.head(n_listings), own_trail[-1][1], own_trail, self, pairs,
                        is_cut[:n_listings])

    def _decided(self, neighbors, spaces, pool):
        "[(step, `Matches` after it)] for the threshold and each step on matches, and which rows are cut."
        matches = decide(neighbors, self.threshold, self.max_matches, pool)
        searched = next(iter(spaces.values())).searched
        is_cut = cut_short(neighbors, matches, self.threshold, self.max_matches, self.k, searched)
        decided = [('score', matches)]
        for step in self.steps_on('matches'):
            is_grouping = step.do in GROUPINGS
            # one more than is kept tells whether there are more
            limit = {'max_matches': self.max_matches + 1} if is_grouping else {}
            changed = _checked(step, step(matches, neighbors, spaces=spaces, **limit), matches, pool)
            if self.apart is not None: changed = across_sources(changed, sources_of(spaces[self.apart]))
            counts = np.diff(changed.indptr)
            # a group holds what was found by way of others; a step that takes matches away from a row that
            # was cut leaves nothing to ask for
            was_cut = is_cut & (not is_grouping) & (counts >= min(self.max_matches, self.k))
            is_cut = was_cut | (counts > self.max_matches)
            matches = at_most(changed, self.max_matches)
            decided.append((step.do, matches))
        return decided, is_cut

    def at(
        self,
        pool: int,  # Listings searched
    ) -> 'Rule':
        "The rule with the threshold for a pool of this size; itself where it knows no thresholds for others."
        check_pool(pool)
        if self.pools is None: return self
        threshold = self.pools.at(pool)
        # beyond the measured pools a threshold may be predicted where no score can be
        if self.scores_end_at_one: threshold = min(threshold, HIGHEST)
        if self.scores_are_cosines: threshold = max(threshold, -HIGHEST)
        return self._moved(threshold)

    def with_threshold(
        self,
        threshold: float,
    ) -> 'Rule':
        "The rule with this threshold in pools of any size; those of its steps move with it."
        if isinstance(threshold, bool) or not isinstance(threshold, Real) or not math.isfinite(threshold):
            raise InputError(f'threshold={threshold!r}: give a number')
        return replace(self._moved(float(threshold)), pools=None)

    def _moved(self, threshold):
        shift = threshold - self.threshold
        return replace(self, threshold=threshold, steps=tuple(step.moved(shift) for step in self.steps))

    def refined(
        self,
        spaces: dict,  # Name -> space
    ) -> dict:
        "The spaces after the steps on vectors."
        spaces = dict(spaces)
        for step in self.steps_on('vectors'):
            fused_neighbors = {} if step.by == 'own' else {'neighbors': self._fuse(spaces, step.by)}
            modalities = step.on or [
                modality for modality in self.weights
                if not (holds_keys(spaces[modality]) or holds_column(spaces[modality]))]
            spaces |= {modality: step(spaces[modality], spaces=spaces, **fused_neighbors)
                       for modality in modalities}
        return spaces

    def reranked(
        self,
        neighbors: Neighbors,  # Fused
        spaces: dict,  # Name -> space, after the steps on vectors
        plain: dict | None = None,  # Name -> space before them, which a pair model reads; default `spaces`
    ) -> list:  # (name of the step, `Neighbors` after it)
        "What each step on neighbors leaves."
        return [(step.do, after) for step, after, _ in self._reranked(neighbors, spaces, plain or spaces)]

    def _reranked(self, neighbors, spaces, plain, n_listings=None):
        """(step, `Neighbors` after it, `RulePairs` of a pair model) for each step on neighbors.

        Where no later step asks for others, a pair model scores the first `n_listings` alone.
        """
        pool = next(iter(spaces.values())).pool
        steps, last_steps = self.steps_on('neighbors'), self.steps_on('matches')
        for place, step in enumerate(steps, 1):
            pairs, given = None, {}
            if step.pair_model is not None:
                rows_suffice = all(later.rowwise for later in (*steps[place:], *last_steps))
                pairs = RulePairs(neighbors, spaces, plain=plain, modalities=[*self.weights, *self.compared],
                                  join=self.join, n_rows=n_listings if rows_suffice else None,
                                  model=step.pair_model)
                given = {'pairs': pairs}
                neighbors = neighbors.head(pairs.n_rows)
            rescored = _checked(step, step(neighbors, spaces=spaces, **given), neighbors, pool)
            neighbors = self._with_equal_keys_on_top(rescored, spaces)
            yield step, neighbors, pairs

    def _fuse(self, spaces, by='fused'):
        "The candidates of the spaces as the rule fuses them, or as a step says."
        used_spaces = {modality: spaces[modality] for modality in self.modalities}
        # a rule that was chosen among many listings may be applied to fewer than `k`
        neighbor_count = min(self.k, next(iter(used_spaces.values())).pool)
        sources = None if self.apart is None else sources_of(spaces[self.apart])
        found = candidates(used_spaces, neighbor_count, sources)
        return fuse(found, **self.fusion_of(by))

    def _with_equal_keys_on_top(self, neighbors, spaces):
        """Neighbors after a step that changed their scores: pairs of an equal key get a score above all
        others and above the threshold."""
        pair_rows, pair_ids, pair_scores = neighbors.pairs()
        has_equal_key = np.zeros(len(pair_rows), bool)
        for modality in self.join: has_equal_key |= spaces[modality].scores(pair_rows, pair_ids) == 1
        has_equal_key &= pair_rows != pair_ids
        if not has_equal_key.any(): return neighbors
        above_threshold = np.nextafter(np.float32(self.threshold), np.float32(np.inf))
        top_score = max(np.float32(1), pair_scores.max(), above_threshold)
        new_ids, new_scores = neighbors.ids.copy(), neighbors.scores.copy()
        new_scores[new_ids >= 0] = np.where(has_equal_key, top_score, pair_scores)
        behind_all = len(pair_rows) + new_ids.max()
        tie_break = np.where(new_ids[:, 1:] < 0, behind_all, new_ids[:, 1:])
        best_first = np.lexsort((tie_break, -new_scores[:, 1:]), axis=1)
        for array in (new_ids, new_scores): array[:, 1:] = np.take_along_axis(array[:, 1:], best_first, 1)
        new_scores[:, 0] = np.maximum(new_scores[:, 0], new_scores.max(1))
        return Neighbors(new_ids, new_scores)

    def to_dict(self) -> dict:
        """The rule as plain values. What older versions don't know (`steps`, `options`, `compared`, ...) is
        there only where it says something, so that they read rules without it."""
        plain_values = {rule_field.name: getattr(self, rule_field.name) for rule_field in fields(self)}
        plain_values |= {'weights': dict(self.weights), 'score': dict(self.score), 'join': list(self.join),
                         'compared': list(self.compared),
                         'steps': [step.to_dict() for step in self.steps],
                         'pools': None if self.pools is None else self.pools.to_dict()}
        return {
            field_name: value
            for field_name, value in plain_values.items()
            if value or field_name not in ('steps', 'options', 'made_with', 'pools', 'apart', 'compared')
        }

    @classmethod
    def from_dict(
        cls,
        saved: dict,  # As `to_dict` gives it
        functions: dict | None = None,  # 'module:name' -> function, for steps of your own
    ) -> 'Rule':
        "The rule that `to_dict` wrote; raises `InputError` for entries that are unknown or missing."
        if unknown_entries := set(saved) - set(cls.__dataclass_fields__):
            raise InputError(f'rule: unknown entries {sorted(unknown_entries)}')
        if missing_entries := {'how', 'weights', 'threshold'} - set(saved):
            raise InputError(f'rule: {sorted(missing_entries)} missing')
        return cls(**{**saved, 'steps': [Step.from_dict(step, functions) for step in saved.get('steps', ())]})


def check_fusion(
    how,  # As for `Rule`
    weights,  # As for `Rule`
    options,  # Further arguments of `fuse`
):
    "Raise `InputError` unless candidates can be fused like this."
    if how not in FUSIONS: raise InputError(f'how={how!r}: choose one of {", ".join(FUSIONS)}')
    if not isinstance(weights, dict):
        raise InputError(f'weights={weights!r}: give a dict, a number for each modality')
    for modality, weight in weights.items(): _check_number(f'weights[{modality!r}]', weight)
    if not isinstance(options, dict) or set(options) - {'power', 'planes'}:
        raise InputError(f'options={options!r}: power, planes')
    check_weights(how, weights, **options)


def _check_number(number_name, number):
    is_number = isinstance(number, (int, float, np.number)) and not isinstance(number, bool)
    if not is_number or not np.isfinite(number):
        raise InputError(f'{number_name}={number!r}: give a finite number')


def _checked(step, result, before, pool):
    "What a step gave, if it is what its stage hands on; otherwise `InputError` naming the step."
    expected = 'Neighbors' if step.stage == 'neighbors' else 'Matches'
    if type(result) is not type(before):
        raise InputError(f'step {step.do!r} gave {type(result).__name__}, not {expected}')
    n_given, n_expected = (len(outcome.ids) if step.stage == 'neighbors' else len(outcome)
                           for outcome in (result, before))
    if n_given != n_expected: raise InputError(f'step {step.do!r} gave {n_given} rows for {n_expected}')
    if step.stage == 'neighbors':
        try: check_self_first(result.check(), pool)
        except InputError as error: raise InputError(f'step {step.do!r}: {error}') from error
    return result
