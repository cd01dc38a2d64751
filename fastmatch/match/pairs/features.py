"What a pair of listings looks like from its candidates alone: similarities, ranks both ways, how crowded it is around both, their titles."
import re
from dataclasses import replace

import numpy as np
from scipy import sparse

from ...core import InputError, preview, require_package
from ..candidates import Candidates
from ..neighbors import Neighbors, check_self_first

FEATURES = ['score', 'rank', 'density', 'top', 'pagerank', 'title', 'length']
TITLES = {'title', 'length'}
QUANTILES = (.25, .5, .75)  # of the nearest others' scores: the radii that neighbours are counted within
WORD = re.compile(r'[^\W_]+')


def radii_of(
    cand: Candidates,  # Of a self-join
) -> dict:  # modality -> floats
    "Radii to count neighbours within, from how near the nearest others are."
    res = {}
    for name in _plain(cand):
        best = cand.scores[name][:, 1:].max(1, initial=-np.inf)
        best = best[best > -np.inf]
        res[name] = np.quantile(best, QUANTILES).astype(np.float32).tolist() if len(best) else [0.] * len(QUANTILES)
    return res


def pair_features(
    cand: Candidates,  # Of a self-join
    titles=None,  # (n,) strings; needed for 'title' and 'length'
    use: list | None = None,  # Some of `FEATURES`; default all that can be had
    radii: dict | None = None,  # Modality -> radii; default `radii_of`
    top: int = 5,  # Nearest others whose mean and deviation tell how crowded it is around a listing
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:  # rows int (m,), columns int (m,) of the candidates, float32 (m,f), the features' names
    "The features of each candidate pair (i,j), row by row, a listing with itself left out; those of one listing are named `_i` and `_j`."
    ids = cand.ids
    check_self_first(Neighbors(ids, ids), cand.pool)
    n = len(ids)
    if cand.pool not in (None, n): raise InputError(f'pair features look from both sides: give candidates of a self-join, new and known listings together, not {n} rows of {cand.pool}')
    use = [o for o in FEATURES if titles is not None or o not in TITLES] if use is None else list(use)
    if unknown := set(use) - set(FEATURES): raise InputError(f'use={sorted(unknown)}: choose from {", ".join(FEATURES)}')
    if titles is None and (lacking := TITLES & set(use)): raise InputError(f'{", ".join(sorted(lacking))}: need titles')
    if titles is not None and len(titles) != n: raise InputError(f'titles: {len(titles)} for {n} listings')
    real = ids >= 0
    real[:, 0] = False
    rows, cols = np.nonzero(real)
    to, res = ids[rows, cols], {}
    back = _back(ids, rows, to)
    for name, s in cand.scores.items():
        if 'score' in use: res[name] = s[rows, cols]
        if name in cand.join: continue
        # what is no candidate comes after all candidates
        if 'rank' in use:
            rank = ranks(s, real)
            res[f'{name} rank'], res[f'{name} rank back'] = rank[rows, cols], np.where(back >= 0, rank[to, back], real.sum(1)[to] + 1)
        each = {}
        if 'density' in use: each = {f'{name} within {k}': (real & (s >= r)).sum(1) for k, r in enumerate((radii or radii_of(cand))[name])}
        if 'top' in use: each[f'{name} top mean'], each[f'{name} top deviation'] = top_moments(s, real, top)
        res |= _both(each, rows, to)
    if 'pagerank' in use: res |= _both({'pagerank': n * pagerank(graph_of(cand, rows, cols))}, rows, to)
    if titles is not None:
        text = [str(o).lower() for o in titles]
        if 'length' in use: res |= _both({'length': np.array([len(o) for o in text])}, rows, to)
        if 'title' in use:
            words = [WORD.findall(o) for o in text]
            res['edit'] = edit_similarity(text, rows, to)
            res['words'] = overlap(words, rows, to)
            # model numbers: where a title has none, nothing can be said
            res['codes'] = overlap([[w for w in o if any(c.isdigit() for c in w)] for o in words], rows, to)
    return rows, cols, np.stack([np.asarray(o, np.float32) for o in res.values()], 1) if res else np.empty((len(rows), 0), np.float32), list(res)


def _plain(cand): return [k for k in cand.scores if k not in cand.join]


def _both(each, rows, to): return {f'{k}{side}': v[at] for k, v in each.items() for side, at in (('_i', rows), ('_j', to))}


def _back(ids, rows, to):
    "The column at which j's row names i, -1 where it doesn't."
    n = len(ids)
    at, col = np.nonzero(ids >= 0)
    key = at * n + ids[at, col]
    order = np.argsort(key)
    found = np.minimum(np.searchsorted(key, to * n + rows, sorter=order), len(key) - 1)
    hit = order[found]
    return np.where(key[hit] == to * n + rows, col[hit], -1)


def ranks(
    s: np.ndarray,  # (n,K) scores
    real: np.ndarray,  # bool (n,K), which count
) -> np.ndarray:  # int (n,K)
    "1 + the number of better ones in the row: equal scores share the better rank."
    s = np.where(real, s, -np.inf)
    order = np.argsort(-s, axis=1, kind='stable')
    by = np.take_along_axis(s, order, 1)
    first = np.zeros(s.shape, np.int64)
    first[:, 1:] = np.where(by[:, 1:] != by[:, :-1], np.arange(1, s.shape[1]), 0)
    res = np.empty_like(first)
    np.put_along_axis(res, order, np.maximum.accumulate(first, axis=1) + 1, 1)
    return res


def top_moments(
    s: np.ndarray,  # (n,K) scores
    real: np.ndarray,  # bool (n,K), which count
    top: int,  # How many of the best
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each; 0 for a row without any
    "Mean and deviation of the `top` best of each row, of fewer where it has fewer."
    best = -np.sort(-np.where(real, s, -np.inf).astype(np.float64), axis=1)[:, :top]
    have = best > -np.inf
    count = np.maximum(have.sum(1), 1)
    mean = np.where(have, best, 0).sum(1) / count
    return mean, np.sqrt((np.where(have, best - mean[:, None], 0)**2).sum(1) / count)


def graph_of(cand, rows, cols):
    "The candidates as a sparse graph: each pair weighs its mean similarity, nothing where that is negative."
    names = _plain(cand) or list(cand.scores)
    weight = np.mean([cand.scores[k][rows, cols].astype(np.float64) for k in names], axis=0)
    n = len(cand.ids)
    return sparse.csr_matrix((np.maximum(weight, 0), (rows, cand.ids[rows, cols])), (n, n))


def pagerank(
    graph: sparse.csr_matrix,  # (n,n), weights 0 or more
    damping: float = .85,  # Share that follows a link
    tol: float = 1e-10,  # Largest change of the sum at which it stops
) -> np.ndarray:  # float64 (n,), sums to 1
    "PageRank by power iteration, https://doi.org/10.1016/S0169-7552(98)00110-X; a listing without links leads everywhere."
    n, out = graph.shape[0], np.asarray(graph.sum(1)).ravel()
    step = sparse.diags(np.divide(1., out, out=np.zeros(n), where=out > 0)) @ graph
    p, lost = np.full(n, 1 / n), out <= 0
    for _ in range(1000):
        last, p = p, damping * (step.T @ p + p[lost].sum() / n) + (1 - damping) / n
        if np.abs(p - last).sum() < tol: break
    return p


def edit_similarity(
    text: list[str],  # (n,)
    rows,  # int (m,)
    ids,  # int (m,)
) -> np.ndarray:  # float32 (m,), 1 for equal ones
    "1 - Levenshtein distance / the longer length."
    fuzz = require_package('rapidfuzz', "the feature 'title'")
    rows, ids, out, size = np.asarray(rows), np.asarray(ids), np.empty(len(rows), np.float32), 1 << 20
    for i in range(0, len(rows), size):
        a, b = ([text[o] for o in at[i:i + size].tolist()] for at in (rows, ids))
        out[i:i + size] = fuzz.process.cpdist(a, b, scorer=fuzz.distance.Levenshtein.normalized_similarity, dtype=np.float32)
    return out


def overlap(
    words: list,  # (n,) lists of words
    rows,  # int (m,)
    ids,  # int (m,)
) -> np.ndarray:  # float32 (m,)
    "Words in common over words in both together; -1 where one has none."
    code, n = {}, len(words)
    sets = [sorted({code.setdefault(w, len(code)) for w in o}) for o in words]
    size = np.array([len(o) for o in sets])
    x = sparse.csr_matrix((np.ones(size.sum(), np.float32), np.fromiter((w for o in sets for w in o), np.int64), np.concatenate([[0], size.cumsum()])), (n, max(1, len(code))))
    out, step = np.empty(len(rows), np.float32), 1 << 18
    for i in range(0, len(rows), step):
        a, b = rows[i:i + step], ids[i:i + step]
        common = np.asarray(x[a].multiply(x[b]).sum(1)).ravel()
        out[i:i + step] = np.where((size[a] > 0) & (size[b] > 0), common / np.maximum(size[a] + size[b] - common, 1), -1)
    return out


def with_scores(
    cand: Candidates,  # Of a self-join
    **neighbors: Neighbors,  # Name -> neighbours of the same listings: fused, blended or reranked ones
) -> Candidates:
    "The candidates with further scores of theirs; a pair that those neighbours don't hold gets their lowest."
    n, scores = len(cand.ids), dict(cand.scores)
    for name, nb in neighbors.items():
        if name in scores: raise InputError(f'{name}: the candidates have scores of that name: {preview(scores)}')
        if len(nb.ids) != n: raise InputError(f'{name}: neighbours of {len(nb.ids)} listings, candidates of {n}')
        rows, ids, s = nb.pairs()
        order = np.argsort(key := rows * n + ids)
        at, cols = np.nonzero(cand.ids >= 0)
        want = at * n + cand.ids[at, cols]
        hit = order[np.minimum(np.searchsorted(key, want, sorter=order), len(key) - 1)]
        scores[name] = np.full(cand.ids.shape, -np.inf, np.float32)
        scores[name][at, cols] = np.where(key[hit] == want, s[hit], s.min())
    return replace(cand, scores=scores)
