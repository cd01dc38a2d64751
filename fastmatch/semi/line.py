"The place on a line of scores at which macro-F1 is best, found exactly: between two changes of a prediction."
from typing import NamedTuple

import numpy as np


class BestPlace(NamedTuple):
    "Where macro-F1 is best on a line."
    place: float  # Middle of the best stretch, the widest where several are as good
    macro_f1: float  # There


def changes_on_line(
    start: np.ndarray,  # float (n,c), scores of classes
    step: np.ndarray,  # float (n,c), added to them times the place
    low: float,  # First place
    high: float,  # Last place
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which class of `start + place * step` is largest, from `low` to `high`: (its number just behind `low`
    (n,), then for each change in the order of the places: place, row, new class).

    A row's largest score is the upper envelope of c lines, of which each is on top at most once.
    """
    rows = np.arange(len(start))
    leading = _steepest(start + low * step, step)
    first = leading.copy()
    places = np.full(len(start), float(low))
    found = []
    while len(rows):
        at_place = start[rows] + places[:, None] * step[rows]
        own = (np.arange(len(rows)), leading)
        gaps = np.maximum(at_place[own][:, None] - at_place, 0)
        gains = step[rows] - step[rows, leading][:, None]
        with np.errstate(divide='ignore', invalid='ignore'):
            distance = np.where(gains > 0, gaps / gains, np.inf)
        nearest = distance.min(1)
        is_on = places + nearest < high
        # of lines that meet in one point the steepest is on top behind it
        meets = (distance <= nearest[:, None])[is_on]
        rows, places = rows[is_on], (places + nearest)[is_on]
        leading = _steepest(np.where(meets, 0., -np.inf), step[rows])
        found.append((places, rows, leading))
    places, changed, classes = (np.concatenate(arrays) for arrays in zip(*found)) if found else (
        np.zeros(0), np.zeros(0, int), np.zeros(0, int))
    order = np.argsort(places, kind='stable')
    return first, places[order], changed[order], classes[order]


def _steepest(scores, step):
    "The column of each row's largest score; of equal ones that with the largest step, then the first."
    is_largest = scores == scores.max(1, keepdims=True)
    return np.where(is_largest, step, -np.inf).argmax(1)


class _Counts:
    "True positives and sizes of classes, and the sum of their F1, while predictions change one by one."
    def __init__(self, targets, predicted, n_classes):
        self.targets, self.predicted = targets, predicted.copy()
        self.true = np.bincount(targets, minlength=n_classes)
        self.said = np.bincount(predicted, minlength=n_classes)
        self.hits = np.bincount(targets[predicted == targets], minlength=n_classes)
        self.sizes = self.true + self.said
        self.total = float(np.sum(2 * self.hits / np.maximum(self.sizes, 1)))
        self.n_counted = int((self.sizes > 0).sum())

    def _f1(self, label): return 2 * self.hits[label] / self.sizes[label] if self.sizes[label] else 0.

    def change(self, row, label):
        before = self.predicted[row]
        for changed, by in ((before, -1), (label, 1)):
            self.total -= self._f1(changed)
            self.n_counted -= self.sizes[changed] > 0
            self.sizes[changed] += by
            if self.targets[row] == changed: self.hits[changed] += by
            self.total += self._f1(changed)
            self.n_counted += self.sizes[changed] > 0
        self.predicted[row] = label

    @property
    def macro_f1(self): return self.total / self.n_counted


def best_on_line(
    start: np.ndarray,  # float (n,c), scores of classes; the largest is the prediction
    step: np.ndarray,  # float (n,c), added to them times the place
    targets: np.ndarray,  # int (n,), true classes
    low: float = 0.,  # First place
    high: float = 1.,  # Last place
) -> BestPlace:
    """The place at which `start + place * step` has the best macro-F1: exact, every stretch is looked at.

    It costs about n * c for each class that is on top in a row, and constant time for each change.
    """
    start, step = np.asarray(start, np.float64), np.asarray(step, np.float64)
    first, places, rows, classes = changes_on_line(start, step, low, high)
    counts = _Counts(np.asarray(targets), first, start.shape[1])
    edges = [low, *places, high]
    best = (-1., 0.)
    place = low
    # rounding leaves stretches of no width between lines that meet in one point
    least_width = 1e-9 * (high - low)
    for number in range(len(places) + 1):
        if number: counts.change(rows[number - 1], classes[number - 1])
        width = edges[number + 1] - edges[number]
        if width <= least_width: continue
        # sums of floats in another order differ by rounding
        found = (round(counts.macro_f1, 12), width)
        if found > best: best, place = found, (edges[number] + edges[number + 1]) / 2
    return BestPlace(float(place), float(best[0]))
