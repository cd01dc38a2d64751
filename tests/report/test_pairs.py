"Pairs, worst mistakes and groups against loops over the definitions."
import itertools

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Rule, Tfidf
from fastmatch.report.pairs import Found, found_groups, judge_pairs, varied, worst_false, worst_missed
from tests.match.cases import noisy, titles
from tests.reference import match as ref

RULES = [('mean', {'image': .7, 'tfidf': .3}), ('prob_or', {'image': 2., 'tfidf': 1.}), ('union', {'image': .4, 'tfidf': .3}),
         ('mean', {'image': 1., 'tfidf': 0.})]


def case(seed, how, weights, n=24, k=4, max_matches=3, quantile=.7):
    rng = np.random.default_rng(seed)
    spaces = {'image': Dense(noisy(n, 5, seed, copies=3)), 'tfidf': Tfidf(titles(n, seed))}
    labels = rng.choice(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], n)
    sims = {name: o.scores(np.arange(n)[:, None], np.arange(n)[None]) for name, o in spaces.items()}
    fused = ref.fuse(sims, how, weights)
    rule = Rule(how, weights, float(np.quantile(fused, quantile)), k, max_matches)
    return spaces, labels, rule, fused, judge_pairs(spaces, rule, labels)


def truth(spaces, labels, rule):
    "Pair -> (same product, candidate, matched), from each listing's own lists."
    n, found = len(labels), rule.apply(spaces)
    near = [{int(j) for o in spaces.values() for j in o.search(rule.k).ids[i] if j >= 0} for i in range(n)]
    res = {}
    for i, j in itertools.combinations(range(n), 2):
        same, candidate = labels[i] == labels[j], j in near[i] or i in near[j]
        if same or candidate: res[i, j] = same, candidate, j in found[i] or i in found[j]
    return res


@pytest.mark.parametrize('how, weights', RULES)
@pytest.mark.parametrize('seed', range(4))
def test_pairs_are_those_of_the_definition(seed, how, weights):
    spaces, labels, rule, fused, judged = case(seed, how, weights)
    p, want = judged.pairs, truth(spaces, labels, rule)
    assert list(zip(p.i.tolist(), p.j.tolist())) == sorted(want)
    assert list(zip(p.true, p.candidate, p.matched)) == [want[o] for o in sorted(want)]
    np.testing.assert_allclose(p.fused, fused[p.i, p.j], atol=2e-6)
    for name, o in spaces.items(): np.testing.assert_array_equal(p.scores[name], o.scores(p.i, p.j))
    # the same bits as in the neighbours that were cut: a pair above the cut in one is above it in the other
    rows, ids, scores = judged.neighbors.pairs()
    found = {(min(a, b), max(a, b)): s for a, b, s in zip(rows, ids, scores) if a != b}
    assert all(found[i, j] == s for i, j, s, near in zip(p.i, p.j, p.fused, p.candidate) if near)
    assert [o.tolist() for o in judged.matches] == [o.tolist() for o in rule.apply(spaces)]


@pytest.mark.parametrize('seed', range(6))
def test_worst_mistakes_are_the_worst(seed):
    _, labels, _, _, judged = case(seed, *RULES[0], n=40)
    p = judged.pairs
    rows = [(float(s), int(i), int(j), bool(t), bool(m)) for s, i, j, t, m in zip(p.fused, p.i, p.j, p.true, p.matched)]
    for worst, wrong, key, sign in (
            (worst_false, lambda o: o[4] and not o[3], lambda o: frozenset((labels[o[1]], labels[o[2]])), -1),
            (worst_missed, lambda o: o[3] and not o[4], lambda o: labels[o[1]], 1)):
        best = {}
        for o in filter(wrong, rows):
            if key(o) not in best or sign * o[0] < sign * best[key(o)][0]: best[key(o)] = o
        want = sorted(best.values(), key=lambda o: (sign * o[0], o[1], o[2]))
        assert len(want) > 2
        assert [(p.i[o], p.j[o]) for o in worst(judged, 1000)] == [o[1:3] for o in want]
        assert [(p.i[o], p.j[o]) for o in worst(judged, 2)] == [o[1:3] for o in want[:2]]


def test_no_mistakes():
    judged = judge_pairs({'image': Dense(np.eye(3)[[0, 0, 1, 1, 2]])}, Rule('mean', {'image': 1.}, .5), list('aabbc'))
    assert len(worst_false(judged)) == len(worst_missed(judged)) == 0 and [o.kind for o in found_groups(judged)] == ['right', 'right']


def test_the_rule_names_a_modality_that_is_missing():
    with pytest.raises(InputError, match='title'): judge_pairs({'image': Dense(np.eye(3))}, Rule('mean', {'title': 1.}, .5), list('aab'))


def test_other_modalities_bring_no_candidates():
    "A rule on images alone looks at the images' neighbours alone, whatever other spaces there are."
    spaces, labels, *_ = case(0, *RULES[0])
    rule = Rule('mean', {'image': 1.}, .5, 4)
    few, many = judge_pairs({'image': spaces['image']}, rule, labels), judge_pairs(spaces, rule, labels)
    assert few.pairs.i.tolist() == many.pairs.i.tolist() and list(many.pairs.scores) == ['image']


@pytest.mark.parametrize('seed', range(6))
def test_groups_beside_their_product(seed):
    _, labels, _, _, judged = case(seed, *RULES[0], quantile=.93)
    member = ref.group([o.tolist() for o in judged.matches])
    found = found_groups(judged)
    sets = [set(np.flatnonzero(member == g).tolist()) for g in range(member.max() + 1)]
    assert [{*o.right.tolist(), *o.wrong.tolist()} for o in found] == [o for o in sets if len(o) > 1]
    for o in found:
        product, = {labels[i] for i in o.right}
        assert product not in {labels[i] for i in o.wrong}
        here = [labels[i] for i in (*o.right, *o.wrong)]
        assert here.count(product) == max(map(here.count, here))
        assert o.missed.tolist() == [i for i in range(len(labels)) if labels[i] == product and i not in o.right]
        assert o.kind == ('mixed' if len(set(here)) > 1 else 'incomplete' if len(o.missed) else 'right')


def test_varied_shows_each_kind_from_large_to_small():
    def preview(right, wrong, missed): return Found(*(np.arange(o) for o in (right, wrong, missed)))
    found = [*(preview(i, 0, 0) for i in range(2, 20)), preview(3, 0, 1), preview(2, 1, 0), preview(5, 4, 0)]
    shown = varied(found, 3)
    assert [o.kind for o in shown] == ['right'] * 3 + ['incomplete'] + ['mixed'] * 2
    assert [len(o) for o in shown[:3]] == [19, 11, 2] and [len(o) for o in shown[4:]] == [9, 3]
