"What a rule did, as pairs and as groups of listings: right, wrong and missed, and the worst of each."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from ..match.candidates import Candidates, candidates
from ..match.decide import decide
from ..match.fuse import fuse
from ..match.matches import Matches
from ..match.neighbors import Neighbors, group_codes
from ..match.rule import Rule
from ..match.steps.group import group


@dataclass
class Pairs:
    "Pairs of different listings, each once: all that were candidates, and all of one product."
    i: np.ndarray  # int64 (m,), the smaller row
    j: np.ndarray  # int64 (m,), the larger row
    scores: dict  # Modality -> float32 (m,), candidate or not
    fused: np.ndarray  # float32 (m,)
    true: np.ndarray  # bool (m,): the same product
    candidate: np.ndarray  # bool (m,): one of the two had the other among its candidates
    matched: np.ndarray  # bool (m,): one of the two names the other as its match


@dataclass
class Judged:
    "What a rule makes of listings whose products are known."
    y: np.ndarray  # int32 (n,), products as numbers from 0
    neighbors: Neighbors  # Fused, before the cut
    matches: Matches  # After it
    pairs: Pairs


def judge_pairs(
    spaces: dict,  # Modality -> space over the same listings
    rule: Rule,  # Applied to them
    groups,  # (n,) groups: listings of one are the same product
) -> Judged:
    "Apply `rule`, and score every candidate pair and every pair of one product in each modality and fused."
    found = rule.run(spaces) if rule.steps else None
    if missing := set(rule.weights) - set(spaces):
        raise InputError(f'the rule needs the modalities {sorted(missing)}; there are {list(spaces)}')
    spaces = {k: spaces[k] for k in rule.weights}
    cand = candidates(spaces, min(rule.k, len(next(iter(spaces.values())))))
    n = len(cand.ids)
    y = group_codes(groups, n)
    neighbors = fuse(cand, rule.how, rule.weights, **rule.options)
    matches = found.matches if found else decide(neighbors, rule.threshold, rule.max_matches)
    near = _keys(*_directed(cand.ids), n)
    named = _keys(np.repeat(np.arange(n), np.diff(matches.indptr)), matches.ids, n)
    key = np.union1d(near, _keys(*_mates(y), n))
    i, j = key // n, key % n
    scores = {k: o.scores(i, j) for k, o in spaces.items()}
    # `fuse` knows listings and their candidates: here each pair stands as a listing with one candidate
    alone = np.stack([np.arange(len(key)), np.zeros(len(key), np.int64)], 1)
    fused = fuse(Candidates(alone, {k: np.stack([o, o], 1) for k, o in scores.items()}), rule.how, rule.weights, **rule.options).scores[:, 1]
    return Judged(y, neighbors, matches, Pairs(i, j, scores, fused, y[i] == y[j], np.isin(key, near), np.isin(key, named)))


def _directed(ids):
    rows, cols = np.nonzero(ids >= 0)
    return rows, ids[rows, cols]


def _mates(y):
    "All pairs of one product."
    order = np.argsort(y, kind='stable')
    parts = [o[np.stack(np.triu_indices(len(o), 1))] for o in np.split(order, np.bincount(y).cumsum()[:-1])]
    return np.concatenate(parts, 1)


def _keys(a, b, n):
    "One number a pair of different rows, whichever of the two comes first."
    a, b = np.minimum(a, b), np.maximum(a, b)
    return np.unique((a * n + b)[a != b])


def worst_false(
    judged: Judged,
    n: int = 8,  # How many
) -> np.ndarray:  # int, places in `pairs`, the worst first
    "The false matches with the highest fused score, one of any two products: others of them repeat the mistake."
    p, y = judged.pairs, judged.y
    at = np.flatnonzero(p.matched & ~p.true)
    at = at[np.argsort(-p.fused[at], kind='stable')]
    return _first_of_each(at, _keys_in_order(y[p.i[at]], y[p.j[at]]), n)


def worst_missed(
    judged: Judged,
    n: int = 8,  # How many
) -> np.ndarray:  # int, places in `pairs`, the worst first
    "The missed matches with the lowest fused score, one of any product."
    p = judged.pairs
    at = np.flatnonzero(p.true & ~p.matched)
    at = at[np.argsort(p.fused[at], kind='stable')]
    return _first_of_each(at, judged.y[p.i[at]], n)


def _keys_in_order(a, b): return np.minimum(a, b).astype(np.int64) * (1 + max(a.max(initial=0), b.max(initial=0))) + np.maximum(a, b)
def _first_of_each(at, key, n): return at[np.sort(np.unique(key, return_index=True)[1])][:n]


@dataclass
class Found:
    "Listings that matches tie together, beside the product most of them are."
    right: np.ndarray  # int rows of that product
    wrong: np.ndarray  # int rows of other products
    missed: np.ndarray  # int rows of that product that stand outside

    @property
    def kind(self) -> str: return 'mixed' if len(self.wrong) else 'incomplete' if len(self.missed) else 'right'
    def __len__(self): return len(self.right) + len(self.wrong)


def found_groups(
    judged: Judged,
) -> list[Found]:
    "The groups of two or more listings that the matches make, in the order of their first listing."
    y, res = judged.y, []
    found = group(judged.matches)
    order = np.argsort(found, kind='stable')
    for rows in np.split(order, np.bincount(found).cumsum()[:-1]):
        if len(rows) < 2: continue
        # of two equally frequent products the one of the smaller number: that of the earlier listing
        most = np.bincount(y[rows]).argmax()
        mine = y[rows] == most
        res.append(Found(rows[mine], rows[~mine], np.setdiff1d(np.flatnonzero(y == most), rows)))
    return res


def varied(
    found: list[Found],
    n: int = 3,  # Groups of each kind
) -> list[Found]:
    "Some groups of each kind, from the largest to the smallest."
    res = []
    for kind in ('right', 'incomplete', 'mixed'):
        mine = sorted((o for o in found if o.kind == kind), key=len, reverse=True)
        res += [mine[i] for i in np.unique(np.linspace(0, len(mine) - 1, n).round().astype(int))] if mine else []
    return res
