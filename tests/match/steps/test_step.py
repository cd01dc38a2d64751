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
    PairModel,
    Pool,
    Rule,
    Step,
    Tfidf,
    Titles,
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
    pair_model,
    same_group,
    standardize,
    tiers,
    veto,
)
from fastmatch.match.pairs.rule_pairs import RulePairs
from fastmatch.match.spaces.keys import title_keys
from tests.match.cases import noisy, titles

W = {'image': .6, 'tfidf': .4}
T = [
    f'{item} {"500ml" if i % 3 else "250 ml"}' if i % 5 == 0 else item for i, item in enumerate(titles(40, 1))
]
X = noisy(40, 6, 0, 20)
HASH = [None if i % 4 else f'p{i % 12}' for i in range(40)]
SPACES = {
    'image': Dense(X, 'image'),
    'tfidf': Tfidf(T),
    'phash': Keys(HASH),
    'units': Units(T),
    'same_title': Keys(title_keys(T)),
    'titles': Titles(T),
}


# nothing may change in place
for o in (SPACES['image'].vectors, SPACES['tfidf'].vectors.data): o.setflags(write=False)


def pools(m):
    words = SPACES['tfidf']
    mask = np.arange(40) < m
    return {
        'image': Pool(Dense(X[:m], 'image'), Dense(X[m:], 'image')),
        'tfidf': Pool(words.take(mask), words.take(~mask)),
        **{
            k: Pool(SPACES[k].take(mask), SPACES[k].take(~mask))
            for k in ('phash', 'units', 'same_title', 'titles')
        },
    }


def fused(spaces): return fuse(candidates({k: spaces[k] for k in W}, 8), 'mean', W)
def both(f): return {k: f(SPACES[k]) for k in W}
def cut(nb, t=.45): return decide(nb, t)


def nearest(neighbors, k=2): return neighbors.top(k)
def shifted(space): return augment(space, k=2)
def alone(matches, neighbors): return at_most(matches, 1)


PLAIN = fused(SPACES)
for o in PLAIN: o.setflags(write=False)
PAIRS = RulePairs(PLAIN, {**both(lambda space: space), 'titles': SPACES['titles']})
# a group for every title: most pairs of one group are near
MODEL = PairModel.from_dict(PAIRS.fit(T).to_dict())
BY_HAND = {
    'expand': (dict(k=4, alpha=2.0), lambda: cut(fused(both(lambda value: expand(value, k=4, alpha=2.0))))),
    'augment': (
        dict(k=2, on='image'),
        lambda: cut(fused({**SPACES, 'image': augment(SPACES['image'], k=2)})),
    ),
    'blend': (
        dict(threshold=0.5, by='fused'),
        lambda: cut(fused(both(lambda value: blend(value, PLAIN, threshold=0.5)))),
    ),
    'cross_mean': (
        dict(on=['tfidf']),
        lambda: cut(fused({**SPACES, 'tfidf': cross_mean(SPACES['tfidf'], SPACES['phash'])})),
    ),
    'neighbor_mean': (dict(k=2), lambda: cut(neighbor_mean(PLAIN, 2))),
    'k_reciprocal': (dict(k1=3, lam=0.5), lambda: cut(k_reciprocal(PLAIN, 3, lam=0.5))),
    'standardize': (dict(k=5), lambda: cut(standardize(PLAIN, 5))),
    'pair_model': (dict(model=MODEL), lambda: cut(pair_model(PLAIN, MODEL, PAIRS))),
    'mutual': (dict(k=3), lambda: cut(mutual(PLAIN, 3))),
    'veto': ({}, lambda: cut(veto(PLAIN, SPACES['units']))),
    'min2': (dict(threshold=0.2), lambda: min2(cut(PLAIN), PLAIN, 0.2)),
    'chisel': (dict(shares=[0.7, 0.2]), lambda: chisel(cut(PLAIN), PLAIN, [0.7, 0.2])),
    'components': ({}, lambda: same_group(group(cut(PLAIN)), PLAIN)),
    'agglomerate': (dict(mean_size=2.0), lambda: same_group(agglomerate(PLAIN, 2.0), PLAIN)),
    'tiers': (dict(pair=0.4), lambda: same_group(tiers(PLAIN, pair=0.4), PLAIN)),
}


def test_all_steps_are_here(): assert set(BY_HAND) == set(STEPS)


def same(a, b):
    for x, y in ((a.indptr, b.indptr), (a.ids, b.ids), (a.scores, b.scores)):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('name', STEPS)
def test_a_step_is_its_function(name):
    args, want = BY_HAND[name]
    rule = Rule('mean', W, .45, 8, steps=[Step(name, **args)])
    again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule and again.steps[0] is not rule.steps[0] and repr(again) == repr(rule)
    for item in (rule, again): same(item.apply(SPACES), want())
    assert rule != Rule('mean', W, .45, 8) != Rule('mean', W, .45, 8, steps=['mutual'])
    result = rule.run(SPACES)
    assert [item for item, _ in result.trail] == {
        'vectors': ['fuse', 'score'],
        'neighbors': ['fuse', name, 'score'],
        'matches': ['fuse', 'score', name],
    }[STEPS[name][0]]
    same(result.trail[-1][1], result.matches)


@pytest.mark.parametrize('name', [*STEPS, 'all'])
@pytest.mark.parametrize('m', [1, 15])
def test_a_pool_is_one_self_join(name, m):
    steps = [
        Step('blend', threshold=0.6, by='fused'),
        Step('augment', k=2),
        Step('veto'),
        Step('k_reciprocal', k1=3),
        Step('min2'),
    ]
    rule = Rule(
        'mean',
        W,
        0.45,
        8,
        steps=steps if name == 'all' else [Step(name, **BY_HAND[name][0])],
        join=('same_title',),
    )
    whole, part = rule.run(SPACES), rule.run(pools(m))
    same(part.matches, whole.matches.head(m))
    assert len(part.matches) == m == len(part.neighbors.ids) and all(
        len(getattr(item, 'ids', item)) == m or len(item) == m for _, item in part.trail
    )


def test_steps_in_order():
    steps = [
        Step('blend', threshold=0.6, by='fused'),
        Step('blend', threshold=0.5, by='fused'),
        Step('expand', k=3, on='image'),
        'mutual',
        'veto',
        Step('min2', threshold=0.1),
    ]
    rule = Rule('mean', W, .4, 8, steps=steps)
    one = both(lambda value: blend(value, PLAIN, threshold=.6))
    neighbors = fused(one)
    two = {k: blend(one[k], neighbors, threshold=.5) for k in W}
    neighbors = veto(mutual(fused({**two, 'image': expand(two['image'], k=3)})), SPACES['units'])
    same(rule.apply(SPACES), min2(decide(neighbors, .4), neighbors, .1))
    assert rule.reads == ['image', 'tfidf', 'units'] and rule.modalities == ['image', 'tfidf']
    for a, b in zip(rule.neighbors(SPACES), neighbors): np.testing.assert_array_equal(a, b)


def test_functions_of_your_own():
    rule = Rule(
        'mean',
        W,
        0.45,
        8,
        steps=[Step(shifted, 'vectors', on='image'), Step(nearest, k=3), Step(alone, 'matches')],
    )
    assert rule.apply(SPACES).ids.tolist() == list(range(40))
    rule = Rule('mean', W, .45, 8, steps=[Step(shifted, 'vectors', on='image'), nearest])
    same(rule.apply(SPACES), cut(fused({**SPACES, 'image': augment(SPACES['image'], k=2)}).top(2)))
    values = json.loads(json.dumps(rule.to_dict()))
    name = f'{__name__}:nearest'
    assert values['steps'][1]['do'] == name
    mine = {f'{__name__}:shifted': shifted, name: nearest}
    again = Rule.from_dict(values, mine)
    assert again == rule and again.to_dict() == rule.to_dict()
    same(again.apply(SPACES), rule.apply(SPACES))
    # nothing is imported by name
    with pytest.raises(InputError, match=f'functions={{{f"{__name__}:shifted"!r}'): Rule.from_dict(values)
    with pytest.raises(InputError, match='nearest'): Rule.from_dict(values, {f'{__name__}:shifted': shifted})
    inside = Rule('mean', W, .5, 8, steps=[lambda neighbors: neighbors.top(1)])
    assert len(inside.apply(SPACES).ids) == 40
    with pytest.raises(InputError, match='can not be saved'): inside.to_dict()


@pytest.mark.parametrize(
    'bad, says',
    [
        (lambda neighbors: 5, 'gave int, not Neighbors'),
        (lambda neighbors: Neighbors(neighbors.ids[:3], neighbors.scores[:3]), 'gave 3 rows for 40'),
        (lambda neighbors: Neighbors(neighbors.ids[:, ::-1], neighbors.scores), 'lambda'),
        (lambda neighbors: Neighbors(neighbors.ids + 1, neighbors.scores), 'lambda'),
    ],
)
def test_what_a_function_gives_is_checked(bad, says):
    with pytest.raises(InputError, match=says): Rule('mean', W, .5, steps=[bad]).apply(SPACES)


def test_an_equal_key_matches_whatever_the_scale():
    for steps in (['standardize'], [Step('k_reciprocal', k1=3)], ['neighbor_mean']):
        rule = Rule('mean', W, .3, 40, steps=steps, join=('phash',))
        neighbors = rule.neighbors(SPACES).check(self_join=True)
        keys = {
            (i, j)
            for i in range(40)
            for j in range(40)
            if i != j and HASH[i] is not None and HASH[i] == HASH[j]
        }
        assert keys and all(
            s == max(1, neighbors.scores[:, 1:].max())
            for i, j, s in zip(*neighbors.pairs())
            if (i, j) in keys
        )
        assert keys <= {(i, j) for i, item in enumerate(rule.apply(SPACES)) for j in item}
    # though the cut, chosen on other listings, is above all the others here
    alone = Rule('mean', W, 50., 40, steps=['standardize'], join=('phash',)).apply(SPACES)
    assert {(i, j) for i, item in enumerate(alone) for j in item if i != j} == keys
    # but a veto comes first
    spaces = {**SPACES, 'units': Units([f'{i} ml' if i else '99 l' for i in range(1, 41)])}
    assert len(Rule('mean', W, .3, 8, steps=['veto'], join=('phash',)).apply(spaces).ids) == 40


@pytest.mark.parametrize(
    'step', ['min2', 'components', Step('chisel', shares=[1.0, 1.0, 0.5]), Step('tiers', pair=0.1)]
)
@pytest.mark.parametrize('most', [1, 2, 3])
def test_no_step_gives_more_than_a_rule_may(step, most):
    free, few = (Rule('mean', W, .3, 8, n, steps=[step]).apply(SPACES) for n in (50, most))
    assert np.diff(few.indptr).max() == min(most, np.diff(free.indptr).max()) and few.indptr[-1] > 0
    if step == 'min2' and most > 1: same(few, at_most(free, most))


def test_options_of_a_fusion():
    for rule in (
        Rule('power', {'image': 0.8, 'tfidf': 0.5}, 1.0, 8, options={'power': 2.0}),
        Rule(
            'piecewise',
            {'image': 1.0, 'tfidf': 1.0},
            0.0,
            8,
            options={'planes': [({'image': 1.0}, 0.8), ({'image': 0.5, 'tfidf': 0.5}, 0.5)]},
        ),
    ):
        again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
        assert again == rule
        same(
            again.apply(SPACES),
            decide(
                fuse(candidates({k: SPACES[k] for k in W}, 8), rule.how, rule.weights, **rule.options),
                rule.threshold,
            ),
        )
    assert 'steps' not in Rule('mean', W, .5).to_dict() and 'options' not in Rule('mean', W, .5).to_dict()


def test_new_listings_apart_from_each_other():
    parts = {name: Pool(item.new, item.catalogue, within=False) for name, item in pools(6).items()}
    matches = Rule('mean', W, .3, 8, steps=['veto', 'min2']).apply(parts)
    assert all((item[1:] >= 6).all() for item in matches) and len(matches) == 6
    for step in ('mutual', Step('blend'), Step('min2', mutual=True)):
        with pytest.raises(InputError, match='within=False: step'):
            Rule('mean', W, .3, 8, steps=[step]).apply(parts)


@pytest.mark.parametrize(
    'steps',
    [
        [Step('augment', by='fused'), Step('k_reciprocal', k1=3), 'veto', Step('min2', threshold=0.3)],
        [
            Step('blend', threshold=0.5, by='fused'),
            'standardize',
            Step('tiers', merge=2.0, join=1.5, pair=1.0),
        ],
        [Step('expand'), Step('neighbor_mean', weight=0.5), 'mutual', 'components'],
    ],
)
def test_row_order_does_not_matter(steps):
    rng = np.random.default_rng(0)
    x, y, t, perm = (
        rng.normal(size=(40, 5)),
        rng.normal(size=(40, 4)),
        [f'{i % 3} kg' for i in range(40)],
        rng.permutation(40),
    )
    rule = Rule('mean', {'a': .6, 'b': .4}, .5, 9, steps=steps)
    def found(order):
        matches = rule.apply(
            {'a': Dense(x[order]), 'b': Dense(y[order]), 'units': Units([t[i] for i in order])}
        )
        return {order[i]: set(order[item]) for i, item in enumerate(matches)}
    a, b = found(np.arange(40)), found(perm)
    assert a == b and sum(len(value) > 1 for value in a.values()) > 5


def test_spaces_for_steps():
    emb = Embeddings({'image': X}, np.arange(40), T, phash=HASH)
    rule = Rule(
        'mean', W, 0.4, 8, steps=[Step('cross_mean', on='image', keys='same_title'), 'veto'], join=('phash',)
    )
    assert rule.reads == ['image', 'tfidf', 'phash', 'same_title', 'units']
    same(rule.apply(emb.spaces(only=tuple(rule.reads))), rule.apply(SPACES))
    assert not {'units', 'same_title'} & set(emb.spaces())
    with pytest.raises(InputError, match="needs the modalities .'same_title', 'units'."):
        rule.apply(emb.spaces())
    with pytest.raises(InputError, match="'units' needs titles"):
        Embeddings({'image': X}, np.arange(40)).spaces(only=('image', 'units'))
    assert title_keys(['Red  Bag', 'red bag ', ' ', 'bag']) == ['red bag', 'red bag', None, 'bag']


@pytest.mark.parametrize(
    'make, says',
    [
        (lambda: Step('expnd'), "step 'expnd': choose one of expand"),
        (lambda: Step('blend', treshold=0.5), "'blend'.*treshold"),
        (lambda: Step('chisel'), "'chisel'.*shares"),
        (lambda: Step('blend', stage='matches'), "its stage is 'vectors'"),
        (lambda: Step(nearest, stage='scores'), "stage='scores'"),
        (lambda: Step('blend', by='all'), "by='all'"),
        (lambda: Step('mutual', by='fused'), "for 'vectors'"),
        (lambda: Step('min2', on='image'), "for 'vectors'"),
        (lambda: Step('blend', threshold=np.nan), 'finite'),
        (lambda: Step('chisel', shares={1, 2}), 'set is no plain value'),
        (lambda: Step(5), 'not a function'),
        (lambda: Step(shifted, 'vectors', by='fused'), 'neighbors'),
        (
            lambda: Rule('mean', W, 0.5, steps=['min2', 'mutual']),
            "'mutual' works on neighbors, 'min2' before it on matches",
        ),
        (lambda: Rule('mean', W, 0.5, steps=[Step('blend', on='sound')]), 'sound'),
        (lambda: Rule('mean', W, 0.5, options={'powr': 2}), 'options'),
        (lambda: Rule('mean', W, 0.5, options={'power': 0}), 'power=0'),
        (lambda: Rule('piecewise', W, 0.5), 'planes'),
        (
            lambda: Rule.from_dict(
                {'how': 'mean', 'weights': W, 'threshold': 0, 'steps': [{'do': 'mutual'}]}
            ),
            'is no step',
        ),
    ],
)
def test_refuses(make, says):
    with pytest.raises(InputError, match=says): make()


def test_numbers_of_numpy_are_plain():
    step = Step('chisel', shares=np.array([.5, .25]))
    assert step.params == {'shares': [0.5, 0.25]} and Step('min2', threshold=np.float32(0.5)).params == {
        'threshold': 0.5
    }
    assert json.loads(json.dumps(step.to_dict())) == step.to_dict()
