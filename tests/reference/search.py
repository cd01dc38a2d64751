"What an approximate search is measured by: plain loops over the whole n x n, float64."
import numpy as np


def recall(ids, similarity, k, rows, removed=(), self_join=True):
    """Mean over `rows` of the share of the k best that are among `ids`; one as near as the last of them
    counts as well."""
    shares = []
    for row in rows:
        def is_other(other, row=row): return not (self_join and other == row)
        others = [other for other in range(similarity.shape[1]) if other not in removed and is_other(other)]
        best = sorted((similarity[row, other] for other in others), reverse=True)[:k - self_join]
        if not best:
            shares.append(1.)
            continue
        found = [other for other in ids[row] if other >= 0 and is_other(other)]
        assert not set(found) & set(removed)
        right = sum(similarity[row, other] >= best[-1] - 2e-7 for other in found)
        shares.append(min(len(best), right) / len(best))
    return np.mean(shares)
