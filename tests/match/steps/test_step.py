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
from fastmatch.match.spaces.keys import source_space, title_keys
from fastmatch.match.steps.sources import one_to_one
from tests.match.cases import noisy, titles

WEIGHTS = {'image': .6, 'tfidf': .4}
TEXTS = [
    f'{title} {"500ml" if i % 3 else "250 ml"}' if i % 5 == 0 else title
    for i, title in enumerate(titles(40, 1))
]
VECTORS = noisy(40, 6, 0, 20)
HASHES = [None if i % 4 else f'p{i % 12}' for i in range(40)]
SPACES = {
    'image': Dense(VECTORS, 'image'),
    'tfidf': Tfidf(TEXTS),
    'phash': Keys(HASHES),
    'units': Units(TEXTS),
    'same_title': Keys(title_keys(TEXTS)),
    'titles': Titles(TEXTS),
    'source': source_space([f'shop {row % 3}' for row in range(40)]),
}


# nothing may change in place
for array in (SPACES['image'].vectors, SPACES['tfidf'].vectors.data): array.setflags(write=False)


def pools(new_count):
    tfidf = SPACES['tfidf']
    mask = np.arange(40) < new_count
    return {
        'image': Pool(Dense(VECTORS[:new_count], 'image'), Dense(VECTORS[new_count:], 'image')),
        'tfidf': Pool(tfidf.take(mask), tfidf.take(~mask)),
        **{
            modality: Pool(SPACES[modality].take(mask), SPACES[modality].take(~mask))
            for modality in ('phash', 'units', 'same_title', 'titles', 'source')
        },
    }


def fused(spaces):
    return fuse(candidates({modality: spaces[modality] for modality in WEIGHTS}, 8), 'mean', WEIGHTS)
def refined(refine): return {modality: refine(SPACES[modality]) for modality in WEIGHTS}
def decided(neighbors, threshold=.45): return decide(neighbors, threshold)


def nearest(neighbors, k=2): return neighbors.top(k)
def shifted(space): return augment(space, k=2)
def alone(matches, neighbors): return at_most(matches, 1)


PLAIN = fused(SPACES)
for array in PLAIN: array.setflags(write=False)
PAIRS = RulePairs(PLAIN, {**refined(lambda space: space), 'titles': SPACES['titles']})
# a group for every title: most pairs of one group are near
MODEL = PairModel.from_dict(PAIRS.fit(TEXTS).to_dict())
BY_HAND = {
    'expand': (
        dict(k=4, alpha=2.0),
        lambda: decided(fused(refined(lambda space: expand(space, k=4, alpha=2.0)))),
    ),
    'augment': (
        dict(k=2, on='image'),
        lambda: decided(fused({**SPACES, 'image': augment(SPACES['image'], k=2)})),
    ),
    'blend': (
        dict(threshold=0.5, by='fused'),
        lambda: decided(fused(refined(lambda space: blend(space, PLAIN, threshold=0.5)))),
    ),
    'cross_mean': (
        dict(on=['tfidf']),
        lambda: decided(fused({**SPACES, 'tfidf': cross_mean(SPACES['tfidf'], SPACES['phash'])})),
    ),
    'neighbor_mean': (dict(k=2), lambda: decided(neighbor_mean(PLAIN, 2))),
    'k_reciprocal': (dict(k1=3, lam=0.5), lambda: decided(k_reciprocal(PLAIN, 3, lam=0.5))),
    'standardize': (dict(k=5), lambda: decided(standardize(PLAIN, 5))),
    'pair_model': (dict(model=MODEL), lambda: decided(pair_model(PLAIN, MODEL, PAIRS))),
    'mutual': (dict(k=3), lambda: decided(mutual(PLAIN, 3))),
    'veto': ({}, lambda: decided(veto(PLAIN, SPACES['units']))),
    'min2': (dict(threshold=0.2), lambda: min2(decided(PLAIN), PLAIN, 0.2)),
    'chisel': (dict(shares=[0.7, 0.2]), lambda: chisel(decided(PLAIN), PLAIN, [0.7, 0.2])),
    'components': ({}, lambda: same_group(group(decided(PLAIN)), PLAIN)),
    'agglomerate': (dict(mean_size=2.0), lambda: same_group(agglomerate(PLAIN, 2.0), PLAIN)),
    'one_to_one': ({}, lambda: one_to_one(decided(PLAIN), PLAIN, SPACES['source'])),
    'tiers': (dict(pair=0.4), lambda: same_group(tiers(PLAIN, pair=0.4), PLAIN)),
}


# a cross-encoder is no plain value and has tests of its own
def test_all_steps_are_here(): assert set(BY_HAND) | {'cross_encoder', 'one_to_one'} == set(STEPS)


def assert_same_matches(actual, expected):
    np.testing.assert_array_equal(actual.indptr, expected.indptr)
    np.testing.assert_array_equal(actual.ids, expected.ids)
    np.testing.assert_array_equal(actual.scores, expected.scores)


@pytest.mark.parametrize('step_name', BY_HAND)
def test_a_step_is_its_function(step_name):
    options, expected = BY_HAND[step_name]
    rule = Rule('mean', WEIGHTS, .45, 8, steps=[Step(step_name, **options)])
    restored = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert restored == rule and restored.steps[0] is not rule.steps[0] and repr(restored) == repr(rule)
    for same_rule in (rule, restored): assert_same_matches(same_rule.apply(SPACES), expected())
    assert rule != Rule('mean', WEIGHTS, .45, 8) != Rule('mean', WEIGHTS, .45, 8, steps=['mutual'])
    result = rule.run(SPACES)
    assert [stage for stage, _ in result.trail] == {
        'vectors': ['fuse', 'score'],
        'neighbors': ['fuse', step_name, 'score'],
        'matches': ['fuse', 'score', step_name],
    }[STEPS[step_name][0]]
    assert_same_matches(result.trail[-1][1], result.matches)


@pytest.mark.parametrize('step_name', [*BY_HAND, 'all'])
@pytest.mark.parametrize('new_count', [1, 15])
def test_a_pool_is_one_self_join(step_name, new_count):
    steps = [
        Step('blend', threshold=0.6, by='fused'),
        Step('augment', k=2),
        Step('veto'),
        Step('k_reciprocal', k1=3),
        Step('min2'),
    ]
    rule = Rule(
        'mean',
        WEIGHTS,
        0.45,
        8,
        steps=steps if step_name == 'all' else [Step(step_name, **BY_HAND[step_name][0])],
        join=('same_title',),
    )
    joined, pooled = rule.run(SPACES), rule.run(pools(new_count))
    assert_same_matches(pooled.matches, joined.matches.head(new_count))
    assert len(pooled.matches) == new_count == len(pooled.neighbors.ids) and all(
        len(getattr(outcome, 'ids', outcome)) == new_count or len(outcome) == new_count
        for _, outcome in pooled.trail
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
    rule = Rule('mean', WEIGHTS, .4, 8, steps=steps)
    blended_once = refined(lambda space: blend(space, PLAIN, threshold=.6))
    neighbors = fused(blended_once)
    blended_twice = {modality: blend(blended_once[modality], neighbors, threshold=.5) for modality in WEIGHTS}
    expanded = {**blended_twice, 'image': expand(blended_twice['image'], k=3)}
    neighbors = veto(mutual(fused(expanded)), SPACES['units'])
    assert_same_matches(rule.apply(SPACES), min2(decide(neighbors, .4), neighbors, .1))
    assert rule.reads == ['image', 'tfidf', 'units'] and rule.modalities == ['image', 'tfidf']
    for array, expected_array in zip(rule.neighbors(SPACES), neighbors):
        np.testing.assert_array_equal(array, expected_array)


def test_functions_of_your_own():
    rule = Rule(
        'mean',
        WEIGHTS,
        0.45,
        8,
        steps=[Step(shifted, 'vectors', on='image'), Step(nearest, k=3), Step(alone, 'matches')],
    )
    assert rule.apply(SPACES).ids.tolist() == list(range(40))
    rule = Rule('mean', WEIGHTS, .45, 8, steps=[Step(shifted, 'vectors', on='image'), nearest])
    neighbors = fused({**SPACES, 'image': augment(SPACES['image'], k=2)}).top(2)
    assert_same_matches(rule.apply(SPACES), decided(neighbors))
    values = json.loads(json.dumps(rule.to_dict()))
    function_name = f'{__name__}:nearest'
    assert values['steps'][1]['do'] == function_name
    functions = {f'{__name__}:shifted': shifted, function_name: nearest}
    restored = Rule.from_dict(values, functions)
    assert restored == rule and restored.to_dict() == rule.to_dict()
    assert_same_matches(restored.apply(SPACES), rule.apply(SPACES))
    # nothing is imported by name
    with pytest.raises(InputError, match=f'functions={{{f"{__name__}:shifted"!r}'): Rule.from_dict(values)
    with pytest.raises(InputError, match='nearest'): Rule.from_dict(values, {f'{__name__}:shifted': shifted})
    inside = Rule('mean', WEIGHTS, .5, 8, steps=[lambda neighbors: neighbors.top(1)])
    assert len(inside.apply(SPACES).ids) == 40
    with pytest.raises(InputError, match='can not be saved'): inside.to_dict()


@pytest.mark.parametrize(
    'invalid, message',
    [
        (lambda neighbors: 5, 'gave int, not Neighbors'),
        (lambda neighbors: Neighbors(neighbors.ids[:3], neighbors.scores[:3]), 'gave 3 rows for 40'),
        (lambda neighbors: Neighbors(neighbors.ids[:, ::-1], neighbors.scores), 'lambda'),
        (lambda neighbors: Neighbors(neighbors.ids + 1, neighbors.scores), 'lambda'),
    ],
)
def test_what_a_function_gives_is_checked(invalid, message):
    with pytest.raises(InputError, match=message): Rule('mean', WEIGHTS, .5, steps=[invalid]).apply(SPACES)


def test_an_equal_key_matches_whatever_the_scale():
    for steps in (['standardize'], [Step('k_reciprocal', k1=3)], ['neighbor_mean']):
        rule = Rule('mean', WEIGHTS, .3, 40, steps=steps, join=('phash',))
        neighbors = rule.neighbors(SPACES).check(self_join=True)
        equal_pairs = {
            (i, j)
            for i in range(40)
            for j in range(40)
            if i != j and HASHES[i] is not None and HASHES[i] == HASHES[j]
        }
        assert equal_pairs and all(
            score == max(1, neighbors.scores[:, 1:].max())
            for i, j, score in zip(*neighbors.pairs())
            if (i, j) in equal_pairs
        )
        matches = rule.apply(SPACES)
        assert equal_pairs <= {(i, j) for i, matched_ids in enumerate(matches) for j in matched_ids}
    # though the cut, chosen on other listings, is above all the others here
    alone = Rule('mean', WEIGHTS, 50., 40, steps=['standardize'], join=('phash',)).apply(SPACES)
    assert {(i, j) for i, matched_ids in enumerate(alone) for j in matched_ids if i != j} == equal_pairs
    # but a veto comes first
    spaces = {**SPACES, 'units': Units([f'{i} ml' if i else '99 l' for i in range(1, 41)])}
    assert len(Rule('mean', WEIGHTS, .3, 8, steps=['veto'], join=('phash',)).apply(spaces).ids) == 40


@pytest.mark.parametrize(
    'step', ['min2', 'components', Step('chisel', shares=[1.0, 1.0, 0.5]), Step('tiers', pair=0.1)]
)
@pytest.mark.parametrize('most', [1, 2, 3])
def test_no_step_gives_more_than_a_rule_may(step, most):
    unlimited = Rule('mean', WEIGHTS, .3, 8, 50, steps=[step]).apply(SPACES)
    limited = Rule('mean', WEIGHTS, .3, 8, most, steps=[step]).apply(SPACES)
    assert np.diff(limited.indptr).max() == min(most, np.diff(unlimited.indptr).max())
    assert limited.indptr[-1] > 0
    if step == 'min2' and most > 1: assert_same_matches(limited, at_most(unlimited, most))


FUSIONS_OF_A_STEP = [
    {'how': 'mean', 'weights': {'image': 1.}}, {'how': 'mean', 'weights': {'image': .2, 'tfidf': .8}},
    {'how': 'prob_or', 'weights': {'image': 2., 'tfidf': 1.}},
    {'how': 'power', 'weights': {'image': .8, 'tfidf': .5}, 'options': {'power': 2.}}]


@pytest.mark.parametrize('by', FUSIONS_OF_A_STEP)
@pytest.mark.parametrize('step_name', ['augment', 'expand', 'blend'])
def test_neighbors_of_a_fusion_that_is_named_in_full(by, step_name):
    "As by hand, in a self-join and in a pool, whatever fusion the rule itself has; kept as json."
    function = STEPS[step_name][1]
    rule = Rule('mean', WEIGHTS, .4, 8, steps=[Step('blend', by=by, on='image'), Step(step_name, by=by, k=3)])
    restored = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert restored == rule and restored.steps[0].by == by
    def found(spaces):
        scored = candidates({modality: spaces[modality] for modality in WEIGHTS}, 8)
        return fuse(scored, by['how'], by['weights'], **by.get('options', {}))
    once = {**SPACES, 'image': blend(SPACES['image'], found(SPACES))}
    # the next step finds its neighbors in what the one before left
    neighbors = found(once)
    twice = {modality: function(once[modality], neighbors=neighbors, k=3) for modality in WEIGHTS}
    expected = decide(fused(twice), .4)
    assert_same_matches(restored.apply(SPACES), expected)
    for new_count in (1, 13): assert_same_matches(rule.apply(pools(new_count)), expected.head(new_count))
    same = Rule('mean', WEIGHTS, .4, 8, steps=[Step(step_name, by={'how': 'mean', 'weights': WEIGHTS}, k=3)])
    by_word = Rule('mean', WEIGHTS, .4, 8, steps=[Step(step_name, by='fused', k=3)])
    assert same != by_word
    assert_same_matches(same.apply(SPACES), by_word.apply(SPACES))


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
        restored = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
        assert restored == rule
        scored_candidates = candidates({modality: SPACES[modality] for modality in WEIGHTS}, 8)
        neighbors = fuse(scored_candidates, rule.how, rule.weights, **rule.options)
        assert_same_matches(restored.apply(SPACES), decide(neighbors, rule.threshold))
    plain = Rule('mean', WEIGHTS, .5).to_dict()
    assert 'steps' not in plain and 'options' not in plain


def test_new_listings_apart_from_each_other():
    spaces = {modality: Pool(pool.new, pool.catalogue, within=False) for modality, pool in pools(6).items()}
    matches = Rule('mean', WEIGHTS, .3, 8, steps=['veto', 'min2']).apply(spaces)
    assert all((matched_ids[1:] >= 6).all() for matched_ids in matches) and len(matches) == 6
    for step in ('mutual', Step('blend'), Step('min2', mutual=True)):
        with pytest.raises(InputError, match='within=False: step'):
            Rule('mean', WEIGHTS, .3, 8, steps=[step]).apply(spaces)


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
    vectors = rng.normal(size=(40, 5))
    other_vectors = rng.normal(size=(40, 4))
    texts = [f'{i % 3} kg' for i in range(40)]
    permutation = rng.permutation(40)
    rule = Rule('mean', {'a': .6, 'b': .4}, .5, 9, steps=steps)
    def found(order):
        units = Units([texts[i] for i in order])
        matches = rule.apply({'a': Dense(vectors[order]), 'b': Dense(other_vectors[order]), 'units': units})
        return {order[i]: set(order[matched_ids]) for i, matched_ids in enumerate(matches)}
    plain, permuted = found(np.arange(40)), found(permutation)
    assert plain == permuted and sum(len(found_ids) > 1 for found_ids in plain.values()) > 5


def test_spaces_for_steps():
    embeddings = Embeddings({'image': VECTORS}, np.arange(40), TEXTS, phash=HASHES)
    steps = [Step('cross_mean', on='image', keys='same_title'), 'veto']
    rule = Rule('mean', WEIGHTS, .4, 8, steps=steps, join=('phash',))
    assert rule.reads == ['image', 'tfidf', 'phash', 'same_title', 'units']
    assert_same_matches(rule.apply(embeddings.spaces(only=tuple(rule.reads))), rule.apply(SPACES))
    assert not {'units', 'same_title'} & set(embeddings.spaces())
    with pytest.raises(InputError, match="needs the modalities .'same_title', 'units'."):
        rule.apply(embeddings.spaces())
    with pytest.raises(InputError, match="'units' needs titles"):
        Embeddings({'image': VECTORS}, np.arange(40)).spaces(only=('image', 'units'))
    assert title_keys(['Red  Bag', 'red bag ', ' ', 'bag']) == ['red bag', 'red bag', None, 'bag']


def by_fusion(how, weights, **more):
    "A rule whose step takes the neighbors of this fusion."
    return Rule('mean', WEIGHTS, .5, steps=[Step('augment', by={'how': how, 'weights': weights, **more})])


@pytest.mark.parametrize(
    'make, message',
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
            lambda: Rule('mean', WEIGHTS, 0.5, steps=['min2', 'mutual']),
            "'mutual' works on neighbors, 'min2' before it on matches",
        ),
        (lambda: Rule('mean', WEIGHTS, 0.5, steps=[Step('blend', on='sound')]), 'sound'),
        (lambda: by_fusion('mean', {'sound': 1}), r"^step 'augment' by \['sound'\]: the weights name"),
        (lambda: by_fusion('medn', {'image': 1}), "^step 'augment' by: how='medn': choose one of"),
        (lambda: by_fusion('mean', {'image': 'x'}), r"^step 'augment' by: weights\['image'\]='x'"),
        (lambda: by_fusion('mean', [1]), r"^step 'augment' by: weights=\[1\]: give a dict"),
        (lambda: by_fusion('mean', {}), "^step 'augment' by: weights={}: none is above 0"),
        (lambda: by_fusion('power', {'image': 1}, options={'powr': 1}), "^step 'augment' by: options="),
        (lambda: by_fusion('mean', {'image': 1}, k=3), "^step 'augment': by=.*or give a fusion"),
        (lambda: Step('augment', by={'how': 'mean'}), "^step 'augment': by=.*or give a fusion"),
        (lambda: Step('mutual', by={'how': 'mean', 'weights': {'image': 1}}), "for 'vectors'"),
        (lambda: Rule('mean', WEIGHTS, 0.5, options={'powr': 2}), 'options'),
        (lambda: Rule('mean', WEIGHTS, 0.5, options={'power': 0}), 'power=0'),
        (lambda: Rule('piecewise', WEIGHTS, 0.5), 'planes'),
        (
            lambda: Rule.from_dict(
                {'how': 'mean', 'weights': WEIGHTS, 'threshold': 0, 'steps': [{'do': 'mutual'}]}
            ),
            'is no step',
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(InputError, match=message): make()


def test_numbers_of_numpy_are_plain():
    step = Step('chisel', shares=np.array([.5, .25]))
    assert step.params == {'shares': [0.5, 0.25]} and Step('min2', threshold=np.float32(0.5)).params == {
        'threshold': 0.5
    }
    assert json.loads(json.dumps(step.to_dict())) == step.to_dict()
