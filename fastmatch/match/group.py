"Groups from matches."
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components


def group(
    matches,  # `Matches` of a self-join
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    "Listings that are linked by matches, directly or through others, as one group."
    n = len(matches)
    graph = csr_matrix((np.ones(len(matches.ids), np.int8), matches.ids, matches.indptr), shape=(n, n))
    found = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
