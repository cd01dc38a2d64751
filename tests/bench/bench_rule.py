"A whole rule on neighbours beside the same rule on n x n matrices."
from dataclasses import replace

import numpy as np

from tests.bench.harness import Case, bench

QUICK = 400, 130, 9, (24, 16)
BLEND, CUT = .5, .6  # scores from here on are blended; matches from here on


def listings(n=34_250, groups=11_014, largest=51, widths=(512, 384), seed=0):
    """Vectors of two modalities, float32 (n,d) each, unit length: mates are near each other in one, the other
    or both."""
    from tests.bench.bench_threshold import shopee_like
    labels, rng = shopee_like(n, groups, largest), np.random.default_rng(seed)
    modalities = []
    for width in widths:
        vectors = rng.standard_normal((n, width), np.float32)
        # a part of the listings says nothing of its group in this modality; all in place, so that a process
        # holds little more than the vectors
        vectors *= rng.choice([.5, .7, 3.], (n, 1)).astype(np.float32)
        vectors += rng.standard_normal((groups, width), np.float32)[labels]
        vectors /= np.sqrt(np.einsum('nd,nd->n', vectors, vectors))[:, None]
        modalities.append(vectors)
    return modalities


def sparse_rule(image, title, k=50):
    """Search, fuse, blend each modality by the fused neighbours, search again, fuse, decide, force the
    nearest in."""
    from fastmatch.match import blend, candidates, decide, fuse, min2
    spaces = _spaces(image, title)
    neighbors = fuse(candidates(spaces, k), 'prob_or').top(k)
    blended = {name: blend(space, neighbors, BLEND, k) for name, space in spaces.items()}
    neighbors = fuse(candidates(blended, k), 'prob_or').top(k)
    return min2(decide(neighbors, CUT, k), neighbors)


def candidates_rule(spaces, scored, k=50):
    """From candidates that were found: fuse, blend, score the same candidates by the blended vectors, fuse,
    decide, force the nearest in."""
    from fastmatch.match import blend, decide, fuse, min2
    neighbors, rows = fuse(scored, 'prob_or').top(k), np.arange(len(scored.ids))[:, None]
    scores = {
        name: blend(space, neighbors, BLEND, k).scores(rows, scored.ids) for name, space in spaces.items()
    }
    neighbors = fuse(replace(scored, scores=scores), 'prob_or').top(k)
    return min2(decide(neighbors, CUT, k), neighbors)


def dense_rule(image, title, k=50, similarities=None):
    """The same in torch on whole matrices, as notebooks write it, in place where that saves memory: the form
    that is kindest to it."""
    import torch
    from torch.nn import functional as F
    modalities = [torch.from_numpy(vectors) for vectors in (image, title)]

    def nearest(similarities=None):
        miss = None
        for i, vectors in enumerate(modalities):
            similarity = vectors @ vectors.T if similarities is None else similarities[i]
            distance = similarity.clamp_(0, 1).neg_().add_(1)
            miss = distance if miss is None else miss.mul_(distance)
            del similarity, distance
        return miss.neg_().add_(1).fill_diagonal_(2.).topk(k, dim=1)

    def blended(vectors, rows):
        return F.normalize(torch.einsum('nk,nkd->nd', weights[rows], vectors[top.indices[rows]]))

    top = nearest(similarities)
    if similarities is not None: similarities.clear()
    weights = torch.where(top.values >= BLEND, top.values, 0.)
    weights[:, 0] = 1
    # gathering k rows a listing: a matrix product with the n x n weights would take several times longer
    parts = [slice(start, start + 1024) for start in range(0, len(weights), 1024)]
    modalities = [torch.cat([blended(vectors, rows) for rows in parts]) for vectors in modalities]
    top = nearest()
    keep = top.values >= CUT
    keep[:, :2] = True
    return [ids[kept].numpy() for ids, kept in zip(top.indices, keep)]


def _spaces(image, title):
    from fastmatch.match import Dense
    return {'image': Dense(image, normalized=True), 'title': Dense(title, normalized=True)}


def _found(modalities, k=50):
    "Set-up of the second case: what a search gives, and the matrices that n x n starts from."
    from fastmatch.match import candidates
    spaces = _spaces(*modalities)
    scored = candidates(spaces, k)
    return lambda: candidates_rule(spaces, scored, k)


def _matrices(modalities):
    import torch
    similarities = [torch.from_numpy(vectors) @ torch.from_numpy(vectors).T for vectors in modalities]
    return lambda: dense_rule(*modalities, similarities=similarities)


@bench('match')
def rule(quick):
    """Two modalities of 34,250 listings to matches: search, fuse, one stage of neighbourhood blending,
    search, fuse, min2, cut; against n x n matrices in torch."""
    modalities = listings(*QUICK if quick else ())
    # a run of the other side takes a minute and 10 GB
    options = dict(
        reference='n x n',
        bar=0.05,
        memory=True,
        imports=('torch', 'faiss', 'fastmatch.match'),
        pairs=2,
        time_bar=0.5,
    )
    sides = {
        'rule': lambda: lambda: sparse_rule(*modalities),
        'n x n': lambda: lambda: dense_rule(*modalities),
    }
    yield Case('rule', sides, **options)
    # the first search done and not timed: fusion, blending and decision on 34,250 x 50 neighbours of each,
    # which stay the candidates
    sides = {'rule': lambda: _found(modalities), 'n x n': lambda: _matrices(modalities)}
    yield Case('rule on candidates', sides, **options)
