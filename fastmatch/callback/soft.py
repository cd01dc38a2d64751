"What metrics are given where the targets are probabilities."
from fastai.callback.core import Callback
from fastai.learner import Recorder


class LikeliestTargets(Callback):
    """Hands the likeliest class of each row to metrics, where the targets are a probability for each class.

    The loss is that of the probabilities, in validation too, and `get_preds` returns them as they are.
    """
    order = Recorder.order - 1  # after the loss and after what gathers targets

    def after_batch(self):
        if not len(self.yb): return
        labels, *others = self.yb
        if labels.ndim == 2 and labels.is_floating_point(): self.learn.yb = (labels.argmax(1), *others)
