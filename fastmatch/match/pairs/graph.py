"The candidates as a graph, and how central each listing is in it."
import numpy as np
from scipy import sparse

from ..candidates import Candidates


def modalities_of(
    candidates: Candidates,
) -> list:  # Names
    "The modalities that hold similarities, exact keys and columns of a table left out."
    return [modality for modality in candidates.scores
            if modality not in candidates.join and modality not in candidates.fields]


def graph_of(
    candidates: Candidates,  # Of a self-join
    rows: np.ndarray,  # int (m,), the row of each pair
    columns: np.ndarray,  # int (m,), its column
) -> sparse.csr_matrix:  # (n,n)
    "A link for each pair; its weight is the mean similarity over the modalities, 0 where that is negative."
    modalities = modalities_of(candidates)
    # an unknown similarity links nothing
    similarities = [np.nan_to_num(candidates.scores[modality][rows, columns].astype(np.float64))
                    for modality in modalities or candidates.scores]
    weights = np.mean(similarities, axis=0)
    n = len(candidates.ids)
    return sparse.csr_matrix((np.maximum(weights, 0), (rows, candidates.ids[rows, columns])), (n, n))


def pagerank(
    graph: sparse.csr_matrix,  # (n,n), weights 0 or more
    damping: float = .85,  # Share that follows a link
    tol: float = 1e-10,  # Stops when the sum of changes is smaller
) -> np.ndarray:  # float64 (n,), sums to 1
    """PageRank by power iteration, https://doi.org/10.1016/S0169-7552(98)00110-X

    The rank of a listing without links is spread evenly over all listings.
    """
    n = graph.shape[0]
    outgoing = np.asarray(graph.sum(1)).ravel()
    transition = sparse.diags(np.divide(1., outgoing, out=np.zeros(n), where=outgoing > 0)) @ graph
    without_links = outgoing <= 0
    rank = np.full(n, 1 / n)
    for _ in range(1000):
        rank_before = rank
        rank = damping * (transition.T @ rank + rank[without_links].sum() / n) + (1 - damping) / n
        if np.abs(rank - rank_before).sum() < tol: break
    return rank
