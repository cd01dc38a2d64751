"Folds in which every class has its share, of several classes an item too, and no group or picture is cut."
import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..match.cells import as_text, several
from .split import components


def class_matrix(
    df: pd.DataFrame,  # One row an item (n rows)
    # Column of classes: one a cell, a list of them, or a text with `delimiter` between them; or a list of
    # columns, one a class, with 1 or True where an item has it
    label_col,
    delimiter: str | None = None,  # What stands between the classes of a cell: 'red|blue'
) -> pd.DataFrame:  # bool (n,c), a column a class, sorted; an item without a class has none
    "Which classes each item has."
    wanted = list(label_col) if isinstance(label_col, (list, tuple)) else [label_col]
    missing = [name for name in wanted if name not in df]
    if missing: raise InputError(f'df lacks label_col={preview(missing)}; its columns are: {preview(df, 20)}')
    if isinstance(label_col, (list, tuple)): return _of_columns(df, wanted)
    cells = [_classes_of(cell, delimiter) for cell in df[label_col]]
    classes = sorted({name for names in cells for name in names})
    column_of = {name: column for column, name in enumerate(classes)}
    has_class = np.zeros((len(df), len(classes)), bool)
    for row, names in enumerate(cells): has_class[row, [column_of[name] for name in names]] = True
    return pd.DataFrame(has_class, columns=classes, index=df.index)


def _of_columns(df, label_columns):
    values = df[label_columns].apply(pd.to_numeric, errors='coerce').fillna(0)
    wrong = [name for name in label_columns if not values[name].isin([0, 1]).all()]
    if wrong: raise InputError(f'label_col: {preview(wrong)} hold more than 0 and 1')
    return values.astype(bool)


def _classes_of(cell, delimiter):
    "The classes in a cell, each once, as text."
    if several(cell): parts = list(cell)
    elif delimiter is not None and isinstance(cell, str): parts = cell.split(delimiter)
    else: parts = [cell]
    return [name for name in dict.fromkeys(map(as_text, parts)) if name]


def stratified_folds(
    df: pd.DataFrame,  # One row an item
    # Column of classes: one a cell, a list of them, or a text with `delimiter` between them; or a list of
    # columns, one a class, with 1 or True where an item has it
    label_col,
    n_folds: int = 5,  # Number of folds, 2 or more
    seed: int = 0,  # The same seed gives the same folds
    *,
    delimiter: str | None = None,  # What stands between the classes of a cell: 'red|blue'
    # Of what is never cut, as for `components`: `group_col`, `fn_col` or `image_col`; `path`, `phash`,
    # `max_shared`
    **links,
) -> np.ndarray:  # int64 (n,), 0 to n_folds-1; `InputError` where there is less that can be dealt than folds
    """Deal items into folds that each get their share of every class, whole groups at a time.

    Items may have one class, several, or none; groups, equal pictures and hashes are kept together only where
    `links` name them. The order is that of scikit-learn's `StratifiedGroupKFold`, which knows one class an
    item: groups with much of a class first, each into the fold where it does least harm to the balance of all
    classes, and of the folds' sizes. A class with fewer groups than folds is missing in some of them.
    """
    if n_folds < 2: raise InputError(f'n_folds={n_folds}: give 2 or more')
    # with nothing to link by, each row stands for itself
    component = components(df, **links) if links else np.arange(len(df))
    n_components = int(component.max(initial=-1)) + 1
    if n_components < n_folds:
        raise InputError(f'{n_components} separate groups of items can not fill {n_folds} folds: '
                         'lower n_folds')
    has_class = class_matrix(df, label_col, delimiter).to_numpy()
    # the last column counts all items: those without a class are dealt by it
    columns = np.column_stack([has_class, np.ones(len(df), bool)]).astype(np.int64)
    counts = np.zeros((n_components, columns.shape[1]), np.int64)
    np.add.at(counts, component, columns)
    return _dealt(counts, n_folds, np.random.default_rng(seed))[component]


def _dealt(counts, n_folds, rng):
    """The fold of each component, int64 (m,), from its items of each class, all its items in the last column.

    Each goes where it adds least to the sum of squares of the folds' shares of all classes. That sum grows by
    2 * shares @ own + own @ own, of which the fold changes the first term alone.
    """
    totals = np.maximum(counts.sum(0), 1)
    own_shares = counts / totals
    shares = np.zeros((n_folds, counts.shape[1]))
    folds = np.zeros(len(counts), np.int64)
    # what can not be put right by others comes first; equals in an order of the seed
    order = rng.permutation(len(counts))
    order = order[np.argsort(-(own_shares[order]**2).sum(1), kind='stable')]
    for member in order:
        cost = shares @ own_shares[member]
        folds[member] = rng.choice(np.flatnonzero(cost <= cost.min() + 1e-12))
        shares[folds[member]] += own_shares[member]
    return folds


__all__ = ['class_matrix', 'stratified_folds']
