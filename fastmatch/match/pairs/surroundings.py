"Where a listing lies among the others: ranks of its candidates, how crowded it is there, how central."
import numpy as np

from ..candidates import Candidates
from .graph import graph_of, modalities_of, pagerank

QUANTILES = (.25, .5, .75)  # of the nearest others' scores: the radii that neighbors are counted within


class Surroundings:
    """What the features of pairs look up on both sides of a pair, made once for all listings of the pool.

    Features of listings are arrays (n,) by name: 'image within 0', 'image top mean', 'pagerank'.
    """
    def __init__(
        self,
        candidates: Candidates,  # Of a self-join
        use,  # Some of `FEATURES`
        radii: dict | None,  # Modality -> radii, for 'density'
        top: int,  # Nearest others whose mean and deviation are taken, for 'top'
    ):
        self.real = candidates.ids >= 0  # bool (n,K), candidates other than the listing itself
        self.real[:, 0] = False
        self.counts = self.real.sum(1)
        self.ranks = {}  # modality -> int32 (n,K)
        self.by_modality = {}  # modality -> features of listings
        for modality in modalities_of(candidates):
            scores = candidates.scores[modality]
            # an unknown similarity is no neighbor
            if np.isnan(scores).any(): scores = np.where(np.isnan(scores), -np.inf, scores)
            features = {}
            if 'rank' in use: self.ranks[modality] = tied_ranks(scores, self.real).astype(np.int32)
            if 'density' in use:
                for radius_number, radius in enumerate(radii[modality]):
                    is_within = self.real & (scores >= radius)
                    features[f'{modality} within {radius_number}'] = is_within.sum(1)
            if 'top' in use:
                means, deviations = top_moments(scores, self.real, top)
                features |= {f'{modality} top mean': means, f'{modality} top deviation': deviations}
            self.by_modality[modality] = features
        self.overall = {}  # features of listings that no modality gives alone
        if 'pagerank' in use:
            listing_graph = graph_of(candidates, *np.nonzero(self.real))
            self.overall['pagerank'] = len(self.real) * pagerank(listing_graph)


def radii_of(
    candidates: Candidates,  # Of a self-join
) -> dict:  # Modality -> floats
    "Radii (scores) to count neighbors within: quantiles of the scores of each listing's nearest other."
    radii = {}
    for modality in modalities_of(candidates):
        best_scores = np.fmax.reduce(candidates.scores[modality][:, 1:], axis=1, initial=-np.inf)
        best_scores = best_scores[best_scores > -np.inf]
        if len(best_scores): radii[modality] = np.quantile(best_scores, QUANTILES).astype(np.float32).tolist()
        else: radii[modality] = [0.] * len(QUANTILES)
    return radii


def tied_ranks(
    scores: np.ndarray,  # (n,K)
    real: np.ndarray,  # bool (n,K), which count
) -> np.ndarray:  # int (n,K)
    "1 + the number of better ones in the row: equal scores share the better rank."
    scores = np.where(real, scores, -np.inf)
    best_first = np.argsort(-scores, axis=1, kind='stable')
    sorted_scores = np.take_along_axis(scores, best_first, 1)
    first_of_equal = np.zeros(scores.shape, np.int64)
    is_lower = sorted_scores[:, 1:] != sorted_scores[:, :-1]
    first_of_equal[:, 1:] = np.where(is_lower, np.arange(1, scores.shape[1]), 0)
    ranks = np.empty_like(first_of_equal)
    np.put_along_axis(ranks, best_first, np.maximum.accumulate(first_of_equal, axis=1) + 1, 1)
    return ranks


def top_moments(
    scores: np.ndarray,  # (n,K)
    real: np.ndarray,  # bool (n,K), which count
    top: int,  # How many of the best
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each; 0 for a row without any
    "Mean and deviation of the `top` best scores of each row, of fewer where it has fewer."
    best_scores = -np.sort(-np.where(real, scores, -np.inf).astype(np.float64), axis=1)[:, :top]
    is_real = best_scores > -np.inf
    counts = np.maximum(is_real.sum(1), 1)
    means = np.where(is_real, best_scores, 0).sum(1) / counts
    return means, np.sqrt((np.where(is_real, best_scores - means[:, None], 0)**2).sum(1) / counts)
