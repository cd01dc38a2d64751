"What an approximate search is measured by: plain loops over the whole n x n, float64."
import numpy as np


def recall(ids, similarity, k, rows, removed=(), self_join=True):
    """Mean over `rows` of the share of the k best that are among `ids`; one as near as the last of them
    counts as well."""
    shares = []
    for i in rows:
        def is_other(j, row=i): return not (self_join and j == row)
        others = [j for j in range(similarity.shape[1]) if j not in removed and is_other(j)]
        best = sorted((similarity[i, j] for j in others), reverse=True)[:k - self_join]
        if not best:
            shares.append(1.)
            continue
        found = [j for j in ids[i] if j >= 0 and is_other(j)]
        assert not set(found) & set(removed)
        shares.append(min(len(best), sum(similarity[i, j] >= best[-1] - 2e-7 for j in found)) / len(best))
    return np.mean(shares)
