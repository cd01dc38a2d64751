"Several views of each picture classified, and their probabilities averaged."
import torch
from fastai.callback.core import Callback

from ..models.views import views_of


class AverageViews(Callback):
    """In validation, the mean of the probabilities over all views of a batch's pictures in place of those of
    the plain pictures; see `Views`.

    What the Learner goes on with are the logarithms of the mean: their softmax is that mean.
    """
    run_train = False

    def __init__(
        self,
        tta=True,  # Views, or True: each picture and its mirror image
    ):
        self.views = views_of(tta)

    def after_pred(self):
        if self.views.spec() is False: return
        inputs = [each.as_subclass(torch.Tensor) for each in self.learn.xb]
        batches = self.views.batches(inputs)
        # the first view is the one that was classified already, unless its size was changed
        first = [self.learn.pred] if all(map(_is_same, batches[0], inputs)) else []
        logits = first + [self.learn.model(*batch) for batch in batches[len(first):]]
        mean = sum(each.float().softmax(1) for each in logits) / len(logits)
        self.learn.pred = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


def _is_same(one, other): return one.shape == other.shape and torch.equal(one, other)
