"Pairs and their scores against a loop over the definition; the report judges what the rule does."
import itertools

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Rule, Step, Tfidf, row_f1
from fastmatch.report.pairs import judge_pairs
from tests.match.cases import noisy, titles
from tests.reference import match as reference

RULES = [('mean', {'image': .7, 'tfidf': .3}), ('prob_or', {'image': 2., 'tfidf': 1.}),
         ('union', {'image': .4, 'tfidf': .3}), ('mean', {'image': 1., 'tfidf': 0.})]


def case(seed, how, weights, n=24, k=4, max_matches=3, quantile=.7):
    "Random spaces and groups: (spaces, groups, rule, fused similarities (n,n), judged)."
    rng = np.random.default_rng(seed)
    spaces = {'image': Dense(noisy(n, 5, seed, copies=3)), 'tfidf': Tfidf(titles(n, seed))}
    groups = rng.choice(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], n)
    rows = np.arange(n)
    similarities = {name: space.scores(rows[:, None], rows[None]) for name, space in spaces.items()}
    fused = reference.fuse(similarities, how, weights)
    rule = Rule(how, weights, float(np.quantile(fused, quantile)), k, max_matches)
    return spaces, groups, rule, fused, judge_pairs(spaces, rule, groups)


def truth(spaces, groups, rule):
    "Pair -> (same group, candidate, matched), from each listing's own lists."
    n = len(groups)
    found = rule.apply(spaces)
    near = [{int(j) for space in spaces.values() for j in space.search(rule.k).ids[i] if j >= 0}
            for i in range(n)]
    pairs = {}
    for i, j in itertools.combinations(range(n), 2):
        same = groups[i] == groups[j]
        candidate = j in near[i] or i in near[j]
        if same or candidate: pairs[i, j] = same, candidate, j in found[i] or i in found[j]
    return pairs


def scores_of(neighbors):
    "Pair -> the better of the scores that its listings have for each other."
    best = {}
    for i, j, score in zip(*neighbors.pairs()):
        if i != j: best[min(i, j), max(i, j)] = max(score, best.get((min(i, j), max(i, j)), -np.inf))
    return best


@pytest.mark.parametrize('how, weights', RULES)
@pytest.mark.parametrize('seed', range(4))
def test_pairs_are_those_of_the_definition(seed, how, weights):
    spaces, groups, rule, fused, judged = case(seed, how, weights)
    pairs = judged.pairs
    want = truth(spaces, groups, rule)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist())) == sorted(want)
    assert list(zip(pairs.true, pairs.candidate, pairs.matched)) == [want[pair] for pair in sorted(want)]
    np.testing.assert_allclose(pairs.fused, fused[pairs.first, pairs.second], atol=2e-6)
    for name, space in spaces.items():
        np.testing.assert_array_equal(pairs.scores[name], space.scores(pairs.first, pairs.second))
    # the same bits as the rule compared: a pair above the threshold in one is above it in the other
    found = scores_of(judged.neighbors)
    assert all(found[i, j] == score for i, j, score, near
               in zip(pairs.first, pairs.second, pairs.fused, pairs.candidate) if near)
    assert (pairs.scored == pairs.candidate).all()
    assert [ids.tolist() for ids in judged.matches] == [ids.tolist() for ids in rule.apply(spaces)]


def test_the_rule_names_a_modality_that_is_missing():
    with pytest.raises(InputError, match='title'):
        judge_pairs({'image': Dense(np.eye(3))}, Rule('mean', {'title': 1.}, .5), list('aab'))


def test_other_modalities_bring_no_candidates():
    "A rule on images alone looks at the images' neighbors alone, whatever other spaces there are."
    spaces, groups, *_ = case(0, *RULES[0])
    rule = Rule('mean', {'image': 1.}, .5, 4)
    few = judge_pairs({'image': spaces['image']}, rule, groups)
    many = judge_pairs(spaces, rule, groups)
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
    spaces, groups, *_ = case(1, how, weights, n=30, k=6)
    spaces['phash'] = Keys([str(i % 12) if i < 24 else None for i in range(30)])
    for threshold, max_matches in ((.2, 50), (.6, 3)):
        rule = Rule(how, weights, threshold, 6, max_matches, join=join, steps=steps)
        decision = rule.run(spaces)
        judged = judge_pairs(spaces, rule, groups)
        assert [ids.tolist() for ids in judged.matches] == [ids.tolist() for ids in decision.matches]
        pairs = judged.pairs
        found = scores_of(decision.neighbors)
        by_pair = {(i, j): score for i, j, score, scored
                   in zip(pairs.first, pairs.second, pairs.fused, pairs.scored) if scored}
        assert by_pair == found and np.isfinite(pairs.fused).all()
        matched = {(min(i, j), max(i, j)) for i, ids in enumerate(decision.matches) for j in ids if i != j}
        at = {pair for pair, is_matched in zip(zip(pairs.first, pairs.second), pairs.matched) if is_matched}
        assert at == matched and list(pairs.scores) == rule.modalities
