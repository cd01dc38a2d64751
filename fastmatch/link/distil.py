"A pair model taught by another with a cross-encoder: what it is told of unlabelled pairs, it learns."
import numpy as np

from .candidates import TablePairs
from .learn import Learnt, Unseen, best_threshold, fitted, learned_parts

MOST = 20_000  # unlabelled close pairs that the teacher is asked about


def distilled(
    pairs: TablePairs,
    places: np.ndarray,  # int (m,), where the labelled pairs stand among the candidates
    same: np.ndarray,  # bool (m,), whether they match
    teacher: Learnt,  # With a cross-encoder
    texts_of,  # Function of places among the candidates: first texts, second texts
    *,
    classifier=None,  # Any of scikit-learn's that takes `sample_weight`; default `linking_trees`
    seed: int = 0,  # Of the parts, and of which pairs are asked about
    most: int = MOST,  # Unlabelled close pairs that the teacher is asked about
) -> Learnt:
    """A pair model of the labels and of the teacher's probabilities for unlabelled candidates that are close.

    No transformer is needed to use it. Threshold and figures come from models that saw no pair of the left
    listing that they score, labelled or not. Their teacher saw all labels, so the figures flatter a little:
    believe those of pairs that were kept back.
    """
    asked, soft = _taught(pairs, places, teacher, texts_of, seed, most)
    table = pairs.pairs.features
    features, soft_features = table[places], table[asked]
    listings = pairs.left[places]
    parts = learned_parts(listings, seed, same)
    part_of = dict(zip(listings.tolist(), parts.tolist()))
    soft_parts = np.array([part_of.get(listing, -1) for listing in pairs.left[asked].tolist()], np.int64)

    def taught(rows, soft_rows):
        model = fitted(pairs, features[rows], same[rows], classifier, seed)
        if len(soft_rows):
            model.fit_soft(np.concatenate([features[rows], soft_features[soft_rows]]),
                           np.concatenate([same[rows], soft[soft_rows]]))
        return model
    unseen = np.empty(len(same))
    for part in range(parts.max() + 1):
        own = parts == part
        model = taught(np.flatnonzero(~own), np.flatnonzero(soft_parts != part))
        unseen[own] = model.probabilities(features[own])
    threshold = best_threshold(unseen, same)[0]
    likely = np.zeros(len(same), bool)
    for part in range(parts.max() + 1):
        own = parts == part
        likely[own] = unseen[own] >= best_threshold(unseen[~own], same[~own])[0]
    model = taught(np.arange(len(same)), np.arange(len(asked)))
    return Learnt(model, threshold, unseen=Unseen(places, same, unseen, likely))


def _taught(pairs, places, teacher, texts_of, seed, most):
    "Places of unlabelled close pairs, and what the teacher says of them."
    probabilities = pairs.pairs.probabilities(teacher.model)
    is_close = teacher.close.is_close(probabilities)
    is_close[places] = False
    asked = np.random.default_rng(seed).permutation(np.flatnonzero(is_close))[:most]
    asked.sort()
    return asked, teacher.close.rescored(probabilities[asked], lambda rows: texts_of(asked[rows]))
