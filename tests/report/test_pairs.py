"Pairs and their scores against a loop over the definition; the report judges what the rule does."
import itertools
from typing import NamedTuple

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Rule, Step, Tfidf, row_f1
from fastmatch.report.pairs import Judged, judge_pairs
from tests.match.cases import noisy, titles
from tests.reference import match as reference

RULES = [('mean', {'image': .7, 'tfidf': .3}), ('prob_or', {'image': 2., 'tfidf': 1.}),
         ('union', {'image': .4, 'tfidf': .3}), ('mean', {'image': 1., 'tfidf': 0.})]


class Case(NamedTuple):
    "Listings with a rule, and how the report judges their pairs."
    spaces: dict
    groups: np.ndarray
    rule: Rule
    fused: np.ndarray  # similarities (n, n)
    judged: Judged


def random_case(seed, how, weights, n_listings=24, k=4, max_matches=3, quantile=.7):
    "A `Case` of random spaces and groups."
    rng = np.random.default_rng(seed)
    spaces = {'image': Dense(noisy(n_listings, 5, seed, copies=3)), 'tfidf': Tfidf(titles(n_listings, seed))}
    groups = rng.choice(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], n_listings)
    rows = np.arange(n_listings)
    similarities = {name: space.scores(rows[:, None], rows[None]) for name, space in spaces.items()}
    fused = reference.fuse(similarities, how, weights)
    rule = Rule(how, weights, float(np.quantile(fused, quantile)), k, max_matches)
    return Case(spaces, groups, rule, fused, judge_pairs(spaces, rule, groups))


def judged_by_hand(spaces, groups, rule):
    "Pair -> (same group, candidate, matched), from each listing's own lists."
    n_listings = len(groups)
    found = rule.apply(spaces)
    neighbors = [space.search(rule.k).ids for space in spaces.values()]
    candidates_of = [{int(other) for nearest in neighbors for other in nearest[row] if other >= 0}
                     for row in range(n_listings)]
    pairs = {}
    for row, other in itertools.combinations(range(n_listings), 2):
        same_group = groups[row] == groups[other]
        candidate = other in candidates_of[row] or row in candidates_of[other]
        matched = other in found[row] or row in found[other]
        if same_group or candidate: pairs[row, other] = same_group, candidate, matched
    return pairs


def as_lists(matches): return [rows.tolist() for rows in matches]


def scores_of(neighbors):
    "Pair -> the better of the scores that its listings have for each other."
    best = {}
    for row, other, score in zip(*neighbors.pairs()):
        pair = min(row, other), max(row, other)
        if row != other: best[pair] = max(score, best.get(pair, -np.inf))
    return best


@pytest.mark.parametrize('how, weights', RULES)
@pytest.mark.parametrize('seed', range(4))
def test_pairs_are_those_of_the_definition(seed, how, weights):
    spaces, groups, rule, fused, judged = random_case(seed, how, weights)
    pairs = judged.pairs
    expected = judged_by_hand(spaces, groups, rule)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist())) == sorted(expected)
    judgements = list(zip(pairs.true, pairs.candidate, pairs.matched))
    assert judgements == [expected[pair] for pair in sorted(expected)]
    np.testing.assert_allclose(pairs.fused, fused[pairs.first, pairs.second], atol=2e-6)
    for name, space in spaces.items():
        np.testing.assert_array_equal(pairs.scores[name], space.scores(pairs.first, pairs.second))
    # the same bits as the rule compared: a pair above the threshold in one is above it in the other
    found = scores_of(judged.neighbors)
    assert all(found[first, second] == score for first, second, score, is_candidate
               in zip(pairs.first, pairs.second, pairs.fused, pairs.candidate) if is_candidate)
    assert (pairs.scored == pairs.candidate).all()
    assert as_lists(judged.matches) == as_lists(rule.apply(spaces))


def test_the_rule_names_a_modality_that_is_missing():
    with pytest.raises(InputError, match='title'):
        judge_pairs({'image': Dense(np.eye(3))}, Rule('mean', {'title': 1.}, .5), list('aab'))


def test_other_modalities_bring_no_candidates():
    "A rule on images alone looks at the images' neighbors alone, whatever other spaces there are."
    case = random_case(0, *RULES[0])
    rule = Rule('mean', {'image': 1.}, .5, 4)
    few = judge_pairs({'image': case.spaces['image']}, rule, case.groups)
    many = judge_pairs(case.spaces, rule, case.groups)
    assert few.pairs.first.tolist() == many.pairs.first.tolist() and list(many.pairs.scores) == ['image']


def test_equal_keys_match_as_in_the_rule():
    "Twelve listings that nothing but equal keys ties together: all pairs, none of them by their pictures."
    groups = np.repeat(np.arange(6), 2)
    spaces = {'image': Dense(np.eye(12)), 'phash': Keys([f'hash {group}' for group in groups])}
    rule = Rule('mean', {'image': 1.}, .9, 12, join=('phash',))
    judged = judge_pairs(spaces, rule, groups)
    assert len(judged.matches.ids) - 12 == 12 and row_f1(judged.matches, groups).mean() == 1
    pairs = judged.pairs
    assert (pairs.matched == pairs.true).all() and pairs.true.sum() == 6
    assert (pairs.scores['phash'] == pairs.true).all() and (pairs.fused[pairs.true] == 1).all()


STEPS = [('expand',), ('standardize',), ('mutual',), ('k_reciprocal', 'min2'),
         (Step('blend', by='fused'), 'components')]


@pytest.mark.parametrize('join', [(), ('phash',)])
@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('how, weights', RULES[:2])
def test_steps_and_keys_are_the_rules_own(how, weights, steps, join):
    case = random_case(1, how, weights, n_listings=30, k=6)
    spaces, groups = case.spaces, case.groups
    spaces['phash'] = Keys([str(row % 12) if row < 24 else None for row in range(30)])
    for threshold, max_matches in ((.2, 50), (.6, 3)):
        rule = Rule(how, weights, threshold, 6, max_matches, join=join, steps=steps)
        decision = rule.run(spaces)
        judged = judge_pairs(spaces, rule, groups)
        assert as_lists(judged.matches) == as_lists(decision.matches)
        pairs = judged.pairs
        found = scores_of(decision.neighbors)
        scored_pairs = {(first, second): score for first, second, score, scored
                        in zip(pairs.first, pairs.second, pairs.fused, pairs.scored) if scored}
        assert scored_pairs == found and np.isfinite(pairs.fused).all()
        decided = {(min(row, other), max(row, other)) for row, matches in enumerate(decision.matches)
                   for other in matches if row != other}
        matched = {(first, second) for first, second, is_matched
                   in zip(pairs.first, pairs.second, pairs.matched) if is_matched}
        assert matched == decided and list(pairs.scores) == rule.modalities
