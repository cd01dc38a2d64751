"Callbacks of pretraining: each objective's loss beside the total, and the copies that follow the weights."
from fastai.callback.core import Callback
from fastai.metrics import ValueMetric
from fastai.torch_core import find_bs
from fastcore.foundation import L

from ..core import InputError
from .base import Objectives, PretrainNet, WeightedTerms


class ObjectiveTerms(Callback):
    """Shows the mean of each objective's loss over an epoch, not weighted: for 'mlm' the columns 'train_mlm'
    of the training and 'mlm' of the validation. Batches count by their sizes."""
    order = 49  # before the Recorder writes its heading

    def before_fit(self):
        loss = self.learn.loss_func
        if not isinstance(loss, WeightedTerms):
            raise InputError(f'{type(loss).__name__} has no terms by name: ObjectiveTerms wants a '
                             'WeightedTerms')
        self._names = list(loss.weights)
        # by whether it is training
        self._sums = {True: {}, False: {}}
        self._n_items = {True: 0, False: 0}
        # without validation there is nothing to show of it
        has_validation = self.dls.valid is not None and len(self.dls.valid) > 0
        parts = (True, False) if has_validation else (True,)
        self._term_metrics = [ValueMetric(lambda name=name, training=training: self.mean(name, training),
                                     f'train_{name}' if training else name)
                         for training in parts for name in self._names]
        self.learn.metrics = self.learn.metrics + L(self._term_metrics)

    def _restart(self, training):
        "Begin new sums for training or validation."
        self._sums[training] = dict.fromkeys(self._names, 0.)
        self._n_items[training] = 0

    def before_train(self): self._restart(True)
    def before_validate(self): self._restart(False)

    def after_loss(self):
        n_items = find_bs(self.learn.yb)
        sums = self._sums[self.training]
        # tensors are summed where they are: nothing waits for a GPU
        for name, loss in self.learn.pred.items(): sums[name] = sums[name] + loss.detach().float() * n_items
        self._n_items[self.training] += n_items

    def mean(
        self,
        name: str,  # Of an objective
        training: bool,  # Over the training batches of the epoch; False: over the validation batches
    ) -> float:
        "The mean loss of an objective over the epoch so far; 0 where there was no batch."
        return float(self._sums[training].get(name, 0.)) / max(1, self._n_items[training])

    def after_fit(self):
        self.learn.metrics = L(metric for metric in self.learn.metrics if metric not in self._term_metrics)


class MomentumUpdate(Callback):
    """Moves the copies of weights that objectives keep (`ITC`) after each optimizer step, and raises the
    share that they have in the targets.

    Steps that are skipped (by a loss scaler, say) don't count. A share that was reached stays in later fits.
    Raises `InputError` where there are fewer items than a queue is long.
    """
    run_valid = False

    def before_fit(self):
        holder = next((module for module in self.learn.model.modules()
                       if isinstance(getattr(module, 'objectives', None), Objectives)), None)
        if holder is None:
            raise InputError('MomentumUpdate wants a model with objectives, a PretrainNet as a rule; the '
                             f'model is {type(self.model).__name__}')
        self._net = holder.net if isinstance(holder, PretrainNet) else holder
        self._objectives = [objective for objective in holder.objectives.objectives.values()
                            if getattr(objective, 'copies', None) is not None]
        n_items = getattr(self.dls.train, 'n', None)
        for objective in self._objectives:
            if n_items is not None: objective.check(n_items)
            objective.copies.start(objective.encoders(self._net))

    def before_train(self): self._skipped = False
    def after_cancel_step(self): self._skipped = True

    def before_batch(self):
        epochs_done = self.epoch + self.iter / self.n_iter
        for objective in self._objectives: objective.raise_share(epochs_done, self.n_epoch)

    def after_step(self):
        was_skipped = self._skipped
        self._skipped = False
        if was_skipped: return
        for objective in self._objectives: objective.follow(self._net)

    def after_fit(self):
        # an exported Learner holds no second reference to its model
        for attribute in ('_net', '_objectives'): self.__dict__.pop(attribute, None)
