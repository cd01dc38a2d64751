"A few listings whose pairs are easy to tell, a matcher of them, and groups by a slow definition."
import numpy as np

from fastmatch.match import Embeddings, Rule, Step
from fastmatch.matcher import Matcher

DIM = 8


def listings(n=40, seed=0, spread=.25):
    "Embeddings of n listings around n // 4 products, with titles and hashes, a few of them shared."
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(max(1, n // 4), DIM))
    product = rng.integers(0, len(centers), n)
    vectors = centers[product] + spread * rng.normal(size=(n, DIM))
    hashes = [None if rng.random() < .8 else f'{product[row]:016x}' for row in range(n)]
    words = ['red bag', 'blue shoe', 'desk lamp', 'green tea', 'oak chair', 'steel cup', 'wool hat']
    titles = [f'{words[each % 7]} {each} size {rng.integers(3)}' for each in product]
    return Embeddings({'image': vectors.astype(np.float32)}, [f'p{row:03d}' for row in range(n)], titles,
                      phash=hashes)


RULES = {
    'mean': Rule('mean', {'image': .7, 'tfidf': .3}, .75, k=100, max_matches=100, join=('phash',)),
    'above': Rule('union', {'image': .9, 'tfidf': .85}, 0., k=100, max_matches=100),
    'augment': Rule('mean', {'image': .7, 'tfidf': .3}, .8, k=100, max_matches=100,
                    steps=[Step('augment', by='fused', k=2), 'min2']),
    'agglomerate': Rule('mean', {'image': .7, 'tfidf': .3}, .7, k=100, max_matches=100, steps=['agglomerate'],
                        join=('phash',)),
    'pools': Rule('mean', {'image': 1.}, .8, k=100, max_matches=100,
                  pools={'sizes': [2, 20, 200], 'thresholds': [.7, .8, .9], 'per_doubling': .01})}


def matcher_of(rule, known=None):
    "A matcher whose weights of n-grams are those of 40 other listings."
    return Matcher(rule, listings(40, 99) if known is None else known)


def partition_of(catalogue):
    "The groups as sets of ids."
    table = catalogue.groups()
    return {frozenset(members) for members in table.groupby('group').posting_id.agg(list)}


def blocks_of(ids, pairs, same=(), apart=()):
    """The groups by the definition, each step in full: pairs by falling score, equal ones by ids, those
    called the same first; a pair is passed over where both blocks together hold two listings called
    different."""
    block_of = {listing: frozenset([listing]) for listing in ids}
    apart = {frozenset(pair) for pair in apart}
    ranked = [(float('inf'), *sorted(pair)) for pair in same] + [(score, *sorted((first, second)))
                                                               for first, second, score in pairs]
    for _, first, second in sorted(ranked, key=lambda pair: (-pair[0], pair[1:])):
        together = block_of[first] | block_of[second]
        if any(pair <= together for pair in apart) and block_of[first] != block_of[second]: continue
        for listing in together: block_of[listing] = together
    return set(block_of.values())
