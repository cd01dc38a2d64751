"Which n-grams of a title are enough to find all that are similar enough: those that few titles have."
import numpy as np
from scipy import sparse


def rare_part(
    vectors: sparse.csr_matrix,  # (m, n-grams), titles to look up
    counts: np.ndarray,  # int (n-grams,), how many listings have each n-gram
    left_out: float,  # Length of what may be left out of each vector
) -> sparse.csr_matrix:  # (m, n-grams)
    """The vectors without their most frequent n-grams.

    What is left out has a length of `left_out` at most. This is the prefix filter of similarity joins
    (https://doi.org/10.1145/1242572.1242591), for weighted n-grams.
    """
    row_numbers = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    # the rarest of each title first
    order = np.lexsort((counts[vectors.indices], row_numbers))
    squares = vectors.data[order].astype(np.float64)**2
    up_to_here = np.cumsum(squares)
    ends = np.append(0., up_to_here)[vectors.indptr[1:]]
    from_here_on = ends[row_numbers] - up_to_here + squares
    kept = np.sort(order[from_here_on > left_out**2])
    starts = np.searchsorted(kept, vectors.indptr)
    return sparse.csr_matrix((vectors.data[kept], vectors.indices[kept], starts), vectors.shape)


def reached_without(
    left_out: float,  # As for `rare_part`
    least: float,  # A similarity, above `left_out`
) -> float:
    """The product that the rare part of a title has at least with every vector of unit length whose product
    with the whole title is `least` or more.

    The vector is at an angle of acos(least) at most to the title, and this at asin(left_out) to its rare
    part: the vector's angle to the rare part, whose length is cos(asin(left_out)), is at most their sum.
    """
    angle = np.arcsin(left_out)
    return float(np.cos(angle) * np.cos(min(np.pi, angle + np.arccos(min(least, 1.)))))
