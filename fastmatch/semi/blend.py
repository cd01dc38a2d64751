"Several ways' probabilities as one: their weighted mean, or that of their logarithms, and the best weights."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from ..matcher.several import checked_weights
from .line import best_on_line
from .out_of_fold import OutOfFold, aligned, cross_fitted, log_probabilities, normalized

HOWS = 'probabilities', 'logits'
METRICS = 'log_loss', 'macro_f1'
MOST_ROUNDS = 20  # over all weights, of the search for macro-F1


def check_choice(
    given: str,
    known: tuple,  # Values that there are
    option: str,  # For the message
):
    "Raise `InputError` for a value that there isn't."
    if given not in known: raise InputError(f'{option}={given!r}: choose one of {known}')


def blend_probabilities(
    parts: list,  # Of each way: probabilities (n,c)
    weights=None,  # One for each way, 0 or more; default equal
    how: str = 'probabilities',  # 'probabilities', or 'logits': the mean of their logarithms, normalized
) -> np.ndarray:  # float64 (n,c), rows of sum 1
    "The weighted mean of several ways' probabilities, or of their logarithms."
    check_choice(how, HOWS, 'how')
    shares = checked_weights(weights, len(parts))
    if how == 'logits': return normalized(sum(share * log_probabilities(part)
                                              for share, part in zip(shares, parts)))
    return sum(share * np.asarray(part, np.float64) for share, part in zip(shares, parts))


def best_weights(
    parts: list,  # Of each way: probabilities (n,c)
    targets: np.ndarray,  # int (n,)
    how: str = 'probabilities',  # As for `blend_probabilities`
    metric: str = 'log_loss',  # 'log_loss' or 'macro_f1'
) -> np.ndarray:  # float64 (k,), 0 or more, of sum 1
    """The weights with the best log loss or macro-F1 on these very rows.

    Log loss is convex in the weights: its minimum is the only one. Macro-F1 jumps: each weight in turn is set
    to its exact best until none changes, from equal weights on; with two ways that is the best of all.
    """
    check_choice(how, HOWS, 'how')
    check_choice(metric, METRICS, 'metric')
    if len(parts) == 1: return np.ones(1)
    scores = np.stack([log_probabilities(part) if how == 'logits' else np.asarray(part, np.float64)
                       for part in parts])
    return _by_log_loss(scores, targets, how) if metric == 'log_loss' else _by_macro_f1(scores, targets)


def _by_log_loss(scores, targets, how):
    from scipy.optimize import minimize
    rows = np.arange(len(targets))
    of_truth = scores[:, rows, targets]

    def loss(weights):
        if how == 'probabilities':
            mixed = np.maximum(weights @ of_truth, 1e-12)
            return -np.log(mixed).mean(), -(of_truth / mixed).mean(1)
        logits = np.tensordot(weights, scores, 1)
        most = logits.max(1, keepdims=True)
        sums = np.exp(logits - most).sum(1, keepdims=True)
        expected = (scores * (np.exp(logits - most) / sums)).sum(2)
        value = (np.log(sums[:, 0]) + most[:, 0] - weights @ of_truth).mean()
        return value, (expected - of_truth).mean(1)

    n_ways = len(scores)
    found = minimize(loss, np.full(n_ways, 1 / n_ways), jac=True, method='SLSQP', bounds=[(0, 1)] * n_ways,
                     constraints={'type': 'eq', 'fun': lambda weights: weights.sum() - 1,
                                  'jac': lambda weights: np.ones(n_ways)},
                     options={'ftol': 1e-12, 'maxiter': 500})
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def _by_macro_f1(scores, targets):
    n_ways = len(scores)
    weights, best = np.full(n_ways, 1 / n_ways), -1.
    for _ in range(MOST_ROUNDS):
        before = best
        for way in range(n_ways):
            rest = np.delete(weights, way)
            # all weight is on this way: the others come in alike
            rest = rest / rest.sum() if rest.sum() > 0 else np.full(n_ways - 1, 1 / (n_ways - 1))
            others = np.tensordot(rest, np.delete(scores, way, 0), 1)
            place, macro_f1 = best_on_line(others, scores[way] - others, targets)
            if macro_f1 <= best: continue
            best = macro_f1
            weights = np.insert(rest * (1 - place), way, place)
        if best == before: break
    return weights


@dataclass
class Blend:
    "Weights of several ways, and what their choice is worth."
    weights: np.ndarray  # float64 (k,), of sum 1, chosen on all rows
    how: str  # As for `blend_probabilities`
    chosen_on: OutOfFold  # Of the rows that the weights were chosen on: its scores are too good
    heldout: OutOfFold  # Each fold by weights that were chosen on the others: these scores are honest

    def __call__(
        self,
        parts: list,  # Of each way, in the order of the choice: probabilities (n,c) of new items
    ) -> np.ndarray:  # float64 (n,c)
        "The blended probabilities of new items."
        return blend_probabilities(parts, self.weights, self.how)


def find_blend(
    parts: list,  # `OutOfFold`s of the same items, one a way
    metric: str = 'log_loss',  # What the weights are chosen for: 'log_loss' or 'macro_f1'
    how: str = 'probabilities',  # Mean of 'probabilities' or of 'logits'
) -> Blend:
    "The best weights of several ways on predictions of held-out items, and their honest score."
    parts = aligned(parts)
    probabilities = [part.probabilities for part in parts]
    first = parts[0]

    def choose(rows):
        return best_weights([each[rows] for each in probabilities], first.targets[rows], how, metric)

    def choose_and_apply(rows, held_out):
        return blend_probabilities([each[held_out] for each in probabilities], choose(rows), how)
    weights = choose(np.arange(len(first)))
    return Blend(weights, how, first.with_probabilities(blend_probabilities(probabilities, weights, how)),
                 first.with_probabilities(cross_fitted(first.folds, choose_and_apply)))
