"A fitted classifier as bytes without pickle, or as plain values, and its probabilities from them."
import base64
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...core import InputError, require_package
from .trees import check_trees, tree_probabilities, trees_as_arrays

# kind -> the file that a saved folder holds
FILES = {'trees': 'trees.safetensors', 'lightgbm': 'lightgbm.txt', 'onnx': 'model.onnx'}
TOLERANCE = 1e-4  # a saved classifier's probabilities may differ by less


@dataclass
class SavedClassifier:
    "A classifier of two classes as it is kept in a file, or inside a rule."
    kind: str  # One of `FILES`
    data: bytes  # The content of the file

    @classmethod
    def of(
        cls,
        model,  # Fitted classifier with `predict_proba`
        features: np.ndarray,  # float32 (m,f), on which what was saved must agree with `model`
    ) -> 'SavedClassifier':
        """Boosted trees as arrays, LightGBM's as its text, others as ONNX where skl2onnx knows them.

        Raises `InputError` for a classifier that can't be saved so, or whose saved form gives other
        probabilities.
        """
        saved = cls(*_dump(model, features))
        largest_error = np.abs(saved.probabilities(features) - model.predict_proba(features)[:, 1]).max()
        if not largest_error < TOLERANCE:
            raise InputError(
                f'pair model: {type(model).__name__} saved as {saved.kind} gives other probabilities '
                f'(off by {largest_error:.1g}): take HistGradientBoostingClassifier or LGBMClassifier')
        return saved

    def probabilities(
        self,
        features: np.ndarray,  # float32 (m,f)
    ) -> np.ndarray:  # float (m,)
        "The probability of the second class."
        if self.kind == 'trees': return tree_probabilities(self._read, features)
        if self.kind == 'lightgbm': return self._read.predict(features)
        inputs = {self._read.get_inputs()[0].name: np.asarray(features, np.float32)}
        # its outputs are the classes, then their probabilities
        return self._read.run(None, inputs)[1][:, 1]

    @cached_property
    def _read(self):
        "The content as what gives probabilities: read once, and not for each call."
        if self.kind == 'trees':
            from safetensors.numpy import load
            return load(self.data)
        if self.kind == 'lightgbm':
            lightgbm = require_package('lightgbm', 'a pair model of LightGBM')
            return lightgbm.Booster(model_str=self.data.decode())
        onnxruntime = require_package('onnxruntime', 'a pair model in ONNX')
        return onnxruntime.InferenceSession(self.data, providers=['CPUExecutionProvider'])

    def to_dict(self) -> dict:
        "The classifier as json takes it: trees as lists of numbers, LightGBM's text, ONNX in base64."
        if self.kind == 'trees':
            # a split that only asks whether a number is missing has an endless threshold, which json lacks
            most = np.finfo(np.float64).max
            content = {name: (np.clip(array, -most, most) if name == 'threshold' else array).tolist()
                       for name, array in self._read.items()}
        elif self.kind == 'lightgbm': content = self.data.decode()
        else: content = base64.b64encode(self.data).decode()
        return {'kind': self.kind, 'content': content}

    @classmethod
    def from_dict(
        cls,
        saved: dict,  # As `to_dict` gives it
        features: int,  # How many features a pair has
    ) -> 'SavedClassifier':
        "The classifier that `to_dict` wrote; raises `InputError` for what can't be one."
        kind, content = saved.get('kind'), saved.get('content')
        if kind not in FILES or not isinstance(content, dict if kind == 'trees' else str):
            raise InputError(f'pair model: kind={kind!r} with {type(content).__name__}: no saved classifier')
        if kind == 'trees':
            from safetensors.numpy import save
            return cls(kind, save(check_trees(content, features)))
        if kind == 'lightgbm': return cls(kind, content.encode())
        try: return cls(kind, base64.b64decode(content, validate=True))
        except ValueError as error: raise InputError(f'pair model: its ONNX is damaged: {error}') from error


def _dump(model, features):
    "A fitted classifier as (kind, bytes)."
    class_name = f'{type(model).__module__.split(".")[0]}.{type(model).__name__}'
    if class_name == 'sklearn.HistGradientBoostingClassifier':
        from safetensors.numpy import save
        return 'trees', save(trees_as_arrays(model))
    if class_name == 'lightgbm.LGBMClassifier': return 'lightgbm', model.booster_.model_to_string().encode()
    skl2onnx = require_package('skl2onnx', f'saving a {type(model).__name__}', 'skl2onnx onnxruntime')
    require_package('onnxruntime', f'saving a {type(model).__name__}')
    # it raises errors of many types, its own and others', for what it does not know
    options = {id(model): {'zipmap': False}}
    try: return 'onnx', skl2onnx.to_onnx(model, features[:1], options=options).SerializeToString()
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"pair model: {type(model).__name__} can't be saved without pickle, skl2onnx says: {reason}. "
            'Take HistGradientBoostingClassifier, LGBMClassifier, or one that skl2onnx knows') from error
