"Which predictions are sure enough to be taken for labels: by confidence, margin, or a quota for each class."
from dataclasses import dataclass

import numpy as np

from ..core import InputError


class Keep:
    """A rule that says which predictions become labels. A subclass implements `cutoffs`, what it finds in the
    predictions, and `above`, which of them, or of others, pass.

    Two rules are joined by `&`: the second one then sees what the first has kept.
    """
    def cutoffs(
        self,
        probabilities: np.ndarray,  # (n,c)
    ):
        "What predictions have to reach; None where the rule itself says it."
        return None

    def above(
        self,
        probabilities: np.ndarray,  # (n,c), of the same items or of others
        cutoffs,  # From `cutoffs`
    ) -> np.ndarray:  # bool (n,)
        "Which predictions reach them."
        raise NotImplementedError

    def kept(
        self,
        probabilities: np.ndarray,  # (n,c)
    ) -> np.ndarray:  # bool (n,)
        "Which of some predictions become labels."
        return self.above(probabilities, self.cutoffs(probabilities))

    def __and__(self, other): return Both(self, other)


@dataclass(frozen=True)
class Everything(Keep):
    "Keep all: for soft labels, which say themselves how sure they are."
    def above(self, probabilities, cutoffs): return np.ones(len(probabilities), bool)


@dataclass(frozen=True)
class Confidence(Keep):
    "Keep predictions whose likeliest class has at least this probability."
    least: float = .9  # 0 to 1

    def __post_init__(self): _check_share('least', self.least)
    def above(self, probabilities, cutoffs): return probabilities.max(1) >= self.least


@dataclass(frozen=True)
class Margin(Keep):
    "Keep predictions whose likeliest class is this far above the second: a measure of doubt between two."
    least: float = .5  # 0 to 1

    def __post_init__(self): _check_share('least', self.least)
    def above(self, probabilities, cutoffs): return margins(probabilities) >= self.least


@dataclass(frozen=True)
class Quota(Keep):
    """Keep the surest predictions of each class, so many of them, so that a frequent class doesn't crowd out
    the others. Equally sure ones at the limit are kept all."""
    most: int | None = None  # Of a class; None: by `share`
    share: float | None = None  # Of the predictions of each class, rounded up, above 0, at most 1

    def __post_init__(self):
        if (self.most is None) == (self.share is None):
            raise InputError(f'most={self.most}, share={self.share}: give one of them')
        if self.most is not None and self.most < 1: raise InputError(f'most={self.most}: 1 or more')
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(f'share={self.share}: above 0, at most 1')

    def cutoffs(self, probabilities):
        "The least probability that is kept of each class, float (c,); infinite where none is predicted."
        likeliest = probabilities.argmax(1)
        cutoffs = np.full(probabilities.shape[1], np.inf)
        for number in np.unique(likeliest):
            of_class = np.sort(probabilities[likeliest == number, number])[::-1]
            n_kept = self.most or int(np.ceil(self.share * len(of_class)))
            cutoffs[number] = of_class[min(n_kept, len(of_class)) - 1]
        return cutoffs

    def above(self, probabilities, cutoffs): return probabilities.max(1) >= cutoffs[probabilities.argmax(1)]


@dataclass(frozen=True)
class Both(Keep):
    "What the second rule keeps of what the first has kept; made by `Confidence(.8) & Quota(50)`."
    first: Keep
    second: Keep

    def cutoffs(self, probabilities):
        of_first = self.first.cutoffs(probabilities)
        kept = probabilities[self.first.above(probabilities, of_first)]
        return of_first, self.second.cutoffs(kept)

    def above(self, probabilities, cutoffs):
        of_first, of_second = cutoffs
        return self.first.above(probabilities, of_first) & self.second.above(probabilities, of_second)


def margins(
    probabilities: np.ndarray,  # (n,c), c >= 2
) -> np.ndarray:  # (n,)
    "How far the likeliest class of each item is above the second."
    two_best = np.sort(probabilities, 1)[:, -2:]
    return two_best[:, 1] - two_best[:, 0]


def _check_share(option, value):
    if not 0 <= value <= 1: raise InputError(f'{option}={value}: from 0 to 1')
