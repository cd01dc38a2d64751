"fastai metrics over a whole validation set of unseen groups: one search, nothing of size n x n."
from fastai.learner import Metric
from fastai.metrics import AccumMetric
from sklearn.metrics import f1_score

from .core import InputError
from .match.judge.score import map_at_r, recall_at
from .match.thresholds.sweep import best_threshold


class MatchMetric(Metric):
    "A number from the validation listings' neighbours and groups; subclasses give `score(neighbors, labels)`."
    def __init__(
        self,
        modality: str | None = None,  # 'image', 'title' or 'joint'; default the joint embedding, or all put together
    ):
        self.modality = modality

    def reset(self): self.learn = None
    def accumulate(self, learn): self.learn = learn

    def score(self, neighbors, groups) -> float:
        "The metric's value."
        raise NotImplementedError

    @property
    def value(self):
        if self.learn is None: return None
        if not hasattr(self.learn, 'valid_scores'): raise InputError(f'{self.name} needs a learner made by match_learner')
        return float(self.score(*self.learn.valid_scores.result(self.modality)))

    @property
    def name(self): return self.base_name if self.modality is None else f'{self.base_name}_{self.modality}'


class RecallAt(MatchMetric):
    "Share of listings with a mate among their `k` nearest others (listings without a mate don't count)."
    def __init__(
        self,
        k: int = 1,  # Neighbours looked at
        modality: str | None = None,  # As for `MatchMetric`
    ):
        super().__init__(modality)
        self.k, self.base_name = k, f'recall@{k}'

    def score(self, neighbors, groups): return _nanmean(recall_at(neighbors, groups, self.k))


class MAPAtR(MatchMetric):
    "Mean average precision at R, https://arxiv.org/abs/2003.08505"
    base_name = 'map@r'
    def score(self, neighbors, groups): return _nanmean(map_at_r(neighbors, groups))


class RowF1(MatchMetric):
    "Mean row F1 at the best threshold for these very rows: optimistic, for watching training, not for reporting."
    base_name = 'row_f1_max'
    def score(self, neighbors, groups): return best_threshold(neighbors, groups)[1]


def macro_f1(
    pred,  # int (n,) classes said
    y,  # int (n,) true classes
) -> float:
    "The plain mean of the classes' F1: a rare class counts as much as a frequent one."
    return f1_score(y, pred, average='macro', zero_division=0)


def MacroF1(): return AccumMetric(macro_f1, dim_argmax=-1)  # over the whole validation set


def _nanmean(x): return float('nan') if len(x) == 0 or (x != x).all() else x[x == x].mean()
