"Rules with steps: the same as their functions called by hand, in a pool as in one self-join, kept as json."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    STEPS,
    Dense,
    Embeddings,
    Keys,
    Neighbors,
    Pool,
    Rule,
    Step,
    Tfidf,
    Units,
    agglomerate,
    at_most,
    augment,
    blend,
    candidates,
    chisel,
    cross_mean,
    decide,
    expand,
    fuse,
    group,
    k_reciprocal,
    min2,
    mutual,
    neighbor_mean,
    same_group,
    standardize,
    tiers,
    veto,
)
from fastmatch.match.spaces.keys import title_keys
from tests.match.cases import noisy, titles

W = {'image': .6, 'tfidf': .4}
T = [f'{o} {"500ml" if i % 3 else "250 ml"}' if i % 5 == 0 else o for i, o in enumerate(titles(40, 1))]
X = noisy(40, 6, 0, 20)
HASH = [None if i % 4 else f'p{i % 12}' for i in range(40)]
SPACES = {'image': Dense(X, 'image'), 'tfidf': Tfidf(T), 'phash': Keys(HASH), 'units': Units(T), 'same_title': Keys(title_keys(T))}


# nothing may change in place
for o in (SPACES['image'].vectors, SPACES['tfidf'].vectors.data): o.setflags(write=False)


def pools(m):
    words = SPACES['tfidf']
    mask = np.arange(40) < m
    return {'image': Pool(Dense(X[:m], 'image'), Dense(X[m:], 'image')), 'tfidf': Pool(words.take(mask), words.take(~mask)),
            **{k: Pool(SPACES[k].take(mask), SPACES[k].take(~mask)) for k in ('phash', 'units', 'same_title')}}


def fused(spaces): return fuse(candidates({k: spaces[k] for k in W}, 8), 'mean', W)
def both(f): return {k: f(SPACES[k]) for k in W}
def cut(nb, t=.45): return decide(nb, t)


def nearest(neighbors, k=2): return neighbors.top(k)
def shifted(space): return augment(space, k=2)
def alone(matches, neighbors): return at_most(matches, 1)


PLAIN = fused(SPACES)
for o in PLAIN: o.setflags(write=False)
BY_HAND = {
    'expand': (dict(k=4, alpha=2.), lambda: cut(fused(both(lambda o: expand(o, k=4, alpha=2.))))),
    'augment': (dict(k=2, on='image'), lambda: cut(fused({**SPACES, 'image': augment(SPACES['image'], k=2)}))),
    'blend': (dict(threshold=.5, by='fused'), lambda: cut(fused(both(lambda o: blend(o, PLAIN, threshold=.5))))),
    'cross_mean': (dict(on=['tfidf']), lambda: cut(fused({**SPACES, 'tfidf': cross_mean(SPACES['tfidf'], SPACES['phash'])}))),
    'neighbor_mean': (dict(k=2), lambda: cut(neighbor_mean(PLAIN, 2))),
    'k_reciprocal': (dict(k1=3, lam=.5), lambda: cut(k_reciprocal(PLAIN, 3, lam=.5))),
    'standardize': (dict(k=5), lambda: cut(standardize(PLAIN, 5))),
    'mutual': (dict(k=3), lambda: cut(mutual(PLAIN, 3))),
    'veto': ({}, lambda: cut(veto(PLAIN, SPACES['units']))),
    'min2': (dict(threshold=.2), lambda: min2(cut(PLAIN), PLAIN, .2)),
    'chisel': (dict(shares=[.7, .2]), lambda: chisel(cut(PLAIN), PLAIN, [.7, .2])),
    'components': ({}, lambda: same_group(group(cut(PLAIN)), PLAIN)),
    'agglomerate': (dict(mean_size=2.), lambda: same_group(agglomerate(PLAIN, 2.), PLAIN)),
    'tiers': (dict(pair=.4), lambda: same_group(tiers(PLAIN, pair=.4), PLAIN))}


def test_all_steps_are_here(): assert set(BY_HAND) == set(STEPS)


def same(a, b):
    for x, y in ((a.indptr, b.indptr), (a.ids, b.ids), (a.scores, b.scores)): np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('name', STEPS)
def test_a_step_is_its_function(name):
    args, want = BY_HAND[name]
    rule = Rule('mean', W, .45, 8, steps=[Step(name, **args)])
    again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule and again.steps[0] is not rule.steps[0] and repr(again) == repr(rule)
    for o in (rule, again): same(o.apply(SPACES), want())
    assert rule != Rule('mean', W, .45, 8) != Rule('mean', W, .45, 8, steps=['mutual'])
    res = rule.run(SPACES)
    assert [o for o, _ in res.trail] == {'vectors': ['fuse', 'score'], 'neighbors': ['fuse', name, 'score'], 'matches': ['fuse', 'score', name]}[STEPS[name][0]]
    same(res.trail[-1][1], res.matches)


@pytest.mark.parametrize('name', [*STEPS, 'all'])
@pytest.mark.parametrize('m', [1, 15])
def test_a_pool_is_one_self_join(name, m):
    steps = [Step('blend', threshold=.6, by='fused'), Step('augment', k=2), Step('veto'), Step('k_reciprocal', k1=3), Step('min2')]
    rule = Rule('mean', W, .45, 8, steps=steps if name == 'all' else [Step(name, **BY_HAND[name][0])], join=('same_title',))
    whole, part = rule.run(SPACES), rule.run(pools(m))
    same(part.matches, whole.matches.head(m))
    assert len(part.matches) == m == len(part.neighbors.ids) and all(len(getattr(o, 'ids', o)) == m or len(o) == m for _, o in part.trail)


def test_steps_in_order():
    steps = [Step('blend', threshold=.6, by='fused'), Step('blend', threshold=.5, by='fused'), Step('expand', k=3, on='image'),
             'mutual', 'veto', Step('min2', threshold=.1)]
    rule = Rule('mean', W, .4, 8, steps=steps)
    one = both(lambda o: blend(o, PLAIN, threshold=.6))
    nb = fused(one)
    two = {k: blend(one[k], nb, threshold=.5) for k in W}
    nb = veto(mutual(fused({**two, 'image': expand(two['image'], k=3)})), SPACES['units'])
    same(rule.apply(SPACES), min2(decide(nb, .4), nb, .1))
    assert rule.reads == ['image', 'tfidf', 'units'] and rule.modalities == ['image', 'tfidf']
    for a, b in zip(rule.neighbors(SPACES), nb): np.testing.assert_array_equal(a, b)


def test_functions_of_your_own():
    rule = Rule('mean', W, .45, 8, steps=[Step(shifted, 'vectors', on='image'), Step(nearest, k=3), Step(alone, 'matches')])
    assert rule.apply(SPACES).ids.tolist() == list(range(40))
    rule = Rule('mean', W, .45, 8, steps=[Step(shifted, 'vectors', on='image'), nearest])
    same(rule.apply(SPACES), cut(fused({**SPACES, 'image': augment(SPACES['image'], k=2)}).top(2)))
    d = json.loads(json.dumps(rule.to_dict()))
    name = f'{__name__}:nearest'
    assert d['steps'][1]['do'] == name
    mine = {f'{__name__}:shifted': shifted, name: nearest}
    again = Rule.from_dict(d, mine)
    assert again == rule and again.to_dict() == rule.to_dict()
    same(again.apply(SPACES), rule.apply(SPACES))
    # nothing is imported by name
    with pytest.raises(InputError, match=f'functions={{{f"{__name__}:shifted"!r}'): Rule.from_dict(d)
    with pytest.raises(InputError, match='nearest'): Rule.from_dict(d, {f'{__name__}:shifted': shifted})
    inside = Rule('mean', W, .5, 8, steps=[lambda nb: nb.top(1)])
    assert len(inside.apply(SPACES).ids) == 40
    with pytest.raises(InputError, match='can not be saved'): inside.to_dict()


@pytest.mark.parametrize('bad, says', [(lambda nb: 5, 'gave int, not Neighbors'), (lambda nb: Neighbors(nb.ids[:3], nb.scores[:3]), 'gave 3 rows for 40'),
                                       (lambda nb: Neighbors(nb.ids[:, ::-1], nb.scores), 'lambda'), (lambda nb: Neighbors(nb.ids + 1, nb.scores), 'lambda')])
def test_what_a_function_gives_is_checked(bad, says):
    with pytest.raises(InputError, match=says): Rule('mean', W, .5, steps=[bad]).apply(SPACES)


def test_an_equal_key_matches_whatever_the_scale():
    for steps in (['standardize'], [Step('k_reciprocal', k1=3)], ['neighbor_mean']):
        rule = Rule('mean', W, .3, 40, steps=steps, join=('phash',))
        nb = rule.neighbors(SPACES).check(self_join=True)
        keys = {(i, j) for i in range(40) for j in range(40) if i != j and HASH[i] is not None and HASH[i] == HASH[j]}
        assert keys and all(s == max(1, nb.scores[:, 1:].max()) for i, j, s in zip(*nb.pairs()) if (i, j) in keys)
        assert keys <= {(i, j) for i, o in enumerate(rule.apply(SPACES)) for j in o}
    # though the cut, chosen on other listings, is above all the others here
    alone = Rule('mean', W, 50., 40, steps=['standardize'], join=('phash',)).apply(SPACES)
    assert {(i, j) for i, o in enumerate(alone) for j in o if i != j} == keys
    # but a veto comes first
    spaces = {**SPACES, 'units': Units([f'{i} ml' if i else '99 l' for i in range(1, 41)])}
    assert len(Rule('mean', W, .3, 8, steps=['veto'], join=('phash',)).apply(spaces).ids) == 40


@pytest.mark.parametrize('step', ['min2', 'components', Step('chisel', shares=[1., 1., .5]), Step('tiers', pair=.1)])
@pytest.mark.parametrize('most', [1, 2, 3])
def test_no_step_gives_more_than_a_rule_may(step, most):
    free, few = (Rule('mean', W, .3, 8, n, steps=[step]).apply(SPACES) for n in (50, most))
    assert np.diff(few.indptr).max() == min(most, np.diff(free.indptr).max()) and few.indptr[-1] > 0
    if step == 'min2' and most > 1: same(few, at_most(free, most))


def test_options_of_a_fusion():
    for rule in (Rule('power', {'image': .8, 'tfidf': .5}, 1., 8, options={'power': 2.}),
                 Rule('piecewise', {'image': 1., 'tfidf': 1.}, 0., 8, options={'planes': [({'image': 1.}, .8), ({'image': .5, 'tfidf': .5}, .5)]})):
        again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
        assert again == rule
        same(again.apply(SPACES), decide(fuse(candidates({k: SPACES[k] for k in W}, 8), rule.how, rule.weights, **rule.options), rule.threshold))
    assert 'steps' not in Rule('mean', W, .5).to_dict() and 'options' not in Rule('mean', W, .5).to_dict()


def test_new_listings_apart_from_each_other():
    parts = {k: Pool(o.new, o.catalogue, within=False) for k, o in pools(6).items()}
    m = Rule('mean', W, .3, 8, steps=['veto', 'min2']).apply(parts)
    assert all((o[1:] >= 6).all() for o in m) and len(m) == 6
    for step in ('mutual', Step('blend'), Step('min2', mutual=True)):
        with pytest.raises(InputError, match='within=False: step'): Rule('mean', W, .3, 8, steps=[step]).apply(parts)


@pytest.mark.parametrize('steps', [[Step('augment', by='fused'), Step('k_reciprocal', k1=3), 'veto', Step('min2', threshold=.3)],
                                   [Step('blend', threshold=.5, by='fused'), 'standardize', Step('tiers', merge=2., join=1.5, pair=1.)],
                                   [Step('expand'), Step('neighbor_mean', weight=.5), 'mutual', 'components']])
def test_row_order_does_not_matter(steps):
    rng = np.random.default_rng(0)
    x, y, t, perm = rng.normal(size=(40, 5)), rng.normal(size=(40, 4)), [f'{i % 3} kg' for i in range(40)], rng.permutation(40)
    rule = Rule('mean', {'a': .6, 'b': .4}, .5, 9, steps=steps)
    def found(order):
        m = rule.apply({'a': Dense(x[order]), 'b': Dense(y[order]), 'units': Units([t[i] for i in order])})
        return {order[i]: set(order[o]) for i, o in enumerate(m)}
    a, b = found(np.arange(40)), found(perm)
    assert a == b and sum(len(o) > 1 for o in a.values()) > 5


def test_spaces_for_steps():
    emb = Embeddings({'image': X}, np.arange(40), T, phash=HASH)
    rule = Rule('mean', W, .4, 8, steps=[Step('cross_mean', on='image', keys='same_title'), 'veto'], join=('phash',))
    assert rule.reads == ['image', 'tfidf', 'phash', 'same_title', 'units']
    same(rule.apply(emb.spaces(only=tuple(rule.reads))), rule.apply(SPACES))
    assert not {'units', 'same_title'} & set(emb.spaces())
    with pytest.raises(InputError, match="needs the modalities .'same_title', 'units'."): rule.apply(emb.spaces())
    with pytest.raises(InputError, match="'units' needs titles"): Embeddings({'image': X}, np.arange(40)).spaces(only=('image', 'units'))
    assert title_keys(['Red  Bag', 'red bag ', ' ', 'bag']) == ['red bag', 'red bag', None, 'bag']


@pytest.mark.parametrize('make, says', [
    (lambda: Step('expnd'), "step 'expnd': choose one of expand"), (lambda: Step('blend', treshold=.5), "'blend'.*treshold"), (lambda: Step('chisel'), "'chisel'.*shares"),
    (lambda: Step('blend', stage='matches'), "its stage is 'vectors'"), (lambda: Step(nearest, stage='scores'), "stage='scores'"),
    (lambda: Step('blend', by='all'), "by='all'"), (lambda: Step('mutual', by='fused'), "for 'vectors'"), (lambda: Step('min2', on='image'), "for 'vectors'"),
    (lambda: Step('blend', threshold=np.nan), 'finite'), (lambda: Step('chisel', shares={1, 2}), 'set is no plain value'), (lambda: Step(5), 'not a function'),
    (lambda: Step(shifted, 'vectors', by='fused'), 'neighbors'), (lambda: Rule('mean', W, .5, steps=['min2', 'mutual']), "'mutual' works on neighbors, 'min2' before it on matches"),
    (lambda: Rule('mean', W, .5, steps=[Step('blend', on='sound')]), 'sound'), (lambda: Rule('mean', W, .5, options={'powr': 2}), 'options'),
    (lambda: Rule('mean', W, .5, options={'power': 0}), 'power=0'), (lambda: Rule('piecewise', W, .5), 'planes'),
    (lambda: Rule.from_dict({'how': 'mean', 'weights': W, 'threshold': 0, 'steps': [{'do': 'mutual'}]}), 'is no step')])
def test_refuses(make, says):
    with pytest.raises(InputError, match=says): make()


def test_numbers_of_numpy_are_plain():
    step = Step('chisel', shares=np.array([.5, .25]))
    assert step.params == {'shares': [.5, .25]} and Step('min2', threshold=np.float32(.5)).params == {'threshold': .5}
    assert json.loads(json.dumps(step.to_dict())) == step.to_dict()
