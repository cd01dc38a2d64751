"""fastai metrics over a whole validation set of unseen groups: one search for all of them, and no matrix of
size n x n."""
import numpy as np
from fastai.learner import Metric
from fastai.metrics import AccumMetric
from sklearn.metrics import f1_score

from .core import InputError
from .match.judge.groups import Groups
from .match.judge.score import map_at_r, recall_at
from .match.neighbors import check_k
from .match.thresholds.sweep import best_threshold


class MatchMetric(Metric):
    """Base of metrics on the validation listings' nearest neighbors; a subclass sets `base_name` and gives
    `score`.

    One that is a mean over listings may give `row_scores` and `depth` instead: it is then searched as deep as
    it needs.
    """
    def __init__(
        self,
        # 'image', 'title' or 'joint'; None: the joint embedding, or else all side by side
        modality: str | None = None,
    ):
        self.modality = modality

    def reset(self): self.learn = None
    def accumulate(self, learn): self.learn = learn

    def depth(
        self,
        groups,  # (n,) group of each validation listing
    ) -> int:
        "How many neighbors `score` looks at, the listing itself included; 0: as many as are searched anyway."
        return 0

    def score(
        self,
        neighbors,  # `Neighbors` of the validation listings among themselves, first in each row itself
        groups,  # (n,) group of each listing
    ) -> float:
        "The metric's value on a validation set."
        return _mean_of_finite(self.row_scores(neighbors, groups))

    def row_scores(
        self,
        neighbors,  # `Neighbors` of some validation listings among all
        groups,  # `Groups` of all, or (n,) groups: those of the listings that are scored come first
    ):  # float (n,), NaN for listings that don't count
        "What each listing scores."
        raise NotImplementedError

    @property
    def value(self):
        if self.learn is None: return None
        if not hasattr(self.learn, 'valid_scores'):
            raise InputError(f'{self.name} needs a learner made by match_learner')
        neighbors, groups = self.learn.valid_scores.result(self.modality)
        depth = min(self.depth(groups), len(groups))
        if depth <= neighbors.ids.shape[1]: return float(self.score(neighbors, groups))
        deep_parts = self.learn.valid_scores.deep_parts(depth, self.modality)
        return float(_mean_of_finite(np.concatenate([self.row_scores(*part) for part in deep_parts])))

    @property
    def name(self): return self.base_name if self.modality is None else f'{self.base_name}_{self.modality}'


class RecallAt(MatchMetric):
    """Share of listings with one of their group among the `k` nearest others; listings alone in their group
    don't count."""
    def __init__(
        self,
        k: int = 1,  # How many of the nearest others count
        # 'image', 'title' or 'joint'; None: the joint embedding, or else all side by side
        modality: str | None = None,
    ):
        check_k(k)
        super().__init__(modality)
        self.k = k
        self.base_name = f'recall@{k}'

    def depth(self, groups): return self.k + 1
    def row_scores(self, neighbors, groups): return recall_at(neighbors, groups, self.k)


class MAPAtR(MatchMetric):
    """Mean average precision at R, R being the number of others in a listing's group,
    https://arxiv.org/abs/2003.08505"""
    base_name = 'map@r'
    def depth(self, groups): return int(Groups.of(groups).sizes.max())
    def row_scores(self, neighbors, groups): return map_at_r(neighbors, groups)


class RowF1(MatchMetric):
    """Mean row F1 at the threshold that is best for these very listings: optimistic, for watching training,
    not for reporting."""
    base_name = 'row_f1_max'
    def score(self, neighbors, groups): return best_threshold(neighbors, groups)[1]


def macro_f1(
    pred,  # int (n,), predicted classes
    y,  # int (n,), true classes
) -> float:
    """The plain mean of the classes' F1: a rare class counts as much as a frequent one.

    Averaged are the classes in `y` or in `pred`, as scikit-learn does it: one that is only predicted counts
    0.
    """
    return f1_score(y, pred, average='macro', zero_division=0)


def MacroF1():
    "`macro_f1` as a fastai metric, computed once over the whole validation set."
    return AccumMetric(macro_f1, dim_argmax=-1)


def _mean_of_finite(values):
    "The mean of the values that are not NaN; NaN where there is none."
    counted = values[values == values]
    return counted.mean() if len(counted) else float('nan')
