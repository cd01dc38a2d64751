"What heads and losses are told while training runs: the batch's labels, a moving margin, each term of a sum."
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixHandler
from fastai.learner import ValueMetric
from fastcore.foundation import L

from ..core import InputError
from ..losses import CrossEntropy, SumLoss
from .second_pass import tell_heads


class HeadLabels(Callback):
    "Hands the batch's labels to heads that want them in `forward` (`SampledHead`, `TrackedHead`)."
    # mixing draws its partners from the batch itself: their labels are among these
    run_valid = False

    def before_batch(self): tell_heads(self.learn.model, self.yb[0].as_subclass(torch.Tensor))
    def after_batch(self): tell_heads(self.learn.model, None)


class PlainValidLoss(Callback):
    "Puts plain cross-entropy in the place of a margin loss in validation, where a cosine head's model returns logits."
    _given = None

    def before_validate(self):
        self._given = self.learn.loss_func
        self.learn.loss_func = CrossEntropy(reduction=self._given.reduction)

    def after_validate(self): self.learn.loss_func, self._given = self._given, None

    def before_fit(self):
        # a validation that failed has left it
        if self._given is not None: self.after_validate()


class MarginSchedule(Callback):
    "Moves a loss's margin with the progress of training, by fastai's schedules: `MarginSchedule(SchedLin(.2, .8))`."
    run_valid = False

    def __init__(
        self,
        sched,  # Share of training done, 0 to 1 -> margin: `SchedLin(.2, 1.)`, `combine_scheds([.5, .5], [SchedNo(.2, .2), SchedCos(.2, .8)])`
        loss=None,  # Whose margin; default the Learner's loss (give the part that is meant of a `SumLoss`)
        name: str = 'm',  # Attribute that is moved ('m2' of a `CombinedMargin`, 's' for a scale)
    ):
        self.sched, self.moved, self.attr = sched, loss, name

    def before_fit(self):
        # before mixing puts a function in the loss's place
        self._loss = self.learn.loss_func if self.moved is None else self.moved
        if not hasattr(self._loss, self.attr): raise InputError(f'{type(self._loss).__name__} has no {self.attr!r} to move')
        self._given = getattr(self._loss, self.attr)
        # now, not in the middle of training
        try:
            for i in range(101):
                setattr(self._loss, self.attr, float(self.sched(i / 100)))
                if hasattr(self._loss, 'check_options'): self._loss.check_options()
        finally: setattr(self._loss, self.attr, self._given)

    def before_batch(self): setattr(self._loss, self.attr, float(self.sched(self.pct_train)))
    def after_fit(self): setattr(self._loss, self.attr, self._given)


class LossTerms(Callback):
    "Shows the mean of each term of a `SumLoss` over the epoch, as the loss would weigh it, beside the Recorder's figures."
    order = 49  # before the Recorder writes its heading

    def before_fit(self):
        loss = self.learn.loss_func
        if not isinstance(loss, SumLoss): raise InputError(f'{type(loss).__name__} has no terms: LossTerms wants a SumLoss')
        self._sum, self._mets = {k: [] for k in loss.parts}, [ValueMetric(lambda k=k: self.term(k), k) for k in loss.parts]
        self._hooks = [o.register_forward_hook(self._note(k, loss.weights.get(k, 1.))) for k, o in loss.parts.items()]
        self.learn.metrics = self.learn.metrics + L(self._mets)
        self.after_pred()

    def _note(self, k, w):
        def note(module, args, out): self._now[k].append(w * out.detach().float())
        return note

    def after_pred(self): self._now = {k: [] for k in self._sum}

    def after_loss(self):
        # the batch's own loss came first; a second look at it is not what is shown
        if not self.training: return
        mix = next((o for o in self.learn.cbs if isinstance(o, MixHandler) and self.learn.loss_func == o.lf), None)
        # mixing asks for the partner's targets, then for the own ones
        for k, (a, *b) in self._now.items(): self._sum[k].append(float((torch.lerp(a, b[0], mix.lam) if mix else a).mean()))

    def term(self, k): return sum(self._sum[k]) / max(1, len(self._sum[k]))
    def before_train(self): self._sum = {k: [] for k in self._sum}

    def after_fit(self):
        for o in self._hooks: o.remove()
        self.learn.metrics = L(o for o in self.learn.metrics if o not in self._mets)
