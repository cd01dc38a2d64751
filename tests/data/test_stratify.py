"Folds by class and by group: nothing cut, balance no worse than scikit-learn's, far better than by chance."
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from fastmatch.core import InputError
from fastmatch.data.stratify import class_matrix, stratified_folds


def deviation(has_class, folds, n_folds):
    "How far the folds are from equal parts of each class, as shares of the class, summed over classes."
    totals = has_class.sum(0)
    parts = np.stack([has_class[folds == fold].sum(0) for fold in range(n_folds)])
    return (np.abs(parts - totals / n_folds) / totals).sum()


def in_groups(n_items=300, n_groups=60, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({'kind': rng.integers(0, n_classes, n_items),
                         'shop': rng.integers(0, n_groups, n_items)})


def test_single_items_of_one_class_are_dealt_in_turn():
    df = in_groups()
    folds = stratified_folds(df, 'kind', 4)
    counts = pd.crosstab(df.kind, folds).to_numpy()
    assert counts.shape == (5, 4) and (np.ptp(counts, axis=1) <= 1).all()
    assert np.ptp(np.bincount(folds)) <= 2
    assert (folds == stratified_folds(df, 'kind', 4)).all()
    assert (folds != stratified_folds(df, 'kind', 4, seed=1)).any()


@pytest.mark.parametrize('seed', range(3))
def test_by_group_and_class_at_once_no_worse_than_scikit_learn(seed):
    df = in_groups(seed=seed)
    folds = stratified_folds(df, 'kind', 5, seed, group_col='shop')
    assert (df.assign(fold=folds).groupby('shop').fold.nunique() == 1).all()
    theirs = np.zeros(len(df), int)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for fold, (_, rows) in enumerate(splitter.split(df, df.kind, df.shop)): theirs[rows] = fold
    has_class = class_matrix(df, 'kind').to_numpy()
    assert deviation(has_class, folds, 5) <= 1.1 * deviation(has_class, theirs, 5)


def test_several_classes_an_item():
    rng = np.random.default_rng(0)
    has_class = rng.random((400, 12)) < np.linspace(.02, .4, 12)
    names = [f'tag {number:02}' for number in range(12)]
    df = pd.DataFrame(has_class.astype(int), columns=names)
    folds = stratified_folds(df, names)
    by_chance = np.mean([deviation(has_class, rng.permutation(np.arange(400) % 5), 5) for _ in range(20)])
    assert deviation(has_class, folds, 5) < .25 * by_chance
    assert np.ptp(np.bincount(folds)) <= 2
    # the same table told otherwise
    df['listed'] = [[name for name, has in zip(names, row) if has] for row in has_class]
    df['joined'] = ['|'.join(cell) for cell in df.listed]
    assert (class_matrix(df, 'listed').to_numpy() == has_class).all()
    assert (stratified_folds(df, 'listed') == folds).all()
    assert (stratified_folds(df, 'joined', delimiter='|') == folds).all()
    assert (stratified_folds(df, 'joined') != folds).any()


def test_items_without_a_class_are_dealt_evenly():
    df = pd.DataFrame({'kind': ['a', 'b', None, None, None, None, float('nan'), ''] * 10})
    folds = stratified_folds(df, 'kind', 4)
    assert np.ptp(np.bincount(folds[df.kind.isin(['a', 'b'])])) <= 1
    assert np.bincount(folds).tolist() == [20] * 4


def test_whole_numbers_and_floats_are_one_class():
    assert class_matrix(pd.DataFrame({'kind': [1, 2, None]}), 'kind').columns.tolist() == ['1', '2']


def test_what_is_refused():
    df = in_groups(10, 3)
    for options, message in (({'n_folds': 1}, 'n_folds=1'), ({'n_folds': 11}, '10 separate groups'),
                             ({'n_folds': 5, 'group_col': 'shop'}, '[23] separate groups'),
                             ({'label_col': 'colour'}, "lacks label_col=colour.*kind, shop"),
                             ({'label_col': ['kind', 'shop']}, 'kind.*more than 0 and 1')):
        with pytest.raises(InputError, match=message):
            stratified_folds(df, **{'label_col': 'kind', **options})
