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
    out = []
    for d in widths:
        x = rng.standard_normal((n, d), np.float32)
        # a part of the listings says nothing of its group in this modality; all in place, so that a process
        # holds little more than the vectors
        x *= rng.choice([.5, .7, 3.], (n, 1)).astype(np.float32)
        x += rng.standard_normal((groups, d), np.float32)[labels]
        x /= np.sqrt(np.einsum('nd,nd->n', x, x))[:, None]
        out.append(x)
    return out


def sparse_rule(image, title, k=50):
    """Search, fuse, blend each modality by the fused neighbours, search again, fuse, decide, force the
    nearest in."""
    from fastmatch.match import blend, candidates, decide, fuse, min2
    spaces = _spaces(image, title)
    neighbors = fuse(candidates(spaces, k), 'prob_or').top(k)
    neighbors = fuse(
        candidates({name: blend(item, neighbors, BLEND, k) for name, item in spaces.items()}, k), 'prob_or'
    ).top(k)
    return min2(decide(neighbors, CUT, k), neighbors)


def candidates_rule(spaces, cand, k=50):
    """From candidates that were found: fuse, blend, score the same candidates by the blended vectors, fuse,
    decide, force the nearest in."""
    from fastmatch.match import blend, decide, fuse, min2
    neighbors, rows = fuse(cand, 'prob_or').top(k), np.arange(len(cand.ids))[:, None]
    again = replace(
        cand,
        scores={
            name: blend(item, neighbors, BLEND, k).scores(rows, cand.ids) for name, item in spaces.items()
        },
    )
    neighbors = fuse(again, 'prob_or').top(k)
    return min2(decide(neighbors, CUT, k), neighbors)


def dense_rule(image, title, k=50, sims=None):
    """The same in torch on whole matrices, as notebooks write it, in place where that saves memory: the form
    that is kindest to it."""
    import torch
    from torch.nn import functional as F
    x = [torch.from_numpy(item) for item in (image, title)]
    def near(sims=None):
        miss = None
        for i, item in enumerate(x):
            s = (item @ item.T if sims is None else sims[i]).clamp_(0, 1).neg_().add_(1)
            miss = s if miss is None else miss.mul_(s)
            del s
        return miss.neg_().add_(1).fill_diagonal_(2.).topk(k, dim=1)
    top = near(sims)
    if sims is not None: sims.clear()
    weights = torch.where(top.values >= BLEND, top.values, 0.)
    weights[:, 0] = 1
    # gathering k rows a listing: a matrix product with the n x n weights would take several times longer
    x = [
        torch.cat(
            [
                F.normalize(
                    torch.einsum('nk,nkd->nd', weights[i : i + 1024], item[top.indices[i : i + 1024]])
                )
                for i in range(0, len(weights), 1024)
            ]
        )
        for item in x
    ]
    top = near()
    keep = top.values >= CUT
    keep[:, :2] = True
    return [ids[m].numpy() for ids, m in zip(top.indices, keep)]


def _spaces(image, title):
    from fastmatch.match import Dense
    return {'image': Dense(image, normalized=True), 'title': Dense(title, normalized=True)}


def _found(v, k=50):
    "Set-up of the second case: what a search gives, and the matrices that n x n starts from."
    from fastmatch.match import candidates
    scored = candidates(spaces := _spaces(*v), k)
    return lambda: candidates_rule(spaces, scored, k)


def _matrices(v):
    import torch
    sims = [torch.from_numpy(item) @ torch.from_numpy(item).T for item in v]
    return lambda: dense_rule(*v, sims=sims)


@bench('match')
def rule(quick):
    """Two modalities of 34,250 listings to matches: search, fuse, one stage of neighbourhood blending,
    search, fuse, min2, cut; against n x n matrices in torch."""
    v = listings(*QUICK if quick else ())
    # a run of the other side takes a minute and 10 GB
    few = dict(
        ref='n x n',
        bar=0.05,
        memory=True,
        imports=('torch', 'faiss', 'fastmatch.match'),
        pairs=2,
        time_bar=0.5,
    )
    yield Case(
        'rule', {'rule': lambda: lambda: sparse_rule(*v), 'n x n': lambda: lambda: dense_rule(*v)}, **few
    )
    # the first search done and not timed: fusion, blending and decision on 34,250 x 50 neighbours of each,
    # which stay the candidates
    yield Case('rule on candidates', {'rule': lambda: _found(v), 'n x n': lambda: _matrices(v)}, **few)
