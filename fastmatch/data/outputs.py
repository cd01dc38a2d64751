"""What teachers say of items, by their ids, in memory or in a file: a student then needs no teacher beside
it, and may read other inputs than the teacher did, or be of another size."""
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..match.cells import is_among, texts_of
from ..store import write_atomically

ARRAYS = 'ids', 'logits', 'embeddings', 'classes', 'trained_on', 'made_by'  # in a file


@dataclass(eq=False)
class TeacherOutputs:
    "Logits or embeddings of items, or both; see `teacher_outputs`, `mean_outputs`, `outputs_of_predictions`"
    ids: np.ndarray  # str (n,), each once
    logits: np.ndarray | None = None  # float32 (n,c)
    embeddings: np.ndarray | None = None  # float32 (n,d), unit length
    classes: np.ndarray | None = None  # str (c,), the classes of the logits, in their order
    trained_on: np.ndarray | None = None  # str (m,), items that a teacher was trained on; None: not known
    made_by: str = ''  # Fingerprint of the teacher's weights

    def __post_init__(self):
        self.ids = texts_of(list(self.ids)).astype(str)
        repeated = pd.Series(self.ids)[pd.Series(self.ids).duplicated()]
        if len(repeated): raise InputError(f'ids: {preview(repeated.unique())} stand there more than once')
        for name in ('logits', 'embeddings'):
            values = getattr(self, name)
            if values is None: continue
            values = np.asarray(values, dtype=np.float32)
            if values.ndim != 2 or len(values) != len(self.ids) or not np.isfinite(values).all():
                raise InputError(f'{name} of shape {values.shape}: finite numbers (n,d) are wanted, a row '
                                 f'for each of the {len(self.ids)} ids')
            setattr(self, name, values)
        if self.logits is not None:
            self.classes = np.array([str(class_name) for class_name in self.classes])
            if len(self.classes) != self.logits.shape[1]:
                raise InputError(f'{len(self.classes)} classes for logits of shape {self.logits.shape}')
        self._row_of = {item_id: row for row, item_id in enumerate(self.ids)}

    def __len__(self): return len(self.ids)

    def rows_of(
        self,
        ids,  # (m,) ids of items, of any type
    ) -> np.ndarray:  # int64 (m,)
        "The rows of some items; `InputError` names those that are missing."
        ids = texts_of(list(ids))
        missing = [item_id for item_id in ids if item_id not in self._row_of]
        if missing:
            raise InputError(f"{len(missing)} of {len(ids)} items are not among the teacher's outputs: "
                             f'{preview(missing)}')
        return np.array([self._row_of[item_id] for item_id in ids], dtype=np.int64)

    def refuse_leaks(
        self,
        valid_ids,  # Of the items that a student is judged on
    ):
        "Raise `InputError` where a teacher was trained on items that a student is judged on."
        if self.trained_on is None: return
        valid_ids = texts_of(list(valid_ids))
        leaks = valid_ids[is_among(valid_ids, self.trained_on)]
        if len(leaks):
            raise InputError(f'a teacher was trained on {len(leaks)} of the {len(valid_ids)} items that the '
                             f'student is validated on ({preview(leaks)}): what it says tells their labels')

    def save(
        self,
        file,  # '.npz'; replaced if it is there
    ):
        "Write the arrays to a file without pickle."
        given = {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        given |= {name: np.array(value, dtype=str) for name, value in given.items()
                  if name not in ('logits', 'embeddings')}
        buffer = io.BytesIO()
        np.savez(buffer, **given)
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(file), buffer.getvalue())

    @classmethod
    def load(
        cls,
        file,  # That `save` wrote
    ) -> 'TeacherOutputs':
        "Read a file; `InputError` names it where it is no such one."
        try:
            with np.load(file, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
        # numpy has an error of its own for each way in which a file can be damaged
        except Exception as error: raise InputError(f'{file}: not readable ({error})') from error
        if 'ids' not in arrays or set(arrays) - set(ARRAYS):
            raise InputError(f'{file}: holds {sorted(arrays)}, which are no outputs of a teacher')
        return cls(**{**arrays, 'made_by': str(arrays.get('made_by', ''))})


def outputs_of_predictions(
    predictions: pd.DataFrame,  # The id column first, and a column of probabilities for each class
    classes: list,  # Their columns
) -> TeacherOutputs:
    """Outputs from tables that `learn.predictions()` made, of one model or of several put below each other:
    for one, those of five folds, each of the items that its model had not been trained on.

    Beware: of such out-of-fold predictions all but one fold's are of models that saw the labels of any fold
    that a student is validated on. `trained_on` is not known of a table.
    """
    logits = np.log(np.maximum(predictions[list(classes)].to_numpy(np.float64), 1e-12))
    return TeacherOutputs(predictions.iloc[:, 0].to_numpy(), logits, classes=np.array(classes, dtype=object))


def mean_outputs(
    outputs: list[TeacherOutputs],  # Of several teachers
    weights: list | None = None,  # Of each; None: all alike
    by: str = 'logits',  # 'logits': mean of the logarithms of probabilities; 'probabilities': their own mean
) -> TeacherOutputs:
    """What several teachers say together, of the items that all of them know.

    Embeddings are put side by side, so that the cosine of two items is the weighted mean of the teachers'
    cosines, whatever their widths.
    """
    if not outputs: raise InputError('outputs: an empty list')
    if by not in ('logits', 'probabilities'):
        raise InputError(f"by={by!r}: choose 'logits' or 'probabilities'")
    weights = np.ones(len(outputs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(outputs),) or not (weights >= 0).all() or not weights.sum() > 0:
        raise InputError(f'weights={weights.tolist()}: one for each of {len(outputs)}, 0 or above, not all 0')
    weights = weights / weights.sum()
    ids = [item_id for item_id in outputs[0].ids if all(item_id in each._row_of for each in outputs[1:])]
    if not ids: raise InputError('outputs: no item is among those of every teacher')
    rows = [each.rows_of(ids) for each in outputs]
    known = [each.trained_on for each in outputs]
    trained_on = None
    if all(each is not None for each in known): trained_on = np.array(sorted(set().union(*known)), dtype=str)
    logits = embeddings = classes = None
    if all(each.logits is not None for each in outputs):
        classes = outputs[0].classes
        logits = _mean_logits([each.logits[row] for each, row in zip(outputs, rows)],
                              [_places(each.classes, classes) for each in outputs], weights, by)
    if all(each.embeddings is not None for each in outputs):
        embeddings = np.concatenate([np.sqrt(weight) * each.embeddings[row]
                                     for weight, each, row in zip(weights, outputs, rows)], 1)
    if logits is None and embeddings is None:
        raise InputError('outputs: all have to be logits, or all embeddings')
    return TeacherOutputs(ids, logits, embeddings, classes, trained_on)


def _places(classes, wanted):
    "Where each wanted class stands."
    if set(classes) != set(wanted):
        raise InputError(f'classes {preview(classes)} and {preview(wanted)}: all teachers need the same')
    place = {class_name: number for number, class_name in enumerate(classes)}
    return [place[class_name] for class_name in wanted]


def _mean_logits(logits, places, weights, by):
    "The weighted mean of several teachers' logarithms of probabilities, or the logarithm of their mean."
    total = 0.
    for of_teacher, place, weight in zip(logits, places, weights):
        values = of_teacher[:, place].astype(np.float64)
        values = values - values.max(1, keepdims=True)
        log_probabilities = values - np.log(np.exp(values).sum(1, keepdims=True))
        total = total + weight * (log_probabilities if by == 'logits' else np.exp(log_probabilities))
    return total if by == 'logits' else np.log(np.maximum(total, 1e-12))
