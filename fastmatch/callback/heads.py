"""What heads and losses are given while training runs, and what a loss consists of.

The batch's labels for heads that need them, a margin that follows a schedule, each term of a sum of losses.
"""
import torch
from fastai.callback.core import Callback
from fastai.learner import ValueMetric
from fastai.torch_core import get_model
from fastcore.foundation import L

from ..core import InputError
from ..losses import CrossEntropy, SumLoss
from ..losses.base import Loss
from .base import give_labels_to_heads, loss_of_labels, mixing_callback
from .mix import MixImages


class HeadLabels(Callback):
    """Gives the batch's labels to heads that need them in their forward pass (`SampledHead`, `TrackedHead`).

    Mixing draws its partners from the batch itself, so that their labels are among these.
    """
    run_valid = False

    def before_batch(self): give_labels_to_heads(self.learn.model, self.yb[0].as_subclass(torch.Tensor))
    def after_batch(self): give_labels_to_heads(self.learn.model, None)


class CrossEntropyValid(Callback):
    "Base of callbacks that put plain cross-entropy in the place of the training loss while validation runs."
    _given = None  # the training loss, while validation has another

    def before_validate(self):
        self._given = self.learn.loss_func
        self.learn.loss_func = CrossEntropy(reduction=self._given.reduction)

    def after_validate(self):
        self.learn.loss_func = self._given
        self._given = None

    def before_fit(self):
        # a validation that failed has left its own loss
        if self._given is not None: self.after_validate()


class PlainValidLoss(CrossEntropyValid):
    """Uses cross-entropy in validation in place of a margin loss, since a cosine head's model returns logits
    there, or of one that compares with a teacher, which is asked in training only."""


class MarginSchedule(Callback):
    """Moves a loss's margin as training goes on, by any of fastai's schedules: `MarginSchedule(SchedLin(.2,
    .8))`.

    The whole schedule is tried on the loss before training begins; a margin out of the loss's range raises
    `InputError` there. After the fit the margin is what it was.
    """
    run_valid = False

    def __init__(
        self,
        sched,  # Share of training done, 0 to 1 -> margin: `SchedLin(.2, 1.)`, `combine_scheds(...)`
        loss=None,  # Loss whose margin moves; default the Learner's (of a `SumLoss` give one part)
        name: str = 'm',  # Attribute that moves: 'm2' of a `CombinedMargin`, 's' for a scale
    ):
        self.sched = sched
        self.moved = loss
        self.attr = name

    def before_fit(self):
        # before mixing puts a function in the loss's place
        self._loss = loss_of_labels(self.learn.loss_func) if self.moved is None else self.moved
        if not hasattr(self._loss, self.attr):
            raise InputError(f'{type(self._loss).__name__} has no {self.attr!r} to move: give the Learner '
                             'a loss with a margin, ArcFace(), CosFace(), ..., or say which part by loss=')
        # a fit that broke off has left the margin where it was moved to, and not what the user gave
        given, moved_to = self._loss.__dict__.get('_given_margins', {}).get(self.attr, (None, None))
        current = getattr(self._loss, self.attr)
        was_left = moved_to is not None and isinstance(current, float) and current == moved_to
        self._given = given if was_left else current
        try: self._try_schedule()
        finally: setattr(self._loss, self.attr, self._given)

    def _try_schedule(self):
        "Set every percent of the schedule once: a loss that refuses a value does so before training begins."
        for percent in range(101):
            self._set_margin(percent / 100)
            if hasattr(self._loss, 'check_options'): self._loss.check_options()

    def _set_margin(self, progress): setattr(self._loss, self.attr, float(self.sched(progress)))

    def before_batch(self):
        self._set_margin(self.pct_train)
        margins = self._loss.__dict__.setdefault('_given_margins', {})
        margins[self.attr] = self._given, getattr(self._loss, self.attr)

    def after_fit(self):
        self._loss.__dict__.pop('_given_margins', None)
        setattr(self._loss, self.attr, self._given)


class LossTerms(Callback):
    """Shows the mean of each term of a loss over the epoch, weighted as in the sum, beside the Recorder's
    figures: the parts of a `SumLoss`, and of any other loss the heads of a model that has several.

    Of a mixed batch the two targets count by their shares. Forward passes that other callbacks make besides
    (`SAM`, `HardMining`) are not shown.
    """
    order = 49  # before the Recorder writes its heading

    def before_fit(self):
        loss = loss_of_labels(self.learn.loss_func)
        self._hooks = []
        self._loss_of_heads = None
        terms = self._hook_parts(loss) if isinstance(loss, SumLoss) else self._watch_heads(loss)
        self._means = {term: [] for term in terms}
        self._term_metrics = [ValueMetric(lambda term=term: self.term(term), term) for term in terms]
        self.learn.metrics = self.learn.metrics + L(self._term_metrics)
        self.after_pred()

    def _hook_parts(self, sum_loss):
        for term, term_loss in sum_loss.parts.items():
            note_values = self._note_values(term, sum_loss.weights[term])
            self._hooks.append(term_loss.register_forward_hook(note_values))
        return list(sum_loss.parts)

    def _watch_heads(self, loss):
        heads = list(getattr(get_model(self.learn.model), 'heads', ()))
        if not isinstance(loss, Loss) or len(heads) < 2:
            raise InputError(f'{type(loss).__name__} has no terms: LossTerms wants a SumLoss, or a '
                             'model with several heads')
        loss.on_heads = self._note_heads
        self._loss_of_heads = loss
        return heads

    def _note_heads(self, by_head):
        for head, value in by_head.items():
            if head in self._calls: self._calls[head].append(value.detach().float())

    def _note_values(self, term, term_weight):
        "A forward hook for the loss of one term."
        def note(module, args, output): self._calls[term].append(term_weight * output.detach().float())
        return note

    def after_pred(self): self._calls = {term: [] for term in self._means}

    def after_loss(self):
        if not self.training: return
        mixing = mixing_callback(self.learn)
        for term, (first_call, *later_calls) in self._calls.items():
            # the first calls were for the batch's own loss, later ones for passes of other callbacks;
            # fastai's mixing asks for the loss of the partners' targets, then for that of the batch's own
            asks_twice = mixing is not None and not isinstance(mixing, MixImages)
            values = torch.lerp(first_call, later_calls[0], mixing.lam) if asks_twice else first_call
            self._means[term].append(float(values.mean()))

    def term(
        self,
        term: str,  # Name of a term in the `SumLoss`
    ) -> float:
        "The mean of one term over the epoch so far."
        return sum(self._means[term]) / max(1, len(self._means[term]))

    def before_train(self): self._means = {term: [] for term in self._means}

    def after_fit(self):
        for hook in self._hooks: hook.remove()
        if self._loss_of_heads is not None: self._loss_of_heads.on_heads = None
        self.learn.metrics = L(metric for metric in self.learn.metrics if metric not in self._term_metrics)
