"A pair model for two tables: from labelled pairs, or from the tables themselves."
from dataclasses import dataclass, field

import numpy as np

from ..core import InputError, require_package
from ..match.pairs.model import PairModel
from .assign import assigned
from .candidates import TablePairs
from .rescore import CloseScores

FOLDS = 5  # parts of the left listings: pairs are judged by models that saw none of their listing's
BOOTSTRAPS = 1_000
SURE = .5  # share of the mutual nearest pairs, by their margin, that stand for matches where none are known
ROUNDS = 2  # times that a model learns from what the one before it matched
MOST_DIFFERENT = 50  # pairs that don't match, for each that does, where a model learns from the tables
EVEN = .5  # probability from which a pair matches where no labels say better


def linking_trees():
    """The classifier of labelled pairs: 300 boosted trees of 15 leaves, a third of the features a split.

    Chosen among three on the validation pairs of Abt-Buy, Amazon-Google and Walmart-Amazon; the smaller trees
    of `PairModel` are as good on the first and a point lower on the others.
    """
    ensemble = require_package('sklearn.ensemble', 'matching tables', 'scikit-learn')
    return ensemble.HistGradientBoostingClassifier(
        max_iter=300, learning_rate=.05, max_leaf_nodes=15, min_samples_leaf=15, l2_regularization=3.,
        max_features=.3, early_stopping=False, random_state=0)


@dataclass
class Learnt:
    "A pair model with its threshold, and how it was come by."
    model: PairModel
    threshold: float  # Pairs of this probability or more match
    # What it is worth: 'pair_f1', 'low', 'high', ... on pairs it did not see; empty: unknown
    figures: dict = field(default_factory=dict)
    unseen: 'Unseen | None' = None  # The labelled pairs, by models that did not see them; None without labels
    close: CloseScores | None = None  # Reads close pairs again; None: what the model says counts

    def set_threshold(
        self,
        threshold: float,  # Probability from which a pair matches
    ):
        "Take another threshold than the one that was chosen."
        self.threshold = float(threshold)
        if self.unseen is not None: self.unseen.likely = self.unseen.probabilities >= self.threshold

    def probabilities(
        self,
        pairs: TablePairs,
        texts_of=None,  # Function of places among the candidates: first texts, second texts
    ) -> np.ndarray:  # float32 (p,)
        "The probability of each candidate pair."
        probabilities = pairs.pairs.probabilities(self.model)
        return probabilities if self.close is None else self.close.rescored(probabilities, texts_of)


@dataclass
class Unseen:
    "Labelled pairs as models say that saw no pair of their left listing."
    places: np.ndarray  # int (m,), where they stand among the candidates
    same: np.ndarray  # bool (m,), whether they match
    probabilities: np.ndarray  # float (m,)
    likely: np.ndarray  # bool (m,), whether they reach the threshold that the other parts chose


def learn_from_labels(
    pairs: TablePairs,
    places: np.ndarray,  # int (m,), where the labelled pairs stand among the candidates
    same: np.ndarray,  # bool (m,), whether they match
    classifier=None,  # Any of scikit-learn's; default `linking_trees`
    seed: int = 0,  # Of the parts
    # Function of (unseen probabilities, parts) of the labelled pairs that learns to read close ones again,
    # and gives `CloseScores` and the rescored probabilities; None: no cross-encoder
    reread=None,
) -> Learnt:
    """Fit a pair model to labelled pairs; the threshold comes from models that saw no pair of the left
    listing that they score."""
    listings = pairs.left[places]
    n_matched = len(np.unique(listings[same]))
    if n_matched < 2 or len(np.unique(listings[~same])) < 2:
        raise InputError(f'known: {same.sum()} of {len(same)} pairs match: pairs that match and pairs that '
                         'do not, of two left listings at least, are needed to learn from')
    features = pairs.pairs.features_at(places)
    parts = learned_parts(listings, seed, same)
    probabilities = np.empty(len(same))
    for part in range(parts.max() + 1):
        in_part = parts == part
        learnt = fitted(pairs, features[~in_part], same[~in_part], classifier, seed)
        probabilities[in_part] = learnt.probabilities(features[in_part])
    close = None
    if reread is not None: close, probabilities = reread(probabilities, parts)
    threshold, _ = best_threshold(probabilities, same)
    likely = np.zeros(len(same), bool)
    for part in range(parts.max() + 1):
        in_part = parts == part
        likely[in_part] = probabilities[in_part] >= best_threshold(probabilities[~in_part], same[~in_part])[0]
    model = fitted(pairs, features, same, classifier, seed)
    return Learnt(model, threshold, unseen=Unseen(places, same, probabilities, likely), close=close)


def learn_from_tables(
    pairs: TablePairs,
    seed: int = 0,  # Of the parts
) -> Learnt:
    """Fit a pair model without labels: pairs that are each other's nearest by a wide margin stand for
    matches, all other pairs of their listings for different products; then once more from what that model
    matches, one to one.

    What it is worth can't be known without labels.
    """
    if not len(pairs):
        raise InputError('no pair of the two tables is a candidate: their columns have nothing in common')
    scores = pairs.pairs.candidates.scores['fused'][pairs.pairs.rows, pairs.pairs.columns]
    is_match = _sure_pairs(pairs, scores)
    if is_match.sum() < 2:
        raise InputError(f"{is_match.sum()} pairs are each other's nearest: too few to learn from; label "
                         'some pairs, known=DataFrame of left_id, right_id, label')
    for round_number in range(ROUNDS):
        probabilities, model = _self_trained(pairs, is_match, seed + round_number)
        matched = (probabilities >= EVEN) & assigned(pairs.left, pairs.right, probabilities)
        # what a model of few pairs matches may be nothing
        if matched.sum() < is_match.sum(): break
        is_match = matched
    return Learnt(model, EVEN)


def fitted(pairs, features, same, classifier=None, seed=0):
    "A pair model of these pairs' features, fitted."
    from sklearn.base import clone
    classifier = linking_trees() if classifier is None else clone(classifier)
    if 'random_state' in classifier.get_params(): classifier.set_params(random_state=seed)
    model = PairModel(classifier, list(pairs.pairs.used), names=pairs.pairs.names, radii=pairs.pairs.radii)
    model.fit_pairs(features, same)
    return model


def _self_trained(pairs, is_match, seed):
    "The probability of each pair by a model that saw no pair of its left listing, and a model of all."
    features = pairs.pairs.features
    of_matched = np.isin(pairs.left, pairs.left[is_match]) | np.isin(pairs.right, pairs.right[is_match])
    rng = np.random.default_rng(seed)
    different = rng.permutation(np.flatnonzero(of_matched & ~is_match))[:MOST_DIFFERENT * is_match.sum()]
    learnt = np.sort(np.concatenate([np.flatnonzero(is_match), different]))
    if not len(different):
        raise InputError(f'{len(pairs)} candidate pairs, and all seem to match: too few to learn from; label'
                         ' some pairs, known=DataFrame of left_id, right_id, label')
    parts = learned_parts(pairs.left, seed, is_match)
    probabilities = np.empty(len(pairs))
    for part in range(parts.max() + 1):
        in_part = parts == part
        rows = learnt[~in_part[learnt]]
        if len(np.unique(is_match[rows])) < 2: rows = learnt
        probabilities[in_part] = fitted(pairs, features[rows], is_match[rows], seed=seed).probabilities(
            features[in_part])
    return probabilities, fitted(pairs, features[learnt], is_match[learnt], seed=seed)


def _sure_pairs(pairs, scores):
    "The pairs that are each other's nearest, those with the widest margin to the next: bool (p,)."
    margins = np.minimum(_margin(pairs.left, scores), _margin(pairs.right, scores))
    mutual = np.flatnonzero(margins > 0)
    widest = mutual[np.argsort(-margins[mutual], kind='stable')][:max(2, int(SURE * len(mutual)))]
    sure = np.zeros(len(scores), bool)
    sure[widest] = True
    return sure


def _margin(listings, scores):
    "How far each pair's score is above the best other one of the listing; below 0 where it is not the best."
    order = np.lexsort((-scores, listings))
    is_first = np.append(True, listings[order][1:] != listings[order][:-1])
    best = np.full(listings.max() + 1, -np.inf)
    second = np.full(listings.max() + 1, 0., np.float64)
    best[listings[order][is_first]] = scores[order][is_first]
    is_second = np.append(False, is_first[:-1]) & ~is_first
    second[listings[order][is_second]] = scores[order][is_second]
    is_best = np.zeros(len(scores), bool)
    is_best[order[is_first]] = True
    return np.where(is_best, scores - second[listings], scores - best[listings])


def learned_parts(
    listings: np.ndarray,  # int (m,), the left listing of each pair
    seed: int,  # Of the draw
    same: np.ndarray,  # bool (m,), whether each pair matches
) -> np.ndarray:  # int (m,), from 0
    "A part for each pair: all pairs of a left listing in one, those with a match dealt out evenly."
    distinct, codes = np.unique(listings, return_inverse=True)
    has_match = np.bincount(codes, same) > 0
    shuffled = np.random.default_rng(seed).permutation(len(distinct))
    shuffled = np.concatenate([shuffled[has_match[shuffled]], shuffled[~has_match[shuffled]]])
    folds = min(FOLDS, max(2, has_match.sum()))
    part_of_listing = np.empty(len(distinct), int)
    part_of_listing[shuffled] = np.arange(len(distinct)) % folds
    return part_of_listing[codes]


def best_threshold(
    probabilities: np.ndarray,  # float (m,)
    same: np.ndarray,  # bool (m,)
) -> tuple:  # (threshold, its F1)
    "The threshold with the best F1 of these pairs, halfway to the next lower probability."
    order = np.argsort(-probabilities, kind='stable')
    sorted_probabilities = probabilities[order]
    f1 = 2 * np.cumsum(same[order]) / (np.arange(1, len(same) + 1) + max(1, same.sum()))
    # equal probabilities are on one side
    is_last = np.append(sorted_probabilities[1:] != sorted_probabilities[:-1], True)
    place = int(np.where(is_last, f1, -1).argmax())
    below = sorted_probabilities[place + 1] if place + 1 < len(order) else 0.
    return float((sorted_probabilities[place] + below) / 2), float(f1[place])


def figures_as_used(
    pairs: TablePairs,
    learnt: Learnt,  # From labels
    probabilities: np.ndarray,  # float (p,), of all candidate pairs by its model
    how: str,  # How many partners a listing may have, as for `assigned`
    seed: int = 0,  # Of the draws
) -> dict:
    """What a user gets, on the labelled pairs: each of them by a model that did not see it, all others by the
    model itself, and partners given as they are in use."""
    unseen = learnt.unseen
    of_all = probabilities.astype(np.float64)
    is_likely = of_all >= learnt.threshold
    of_all[unseen.places], is_likely[unseen.places] = unseen.probabilities, unseen.likely
    likely = np.flatnonzero(is_likely)
    is_match = np.zeros(len(pairs), bool)
    is_match[likely[assigned(pairs.left[likely], pairs.right[likely], of_all[likely], how)]] = True
    return pair_figures(is_match[unseen.places], unseen.same, pairs.left[unseen.places], seed)


def pair_figures(
    chosen: np.ndarray,  # bool (m,), pairs that were predicted to match
    same: np.ndarray,  # bool (m,), pairs that do
    listings: np.ndarray,  # int (m,), the left listing of each, drawn together
    seed: int = 0,  # Of the draws
) -> dict:
    "Pair F1, precision and recall, with a 95% interval of F1 over listings drawn anew."
    codes = np.unique(listings, return_inverse=True)[1]
    counts = np.stack([np.bincount(codes, weights) for weights in (chosen & same, chosen, same)])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, counts.shape[1], (BOOTSTRAPS, counts.shape[1]))
    right, predicted, true = counts[:, drawn].sum(2)
    low, high = np.quantile(2 * right / np.maximum(predicted + true, 1), [.025, .975])
    right, predicted, true = counts.sum(1)
    return {'pair_f1': round(float(2 * right / max(predicted + true, 1)), 5), 'low': round(float(low), 5),
            'high': round(float(high), 5), 'precision': round(float(right / max(predicted, 1)), 5),
            'recall': round(float(right / max(true, 1)), 5), 'pairs': len(same), 'matches': int(true)}
