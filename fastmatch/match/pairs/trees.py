"Boosted trees as plain arrays: scikit-learn's HistGradientBoostingClassifier without scikit-learn, and without pickle."
import numpy as np

FIELDS = {'feature': 'feature_idx', 'threshold': 'num_threshold', 'left': 'left', 'right': 'right', 'value': 'value', 'leaf': 'is_leaf', 'missing_left': 'missing_go_to_left'}


def arrays_of(
    model,  # Fitted HistGradientBoostingClassifier of two classes, numbers only
) -> dict:  # Name -> array; nodes of all trees in one row, children numbered within it
    "The trees, flat."
    trees = [o[0].nodes for o in model._predictors]
    if any(t['is_categorical'].any() for t in trees): raise ValueError('splits by category')
    start = np.concatenate([[0], np.cumsum([len(t) for t in trees])]).astype(np.int64)
    res = {k: np.concatenate([t[f] for t in trees]) for k, f in FIELDS.items()}
    shift = np.repeat(start[:-1], np.diff(start))
    kinds = {'feature': np.int64, 'threshold': np.float64, 'value': np.float64, 'leaf': np.uint8, 'missing_left': np.uint8}
    return {**{k: res[k].astype(t) for k, t in kinds.items()}, **{k: res[k].astype(np.int64) + shift for k in ('left', 'right')},
            'start': start, 'base': np.asarray(model._baseline_prediction, np.float64).ravel()}


def proba(
    trees: dict,  # As `arrays_of` gives them
    x: np.ndarray,  # float (m,f)
) -> np.ndarray:  # float64 (m,), of the second class
    "Walk every row down every tree."
    raw = np.full(len(x), trees['base'][0])
    for root in trees['start'][:-1]:
        at, rows = np.full(len(x), root), np.arange(len(x))
        while len(rows := rows[trees['leaf'][at[rows]] == 0]):
            here = at[rows]
            v = x[rows, trees['feature'][here]].astype(np.float64)
            left = np.where(np.isnan(v), trees['missing_left'][here] == 1, v <= trees['threshold'][here])
            at[rows] = np.where(left, trees['left'][here], trees['right'][here])
        raw += trees['value'][at]
    return 1 / (1 + np.exp(-raw))
