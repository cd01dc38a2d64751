"""Which listings a model was trained on, so that no rule is chosen or judged on them: kept beside the weights
wherever these are saved and loaded."""
import warnings

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.torch_core import get_model

from ..match.cells import is_among, texts_of
from .base import in_lr_find

KEY = 'trained_on'  # of the record in a state dict's metadata, where torch keeps the versions of its modules


class TrainingRecord:
    """The listings that a model's weights were trained on. The model's state dict carries it, in a file too,
    and loading one replaces it; a state dict without it leaves the listings unknown."""
    def __init__(
        self,
        ids=(),  # Of the listings, text or numbers
        unknown: bool = False,  # Whether there may be others
    ):
        self.ids = set(texts_of(list(ids)))
        self.unknown = unknown

    def follow(
        self,
        model: torch.nn.Module,  # Whose weights are recorded from now on
    ):
        "Be saved and loaded with the weights of a model, and with those of a part of it by itself."
        for part in model.modules():
            is_followed = _record_of(part) is not None
            part.training_record = self
            part.is_recorded_whole = part is model
            if is_followed: continue
            part.register_state_dict_post_hook(_write)
            part.register_load_state_dict_pre_hook(_read)

    @classmethod
    def inherited(
        cls,
        model: torch.nn.Module,  # Parts of it may be of models that were trained
    ) -> 'TrainingRecord':
        "What the records of a model's parts tell together; a part without one was trained on no listings."
        records = {id(record): record for record in map(_record_of, model.modules()) if record is not None}
        ids = {listing_id for record in records.values() for listing_id in record.ids}
        return cls(ids, any(record.unknown for record in records.values()))

    def to_dict(self) -> dict:
        "As plain values."
        return {'ids': sorted(self.ids), 'unknown': self.unknown}

    def load(
        self,
        saved: dict | None,  # From `to_dict`; None where nothing was saved
    ):
        "Take over what was saved."
        saved = {'unknown': True} if saved is None else saved
        self.ids = set(saved.get('ids', ()))
        self.unknown = saved.get('unknown', False)


def _record_of(module):
    "The record that follows a module, None where none does."
    return getattr(module, 'training_record', None)


def _write(module, state_dict, prefix, local_metadata):
    # the parts of what is saved say nothing that the whole doesn't
    if prefix == '': local_metadata[KEY] = module.training_record.to_dict()


def _read(module, state_dict, prefix, local_metadata, *args):
    if prefix != '': return
    record = module.training_record
    earlier_ids, was_unknown = record.ids, record.unknown
    record.load(local_metadata.get(KEY))
    is_complete = all(name in state_dict for name, _ in module.named_parameters())
    if is_complete and module.is_recorded_whole: return
    # some weights stay as they were
    record.ids |= earlier_ids
    record.unknown |= was_unknown


def copied_weights(
    model: torch.nn.Module,
    device=None,  # Where the copies are; None: where the weights are
) -> dict:
    "A copy of a model's state dict, with the record of what it was trained on."
    state = model.state_dict()  # a dict of its own, whose metadata stays when its values are replaced
    for name, tensor in state.items(): state[name] = tensor.detach().to(device, copy=True)
    return state


def training_record(
    state: dict,  # State dict of a model
) -> dict:  # From `TrainingRecord.to_dict`
    "What a state dict tells of the listings that its weights were trained on."
    return getattr(state, '_metadata', {}).get('', {}).get(KEY, {'unknown': True})


def joined_records(
    records: list,  # Of state dicts, from `training_record`
) -> dict:
    "The metadata of a state dict that is mixed from others: trained on what any of them was trained on."
    ids = {listing_id for saved in records for listing_id in saved.get('ids', ())}
    return {'': {KEY: TrainingRecord(ids, any(saved.get('unknown', False) for saved in records)).to_dict()}}


class TrainedOn(Callback):
    """Remembers the listings that the model was trained on, so that no rule is chosen on them.

    They are marked with the first step of an epoch, are saved with the weights (`learn.save`,
    `learn.export`, `torch.save(learn.model.state_dict(), ...)`) and come back with them. Weights from a file
    that doesn't say it leave them `unknown`: then every listing counts as trained on, until `declare` says
    better. So does a part of the model that is loaded by itself, and a model that is put in the place of the
    first, as far as they tell nothing.
    """
    def __init__(self, model: torch.nn.Module | None = None):
        self._record = TrainingRecord() if model is None else TrainingRecord.inherited(model)
        self._is_followed = model is not None
        if model is not None: self._record.follow(model)

    def __setstate__(self, state):
        # a Learner exported by an earlier version has the ids themselves, or a record that no part tells of
        state = {'_is_followed': False, **state}
        if 'record' in state: state['_record'] = state.pop('record')
        if '_record' not in state: state['_record'] = TrainingRecord(state.pop('ids', ()))
        self.__dict__.update(state)

    @property
    def record(self) -> TrainingRecord:
        "Of the model that the Learner has at present."
        if not self._is_followed or self.learn is None: return self._record
        model = get_model(self.learn.model)
        record = _record_of(model)
        if record is None:
            record = TrainingRecord(unknown=True)
            record.follow(model)
        return record

    @property
    def ids(self) -> set:
        "The ids of the listings, as text."
        return self.record.ids

    @property
    def unknown(self) -> bool:
        "Whether the model was trained on listings that nothing tells of."
        return self.record.unknown

    def declare(
        self,
        ids=(),  # Of the listings that the weights were trained on, all of them; () for none
    ):
        "Say which listings the weights as they are were trained on, where their file doesn't tell."
        self.record.load(TrainingRecord(ids).to_dict())

    def flags(
        self,
        ids,  # n ids, text or numbers
    ) -> np.ndarray:  # bool (n,)
        "Whether the model was trained on each listing; where that isn't known: on all, with a warning."
        if self.unknown:
            warnings.warn('the weights were loaded from a file that does not tell which listings they were '
                          'trained on, so that all listings count as trained on: if you know them, say '
                          'learn.trained_on.declare(ids), with () for none', stacklevel=3)
            return np.ones(len(ids), bool)
        return is_among(ids, self.ids)

    def state_dict(self): return self.record.to_dict()
    def load_state_dict(self, saved_state): self.record.load(saved_state)

    def before_train(self): self._is_marked = False

    def after_step(self):
        if self._is_marked or in_lr_find(self.learn): return
        self._is_marked = True
        train_df = getattr(self.dls, 'train_df', None)
        if train_df is None: self.record.unknown = True
        else: self.record.ids |= set(texts_of(train_df[self.dls.columns.id]))
