"A fitted classifier as bytes without pickle, and its probabilities from them."
from dataclasses import dataclass

import numpy as np

from ...core import InputError, require_package
from .trees import tree_probabilities, trees_as_arrays

# kind -> the file that a saved folder holds
FILES = {'trees': 'trees.safetensors', 'lightgbm': 'lightgbm.txt', 'onnx': 'model.onnx'}
TOLERANCE = 1e-4  # a saved classifier's probabilities may differ by less


@dataclass
class SavedClassifier:
    "A classifier of two classes as it is kept in a file."
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
        if self.kind == 'trees':
            from safetensors.numpy import load
            return tree_probabilities(load(self.data), features)
        if self.kind == 'lightgbm':
            lightgbm = require_package('lightgbm', 'a pair model of LightGBM')
            return lightgbm.Booster(model_str=self.data.decode()).predict(features)
        onnxruntime = require_package('onnxruntime', 'a pair model in ONNX')
        session = onnxruntime.InferenceSession(self.data, providers=['CPUExecutionProvider'])
        inputs = {session.get_inputs()[0].name: np.asarray(features, np.float32)}
        # its outputs are the classes, then their probabilities
        return session.run(None, inputs)[1][:, 1]


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
