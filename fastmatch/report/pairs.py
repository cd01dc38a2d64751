"What a rule did with listings whose groups are known: its matches, and every pair it weighed or should have."
from dataclasses import dataclass

import numpy as np

from ..match.arrays import find_pairs
from ..match.candidates import Candidates
from ..match.fuse import fused_scores
from ..match.judge.groups import Groups
from ..match.matches import Matches
from ..match.neighbors import Neighbors, group_codes
from ..match.rule import Rule
from ..match.spaces.pool import Pool


@dataclass
class Pairs:
    "Pairs of different listings, each once: all that were candidates, that match, or that are of one group."
    first: np.ndarray  # int64 (m,), the smaller row
    second: np.ndarray  # int64 (m,), the larger row
    scores: dict  # Modality -> float32 (m,), candidate or not
    fused: np.ndarray  # float32 (m,): the rule's score where `scored`, elsewhere the one before steps
    true: np.ndarray  # bool (m,): both are of one group
    candidate: np.ndarray  # bool (m,): one of the two had the other among its candidates
    scored: np.ndarray  # bool (m,): a candidate that no step took out, so that the threshold decided
    matched: np.ndarray  # bool (m,): one of the two names the other as its match


@dataclass
class Judged:
    "What a rule makes of listings whose groups are known."
    groups: np.ndarray  # int32 (p,), the true groups of all listings searched as numbers from 0
    neighbors: Neighbors  # What the rule compared with its threshold
    matches: Matches  # What it decided, of the first n listings: those that are judged
    pairs: Pairs
    rule: Rule  # That was carried out, with the threshold for so many listings

    @property
    def known(self) -> Groups:
        "The true groups, the first n listings being judged and all others only found."
        return Groups(self.groups, rows=len(self.matches))

    @property
    def linked(self) -> Matches:
        "The matches with a row for each listing searched: those that are only found name themselves alone."
        matches, others = self.matches, np.arange(len(self.matches), len(self.groups))
        indptr = np.concatenate([matches.indptr, matches.indptr[-1] + 1 + np.arange(len(others))])
        return Matches(indptr, np.concatenate([matches.ids, others]),
                       np.concatenate([matches.scores, np.ones(len(others), np.float32)]))


def judge_pairs(
    # Name -> space or `Pool`, all that `rule.reads` names: of a pool, the new listings are judged
    spaces: dict,
    rule: Rule,  # Applied to them
    groups,  # (p,) true groups of all listings searched
) -> Judged:
    "Run `rule`; score each pair that it weighed, matched or should have matched, by modality and fused."
    decision = rule.run(spaces)
    rule = decision.rule
    whole = {name: _whole(spaces[name]) for name in rule.reads}
    refined = rule.refined(whole)
    n_rows, n_listings = len(decision.matches), len(next(iter(whole.values())))
    group_of = group_codes(groups, n_listings)
    _, fused_neighbors = decision.trail[0]
    neighbor_keys = [_neighbor_keys(neighbors, n_listings)
                     for neighbors in (fused_neighbors, decision.neighbors)]
    candidate_keys = np.union1d(*neighbor_keys)
    matched_keys = _matched_keys(decision.matches, n_listings)
    first_mates, second_mates = _pairs_of_groups(group_of)
    # listings that are only found are nobody's query: their mates among each other count for nothing
    is_asked = np.minimum(first_mates, second_mates) < n_rows
    group_keys = _pair_keys(first_mates[is_asked], second_mates[is_asked], n_listings)
    # steps on matches may tie listings together that were no candidates of each other
    pair_keys = np.union1d(np.union1d(candidate_keys, matched_keys), group_keys)
    first_rows, second_rows = np.divmod(pair_keys, n_listings)
    scores = {modality: refined[modality].scores(first_rows, second_rows) for modality in rule.modalities}
    fused, scored = _scores_of_rule(decision.neighbors, first_rows, second_rows, n_listings)
    fused = np.where(scored, fused, _fused_before_steps(rule, refined, first_rows, second_rows, scores))
    same_group = group_of[first_rows] == group_of[second_rows]
    pairs = Pairs(first_rows, second_rows, scores, fused, same_group, np.isin(pair_keys, candidate_keys),
                  scored, np.isin(pair_keys, matched_keys))
    return Judged(group_of, decision.neighbors, decision.matches, pairs, rule)


def _whole(space):
    "All listings searched as one space, those that are judged first."
    return space.whole('a report') if isinstance(space, Pool) else space


def _scores_of_rule(neighbors, first_rows, second_rows, n_listings):
    "For each pair the better of the scores that its listings have for each other, and whether there is one."
    row_numbers, neighbor_ids, neighbor_scores = neighbors.pairs()
    not_itself = row_numbers != neighbor_ids
    directed_pairs = np.stack([row_numbers, neighbor_ids])[:, not_itself]
    positions = find_pairs(first_rows, second_rows, directed_pairs.min(0), directed_pairs.max(0),
                           n_listings)
    best_scores = np.full(len(first_rows), -np.inf, np.float32)
    np.maximum.at(best_scores, positions, neighbor_scores[not_itself])
    return best_scores, best_scores > -np.inf


def _fused_before_steps(rule, spaces, first_rows, second_rows, scores):
    "The fused score of any pairs, candidates or not, by the weights of the rule."
    all_rows = np.arange(len(next(iter(spaces.values()))))
    present = {modality: spaces[modality].scores(all_rows, all_rows) > 0 for modality in rule.modalities}
    loose_pairs = Candidates(second_rows, scores, join=rule.join, pool=len(all_rows), present=present,
                             rows=first_rows)
    return fused_scores(loose_pairs, rule.how, rule.weights, rule.join, **rule.options)


def _pair_keys(row_numbers, other_rows, n_listings):
    "One number for each pair of different rows, the same whichever comes first; sorted, each once."
    pair_keys = np.minimum(row_numbers, other_rows) * n_listings + np.maximum(row_numbers, other_rows)
    return np.unique(pair_keys[row_numbers != other_rows])


def _neighbor_keys(neighbors, n_listings):
    row_numbers, neighbor_ids, _ = neighbors.pairs()
    return _pair_keys(row_numbers, neighbor_ids, n_listings)


def _matched_keys(matches, n_listings):
    row_numbers = np.repeat(np.arange(len(matches)), np.diff(matches.indptr))
    return _pair_keys(row_numbers, matches.ids, n_listings)


def _pairs_of_groups(group_of):
    "All pairs of listings of one group: int64 (2, m)."
    by_group = np.argsort(group_of, kind='stable')
    members = np.split(by_group, np.bincount(group_of).cumsum()[:-1])
    pairs = [group_rows[np.stack(np.triu_indices(len(group_rows), 1))] for group_rows in members]
    return np.concatenate(pairs, axis=1)
