"Boosted trees as plain arrays: a HistGradientBoostingClassifier without scikit-learn and without pickle."
import numpy as np

from ...core import InputError

# name in our arrays -> (name in scikit-learn's nodes, type)
FIELDS = {
    'feature': ('feature_idx', np.int64),
    'threshold': ('num_threshold', np.float64),
    'value': ('value', np.float64),
    'leaf': ('is_leaf', np.uint8),
    'missing_left': ('missing_go_to_left', np.uint8)}


def trees_as_arrays(
    model,  # Fitted HistGradientBoostingClassifier of two classes, with numbers as features
) -> dict:  # Name -> array (nodes,) of all trees one after the other; 'start' (trees+1,), 'base' (1,)
    "The trees of a classifier; raises `ValueError` where one splits by category."
    trees = [predictors[0].nodes for predictors in model._predictors]
    if any(tree['is_categorical'].any() for tree in trees): raise ValueError('splits by category')
    tree_starts = np.concatenate([[0], np.cumsum([len(tree) for tree in trees])]).astype(np.int64)
    arrays = {name: np.concatenate([tree[node_field] for tree in trees]).astype(dtype)
              for name, (node_field, dtype) in FIELDS.items()}
    # children are numbered within their tree there, over all trees here
    node_shifts = np.repeat(tree_starts[:-1], np.diff(tree_starts))
    for child in ('left', 'right'):
        arrays[child] = np.concatenate([tree[child] for tree in trees]).astype(np.int64) + node_shifts
    arrays['start'] = tree_starts
    arrays['base'] = np.asarray(model._baseline_prediction, np.float64).ravel()
    return arrays


def tree_probabilities(
    trees: dict,  # As `trees_as_arrays` gives them
    features: np.ndarray,  # float (m,f)
) -> np.ndarray:  # float64 (m,)
    "The probability of the second class: every row walks down every tree."
    raw_scores = np.full(len(features), trees['base'][0])
    for root_node in trees['start'][:-1]:
        nodes = np.full(len(features), root_node)
        walking = np.arange(len(features))
        while True:
            walking = walking[trees['leaf'][nodes[walking]] == 0]
            if not len(walking): break
            current_nodes = nodes[walking]
            node_values = features[walking, trees['feature'][current_nodes]].astype(np.float64)
            is_below = node_values <= trees['threshold'][current_nodes]
            goes_left = np.where(np.isnan(node_values), trees['missing_left'][current_nodes] == 1, is_below)
            nodes[walking] = np.where(goes_left, trees['left'][current_nodes], trees['right'][current_nodes])
        raw_scores += trees['value'][nodes]
    return 1 / (1 + np.exp(-raw_scores))


def check_trees(
    trees: dict,  # Name -> numbers, as `trees_as_arrays` gives them, arrays or lists
    features: int,  # How many features a row has
) -> dict:  # Name -> array
    "The trees as arrays; raises `InputError` for numbers that are no trees: a walk would not end."
    wanted = {**{name: dtype for name, (_, dtype) in FIELDS.items()}, 'left': np.int64, 'right': np.int64,
              'start': np.int64, 'base': np.float64}
    if set(trees) != set(wanted): raise InputError(f'pair model: trees of {sorted(trees)}')
    try: arrays = {name: np.asarray(trees[name], dtype) for name, dtype in wanted.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f'pair model: its trees are no numbers: {error}') from error
    nodes = np.arange(len(arrays['leaf']))
    of_nodes = [arrays[name] for name in wanted if name not in ('start', 'base')]
    inner = arrays['leaf'] == 0
    is_whole = (all(array.shape == nodes.shape for array in of_nodes) and arrays['base'].shape == (1,)
                and np.isin(arrays['start'][:-1], nodes).all() and arrays['start'][-1:] == len(nodes)
                # children come behind their parent
                and all(((arrays[child] > nodes) & (arrays[child] < len(nodes)))[inner].all()
                        for child in ('left', 'right'))
                and np.isin(arrays['feature'][inner], np.arange(features)).all())
    if not is_whole: raise InputError('pair model: its trees do not hang together')
    return arrays
