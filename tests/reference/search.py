"What an approximate search is measured by: plain loops over the whole n x n, float64."
import numpy as np


def recall(ids, sim, k, rows, dead=(), self_join=True):
    "Mean over `rows` of the share of the k best that are among `ids`; one as near as the last of them counts as well."
    res = []
    for i in rows:
        others = [j for j in range(sim.shape[1]) if j not in dead and not (self_join and j == i)]
        best = sorted((sim[i, j] for j in others), reverse=True)[:k - self_join]
        if not best:
            res.append(1.)
            continue
        found = [j for j in ids[i] if j >= 0 and not (self_join and j == i)]
        assert not set(found) & set(dead)
        res.append(min(len(best), sum(sim[i, j] >= best[-1] - 2e-7 for j in found)) / len(best))
    return np.mean(res)
