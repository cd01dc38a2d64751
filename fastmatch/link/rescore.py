"""Close pairs of two tables, read again by a cross-encoder; and a pair model taught by it.

A pair model weighs similarities; a cross-encoder reads both texts word by word, at some milliseconds a pair.
So it is asked about the pairs alone whose probability leaves room for doubt.

Measure before you pay for it: on Abt-Buy, Amazon-Google and Walmart-Amazon, one seed each, MiniLM took the F1
of the test pairs from 95.1, 82.0 and 89.2 to 94.8, 82.0 and 89.0, and that of labelled pairs that it did not
see from 95.0, 77.5 and 88.7 to 95.0, 79.0 and 88.7; alone it reached 75, 66 and 58 on the test pairs. It read
64 tokens of each pair, less than those of the first and the last have (tests/bench/cross_encoder.py).
"""
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core import InputError, require_package
from ..models.cross import CrossEncoder
from ..store import read_manifest, seal, write_atomically

FORMAT = 1  # raised with every change that older code can't read
MANIFEST = 'close_scores.json'
LOW, HIGH = .02, .98  # probabilities between which a pair is close
HARD = 2  # pairs that do not match for each that does, the likeliest first: what a cross-encoder learns from
FOLDS = 2  # parts of the left listings: pairs teach the weights with scores of cross-encoders that saw none
# of their listing's
SURE = 1e-4  # probabilities are kept this far from 0 and 1, so that their log-odds stay finite
LEAST = 20  # close pairs that match, and that do not, which the weights are learned from


@dataclass
class Rereading:
    """A pair model whose close pairs a cross-encoder reads again, both to be learned from labelled pairs.

    On the test pairs of three pairs of shops, with one seed each, it added nothing to pair F1 (0 to -.3), and
    distilled -.7 to +.1: see `nbs/cross_encoder.csv`.
    """
    cross_encoder: CrossEncoder  # Not fitted
    classifier: object = None  # Of the pair model, any of scikit-learn's; None: boosted trees
    # Teach the pair model what both together say of unlabelled close pairs: slower to learn, and no
    # transformer is asked when it is used
    distil: bool = False
    options: dict = field(default_factory=dict)  # Of the cross-encoder's `fit`: {'epochs': 6}

    def __post_init__(self):
        if not callable(getattr(self.cross_encoder, 'unfitted', None)):
            raise InputError(f'cross_encoder={self.cross_encoder!r}: give a CrossEncoder')


@dataclass
class CloseScores:
    """How the probability of a close pair comes of two others: log-odds = `weights` by (1, log-odds of the
    pair model, log-odds of the cross-encoder)."""
    cross_encoder: CrossEncoder  # Fitted; or another object with `scores(first_texts, second_texts)`
    weights: tuple  # Three numbers
    low: float = LOW  # Pairs of this probability or more are close ...
    high: float = HIGH  # ... up to this one

    def is_close(
        self,
        probabilities: np.ndarray,  # float (m,), of the pair model
    ) -> np.ndarray:  # bool (m,)
        "Which pairs are read again."
        return (probabilities >= self.low) & (probabilities <= self.high)

    def rescored(
        self,
        probabilities: np.ndarray,  # float32 (m,), of the pair model
        texts_of,  # Function of int (c,), places in `probabilities`: c first texts, c second ones
    ) -> np.ndarray:  # float32 (m,)
        """The probabilities, those of close pairs weighed with the cross-encoder's; all others as they are,
        and those of pairs that lack a text."""
        close = np.flatnonzero(self.is_close(probabilities))
        first, second = texts_of(close)
        has_texts = np.array([bool(one and other) for one, other in zip(first, second)], bool)
        close = close[has_texts]
        rescored = np.array(probabilities, np.float32)
        if not len(close): return rescored
        read = self.cross_encoder.scores(*texts_of(close))
        rescored[close] = weighed(self.weights, probabilities[close], read)
        return rescored

    def save(
        self,
        path,  # Folder; an earlier one is replaced
    ):
        "Save without pickle: the cross-encoder's files, and the weights beside them."
        self.cross_encoder.save(path)
        write_atomically(Path(path)/MANIFEST, seal({
            'format': FORMAT, 'weights': list(self.weights), 'low': self.low, 'high': self.high,
            'fingerprint': self.cross_encoder.fingerprint}))

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
        device: str = 'cpu',  # Where the cross-encoder runs
    ) -> 'CloseScores':
        "What `save` wrote, after its hashes were checked."
        content = read_manifest(path, MANIFEST, FORMAT)
        cross_encoder = CrossEncoder.load(path, device)
        if cross_encoder.fingerprint != content['fingerprint']:
            raise InputError(f'{path}: its weights belong to another cross-encoder than the one in it')
        return cls(cross_encoder, tuple(content['weights']), content['low'], content['high'])


def weighed(
    weights: tuple,  # Three numbers, see `CloseScores`
    probabilities: np.ndarray,  # float (m,), of the pair model
    read: np.ndarray,  # float (m,), of the cross-encoder
) -> np.ndarray:  # float64 (m,)
    "One probability of two."
    total = weights[0] + weights[1] * log_odds(probabilities) + weights[2] * log_odds(read)
    return 1 / (1 + np.exp(-total))


def log_odds(
    probabilities: np.ndarray,  # float (m,)
) -> np.ndarray:  # float64 (m,)
    "The logarithm of the odds, finite also for 0 and 1."
    bounded = np.clip(np.asarray(probabilities, np.float64), SURE, 1 - SURE)
    return np.log(bounded / (1 - bounded))


def hard_pairs(
    probabilities: np.ndarray,  # float (m,), by models that did not see the pair's left listing
    same: np.ndarray,  # bool (m,)
    hard: float = HARD,  # Pairs that do not match, for each that does
) -> np.ndarray:  # int, rising
    "The pairs that a cross-encoder learns from: all that match, and the likeliest of the others."
    different = np.flatnonzero(~same)
    likeliest = different[np.argsort(-probabilities[different], kind='stable')]
    return np.sort(np.concatenate([np.flatnonzero(same), likeliest[:int(hard * same.sum())]]))


def unseen_scores(
    cross_encoder,  # Not fitted: `unfitted`, `fit` and `scores` as those of `CrossEncoder`
    first,  # m texts
    second,  # m texts
    same: np.ndarray,  # bool (m,)
    learned: np.ndarray,  # int, the pairs to learn from
    parts: np.ndarray,  # int (m,), from 0
    scored: np.ndarray,  # bool (m,), the pairs whose scores are wanted
    **fit,  # Options of `fit`
) -> np.ndarray:  # float32 (m,), NaN for the others
    "The scores of pairs by cross-encoders that learned from the other parts."
    def take(texts, rows): return [texts[row] for row in rows]
    scores = np.full(len(same), np.nan, np.float32)
    for part in range(parts.max() + 1):
        wanted = np.flatnonzero(scored & (parts == part))
        if not len(wanted): continue
        rows = learned[parts[learned] != part]
        fitted = cross_encoder.unfitted().fit(take(first, rows), take(second, rows), same[rows], **fit)
        scores[wanted] = fitted.scores(take(first, wanted), take(second, wanted))
    return scores


def fitted_weights(
    probabilities: np.ndarray,  # float (m,), of pair models that saw none of the pair's listing
    read: np.ndarray,  # float (m,), of cross-encoders that saw none of it
    same: np.ndarray,  # bool (m,)
) -> tuple:  # Three numbers, see `CloseScores`
    "The weights of both log-odds by logistic regression; the pair model's alone where there is too little."
    if min(same.sum(), (~same).sum()) < LEAST: return 0., 1., 0.
    linear_model = require_package('sklearn.linear_model', 'rescoring close pairs', 'scikit-learn')
    table = np.stack([log_odds(probabilities), log_odds(read)], 1)
    fitted = linear_model.LogisticRegression().fit(table, same)
    return float(fitted.intercept_[0]), *(float(weight) for weight in fitted.coef_[0])


def learn_close(
    cross_encoder,  # Not fitted, as for `unseen_scores`
    first,  # m texts of labelled pairs, '' where there is none
    second,  # m texts
    same: np.ndarray,  # bool (m,)
    probabilities: np.ndarray,  # float (m,), by pair models that saw none of the pair's left listing
    parts: np.ndarray,  # int (m,), pairs of a left listing in one part
    **fit,  # Options of `fit`
) -> tuple:  # `CloseScores`; float32 (m,)
    """Fit cross-encoder and weights to labelled pairs; the rescored probabilities come from cross-encoders
    and weights that saw none of the pair's left listing."""
    if not callable(getattr(cross_encoder, 'fit', None)) or not hasattr(cross_encoder, 'unfitted'):
        raise InputError(f'cross_encoder={cross_encoder!r}: give a CrossEncoder')
    has_texts = np.array([bool(one and other) for one, other in zip(first, second)], bool)
    learned = hard_pairs(probabilities, same)
    learned = learned[has_texts[learned]]
    close = (probabilities >= LOW) & (probabilities <= HIGH) & has_texts
    halves = parts % FOLDS
    read = unseen_scores(cross_encoder, first, second, same, learned, halves, close, **fit)
    rescored = np.array(probabilities, np.float32)
    for half in range(FOLDS):
        own, others = close & (halves == half), close & (halves != half)
        weights = fitted_weights(probabilities[others], read[others], same[others])
        rescored[own] = weighed(weights, probabilities[own], read[own])
    fitted = cross_encoder.unfitted().fit([first[row] for row in learned], [second[row] for row in learned],
                                          same[learned], **fit)
    return CloseScores(fitted, fitted_weights(probabilities[close], read[close], same[close])), rescored
