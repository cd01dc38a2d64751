"What every search for thresholds offers: the best thresholds on some rows, and the row F1 of each row under given ones."
from abc import ABC, abstractmethod

import numpy as np

from ..neighbors import Neighbors


class ThresholdSearch(ABC):
    "Finds the thresholds with the best mean row F1; `heldout` takes one wherever it takes neighbors."
    neighbors: Neighbors  # Of a self-join: what recall and precision are measured on

    @abstractmethod
    def best(
        self,
        rows=None,  # bool (n,), the rows whose mean row F1 counts; default all
    ) -> tuple:  # (threshold or thresholds, mean row F1)
        "The thresholds with the best mean row F1 over `rows`."

    @abstractmethod
    def at(
        self,
        threshold,  # As `best` gives it
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row under these thresholds."
