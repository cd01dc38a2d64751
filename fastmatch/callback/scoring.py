"Validation on unseen groups: gathers embeddings instead of a loss that would mean nothing there."
import numpy as np
from fastai.callback.core import Callback
from fastai.learner import Recorder
from fastcore.foundation import L

from ..core import InputError
from ..match.spaces.dense import Dense

K = 51  # neighbours searched for the monitors: itself and the 50 that the competition allows


class ValidScores(Callback):
    "Gathers the validation set's embeddings and labels; searches them once, whatever the number of metrics."
    order = 11  # right after MixedPrecision has cast predictions back to float32

    def before_validate(self): self._parts, self._labels, self._found = [], [], {}

    def after_pred(self):
        if self.training or not len(self.yb): return
        self._yb = self.yb
        self._parts.append({k: v.detach().float().cpu().numpy() for k, v in self.pred.items()})
        self._labels.append(self.y.detach().cpu().numpy())
        # without targets the Learner skips the loss: the head has no centre for an unseen group
        self.learn.yb = ()

    def after_loss(self):
        if not self.training and getattr(self, '_yb', None): self.learn.yb, self._yb = self._yb, None

    def result(
        self,
        modality: str | None = None,  # A key of the model's output; None: 'joint', or all of them put together
    ):
        "Neighbours (n,k) of the validation listings and their labels (n,)."
        if not self._parts: raise InputError('nothing was validated: the dataloaders hold no validation listings')
        if modality not in self._found:
            embs = {k: np.concatenate([p[k] for p in self._parts]) for k in self._parts[0]}
            if modality is None: v = embs.get('joint', np.concatenate(list(embs.values()), 1))
            elif modality in embs: v = embs[modality]
            else: raise InputError(f'modality={modality!r}: the model gives {list(embs)}')
            self._found[modality] = Dense(v).search(min(K, len(v)))
        return self._found[modality], np.concatenate(self._labels)

    def after_fit(self):
        # the arrays may be large, and an exported Learner shouldn't hold listings
        for o in ('_parts', '_labels', '_found'): self.__dict__.pop(o, None)


class MatchRecorder(Recorder):
    "fastai's Recorder without `valid_loss`."
    name = 'recorder'
    def before_fit(self):
        super().before_fit()
        if not self.train_metrics: self.metric_names = L(o for o in self.metric_names if o != 'valid_loss')

    @property
    def _valid_mets(self): return L() if getattr(self, 'cancel_valid', False) or not self.valid_metrics else self.metrics

    def plot_loss(self, skip_start=5, with_valid=False, **kwargs):
        "fastai's plot of the training loss."
        return super().plot_loss(skip_start, with_valid=False, **kwargs)


class TrainedOn(Callback):
    "Remembers which listings the model was trained on, so that nothing is tuned on them."
    def __init__(self): self.ids = set()

    def after_train(self):
        # lr_find puts the weights back
        if hasattr(self.learn, 'lr_finder') or not self.iter_done: return
        self.ids.update(self.dls.train_df[self.dls.columns.id])

    def before_train(self): self.iter_done = False
    def after_step(self): self.iter_done = True


class GroupRates(Callback):
    "Spreads one learning rate over the parameter groups by `mults`; rates that differ by group already are left as given."
    order = 65  # after ParamScheduler and every callback that may still change a rate

    def __init__(
        self,
        mults: dict[str, float],  # Parameter group -> factor on the learning rate
    ):
        self.mults = dict(mults)

    def before_step(self):
        rates = [h['lr'] for h in self.opt.hypers]
        if len(set(rates)) > 1: return
        self._base = rates
        self.opt.set_hyper('lr', [lr * self.mults.get(k, 1.) for lr, k in zip(rates, self.learn.model.param_groups())])

    def after_step(self):
        if getattr(self, '_base', None) is not None: self.opt.set_hyper('lr', self._base)
        self._base = None


