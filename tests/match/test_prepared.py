"A catalogue prepared for a rule's steps on vectors gives what the rule gives on all listings, bit for bit."
import numpy as np
import pytest

from fastmatch.match import Dense, Keys, Pool, Rule, Tfidf
from fastmatch.match.prepared import LastPrepared, PreparedCatalogue, can_prepare
from fastmatch.match.steps.step import Step

CENTERS = np.random.default_rng(1).normal(size=(200, 16))
WORDS = np.array([f'word{number}' for number in range(60)])


def augment(k, by='fused', **options): return Step('augment', by=by, k=k, **options)
def expand(by='fused'): return Step('expand', by=by, k=2, alpha=1.)


PULLS = {
    'augment': [augment(2)], 'augment 3': [augment(3)], 'own': [augment(3, 'own')],
    'twice': [augment(2), augment(2)], 'own first': [augment(3, 'own'), augment(2)],
    'expand': [expand()], 'expand own': [expand('own')], 'both': [augment(2), expand()],
    'blend': [Step('blend', by='fused', threshold=.5, k=10)],
    'min2': [augment(2), Step('min2', threshold=.4)],
    'pictures only': [augment(3, on=['image'])],
    'by another fusion': [augment(2, {'how': 'mean', 'weights': {'tfidf': 1.}})]}
FUSIONS = {'mean': {'image': .6, 'tfidf': .4}, 'prob_or': {'image': 1., 'tfidf': 2.},
           'joint': {'image': .6, 'tfidf': .4}, 'union': {'image': .7, 'tfidf': .6}}


def pools_of(n_new, n_known, seed):
    "Listings of products with equal pictures, empty titles and equal hashes among them."
    rng = np.random.default_rng(seed)
    n = n_new + n_known
    products = rng.integers(0, n // 3, n)
    vectors = CENTERS[products] + .6 * rng.normal(size=(n, 16)) * (rng.random((n, 1)) < .7)
    of_product = [np.random.default_rng(product).choice(WORDS, 5) for product in range(n // 3)]
    titles = [' '.join(rng.permutation(of_product[product])[:rng.integers(0, 6)]) for product in products]
    hashes = [f'hash{product}' if rng.random() < .3 else None for product in products]
    tfidf = Tfidf(titles[n_new:])
    known = {'image': Dense(vectors[n_new:]), 'tfidf': tfidf, 'phash': Keys(hashes[n_new:])}
    new = {'image': Dense(vectors[:n_new]), 'tfidf': tfidf.transform(titles[:n_new]),
           'phash': Keys(hashes[:n_new])}
    return known, {name: Pool(new[name], known[name]) for name in known}


def assert_same(decision, expected):
    assert np.array_equal(decision.neighbors.ids, expected.neighbors.ids)
    assert np.array_equal(decision.neighbors.scores, expected.neighbors.scores)
    assert np.array_equal(decision.matches.ids, expected.matches.ids)
    assert np.array_equal(decision.matches.indptr, expected.matches.indptr)


@pytest.mark.parametrize('how', FUSIONS)
@pytest.mark.parametrize('steps', PULLS.values(), ids=list(PULLS))
def test_as_all_anew(how, steps):
    threshold = 0. if how == 'union' else .55
    for seed, (n_new, n_known, k) in enumerate([(1, 60, 50), (3, 150, 20), (2, 100, 5), (1, 199, 50)]):
        known, pools = pools_of(n_new, n_known, seed)
        rule = Rule(how, FUSIONS[how], threshold, k=k, join=('phash',), steps=tuple(steps))
        assert can_prepare(rule, known)
        prepared = PreparedCatalogue(rule, known)
        assert prepared.serves(rule, pools)
        assert_same(rule.run(pools, prepared), rule.run(pools))
        # another threshold asks for no other preparation
        assert_same(rule.with_threshold(.3).run(pools, prepared), rule.with_threshold(.3).run(pools))
        whole = {name: pool.whole('') for name, pool in pools.items()}
        after = prepared.refined(whole, n_new)
        if steps[-1].do == 'expand': continue
        for name in ('image', 'tfidf'):
            expected = rule.refined(whole)[name].vectors
            difference = abs(after[name].vectors - expected)
            assert difference.max() == 0


def test_known_listings_near_a_new_one_change():
    "Without that the catalogue would do as it was, and the tests above would show nothing."
    known, pools = pools_of(1, 150, 0)
    rule = Rule('mean', FUSIONS['mean'], .55, join=('phash',), steps=(augment(3),))
    prepared = PreparedCatalogue(rule, known)
    whole = {name: pool.whole('') for name, pool in pools.items()}
    after = prepared.refined(whole, 1)['image'].vectors[1:]
    alone = rule.refined(known)['image'].vectors
    assert 0 < (after != alone).any(1).sum() < 20


def test_what_is_not_prepared():
    known, _ = pools_of(1, 60, 0)
    def can(**options):
        return can_prepare(Rule('mean', FUSIONS['mean'], .5, join=('phash',), **options), known)
    assert can(steps=(augment(2),)) and not can(steps=())
    # these look at the neighbors of neighbors
    assert not can(steps=(augment(2), Step('k_reciprocal')))
    assert not can(steps=(augment(2), Step('components')))
    assert not can(steps=(expand(), augment(2)))
    # of fewer listings all are candidates, and each new one is one more
    assert not can(steps=(augment(2),), k=61)


def test_other_catalogues_are_served_as_they_are():
    known, pools = pools_of(1, 60, 0)
    _, others = pools_of(1, 61, 1)
    rule = Rule('mean', FUSIONS['mean'], .5, join=('phash',), steps=(augment(2),))
    prepared = PreparedCatalogue(rule, known)
    assert not prepared.serves(rule, others)
    assert_same(rule.run(others, prepared), rule.run(others))
    other_rule = Rule('mean', {'image': .5, 'tfidf': .5}, .5, join=('phash',), steps=(augment(2),))
    assert not prepared.serves(other_rule, pools)
    assert_same(other_rule.run(pools, prepared), other_rule.run(pools))


def test_a_key_that_comes_to_be_on_too_many():
    known, pools = pools_of(1, 120, 0)
    keys = Keys(['photo'] * 50 + [None] * 70)
    known['phash'], pools['phash'] = keys, Pool(Keys(['photo']), keys)
    rule = Rule('mean', FUSIONS['mean'], .5, join=('phash',), steps=(augment(2),))
    prepared = PreparedCatalogue(rule, known)
    assert not prepared.serves(rule, pools)
    assert_same(rule.run(pools, prepared), rule.run(pools))


def test_the_last_one_is_kept():
    known, _ = pools_of(1, 60, 0)
    others, _ = pools_of(1, 60, 1)
    rule = Rule('mean', FUSIONS['mean'], .5, join=('phash',), steps=(augment(2),))
    last = LastPrepared()
    first = last.of(rule, known, 1)
    assert first is not None and last.of(rule.with_threshold(.3), known, 1) is first
    assert last.of(rule, others, 1) is not first
    # so many are not worth it
    assert LastPrepared().of(rule, known, 30) is None
