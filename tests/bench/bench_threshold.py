"The best threshold beside the grid that is tried in notebooks."
import numpy as np

from tests.bench.harness import Case, bench

STEPS, PART = 100, 10  # thresholds of the grid, and of a timed run


def shopee_like(n, n_groups, largest, seed=0):
    "Labels (n,) of `n_groups` groups, most of two, a few large, none above `largest`."
    rng = np.random.default_rng(seed)
    sizes = np.minimum(2 + rng.pareto(1.55, n_groups), largest).astype(int)
    sizes[0] = largest
    # to the very number of listings, group by group
    while (missing := n - sizes.sum()) != 0:
        changed = rng.permutation(n_groups)[:abs(missing)]
        sizes[changed] = np.clip(sizes[changed] + np.sign(missing), 2, largest)
    return rng.permutation(np.repeat(np.arange(n_groups), sizes))


def neighbors(labels, k, seed=0):
    """Neighbours (n,k) as a fair encoder gives them: mates' cosines around .7, strangers' around .4, itself
    first."""
    from fastmatch.match import Neighbors
    rng, n = np.random.default_rng(seed), len(labels)
    order = np.argsort(labels, kind='stable')
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    ids, scores = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    for row in range(n):
        mates = members[labels[row]]
        mates = mates[mates != row][:k - 1]
        strangers = rng.integers(0, n, 3 * k)
        strangers = np.setdiff1d(strangers, [*mates, row])[:k - 1 - len(mates)]
        ids[row] = [row, *mates, *strangers]
        scores[row] = [1, *rng.normal(.7, .15, len(mates)), *rng.normal(.4, .1, len(strangers))]
    scores = np.clip(scores, -1, 1)
    order = np.argsort(-scores[:, 1:], axis=1, kind='stable') + 1
    ids[:, 1:], scores[:, 1:] = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    return Neighbors(ids, scores)


def grid(ids, scores, true, thresholds):
    "The (threshold, mean row F1) of the best of `thresholds`, set by set as notebooks do it."
    # the usual code, not the fastest: `.tolist()` inside `set` would save it about half
    best = (None, -1.)
    for threshold in thresholds:
        f1 = 0.
        for row_ids, row_scores, truth in zip(ids, scores, true):
            found = set(row_ids[row_scores > threshold])
            f1 += 2 * len(found & truth) / (len(found) + len(truth))
        best = max(best, (threshold, f1 / len(true)), key=lambda candidate: candidate[1])
    return best


@bench('main')
def threshold(quick):
    "The exact best threshold of 34,250 x 50 neighbours, against a grid of 100 thresholds with python sets."
    from fastmatch.match import best_threshold
    n, k = (300, 10) if quick else (34_250, 50)
    labels = shopee_like(n, 100 if quick else 11_014, 9 if quick else 51)
    nearest = neighbors(labels, k)
    # the true sets are ready beforehand: a notebook makes them once
    groups = [set(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)]
    true = [groups[label] for label in labels]
    # low cuts let in more and cost more: the cuts of a timed run stand in the middle of equal parts of the
    # grid's range
    cuts = np.linspace(0, 1, 2 * PART + 1)[1::2].tolist()
    sides = {
        'best_threshold': lambda: lambda: best_threshold(nearest, labels),
        'grid of sets': lambda: lambda: grid(nearest.ids, nearest.scores, true, cuts),
    }
    yield Case(
        'threshold',
        sides,
        reference='grid of sets',
        bar=.01,
        scale={'grid of sets': STEPS / PART},
        aim={'best_threshold': .15},
    )
