"Trees as arrays walk as scikit-learn's do."
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from fastmatch.match.pairs.trees import tree_probabilities, trees_as_arrays


def some_data():
    "Features with gaps and with few values, and classes that depend on both."
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 6)).astype(np.float32)
    x[rng.random(x.shape) < .1] = np.nan
    x[:, 2] = np.round(x[:, 2])
    classes = np.nan_to_num(x[:, 0] * x[:, 1] + x[:, 2]) + np.isnan(x[:, 3]) > .3
    return rng, x, classes


@pytest.mark.parametrize('kwargs', [
    {}, {'max_iter': 1}, {'max_leaf_nodes': None, 'min_samples_leaf': 1, 'max_iter': 20}])
def test_trees_walk_like_scikit_learn(kwargs):
    rng, x, classes = some_data()
    model = HistGradientBoostingClassifier(random_state=0, **kwargs).fit(x, classes)
    trees = trees_as_arrays(model)
    new = rng.normal(size=(500, 6)).astype(np.float32) * 2
    new[rng.random(new.shape) < .2] = np.nan
    for rows in (x, new):
        wanted = model.predict_proba(rows)[:, 1]
        np.testing.assert_allclose(tree_probabilities(trees, rows), wanted, atol=1e-12)
    assert len(tree_probabilities(trees, x[:0])) == 0


def test_splits_by_category_are_refused():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (400, 2)).astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=[0])
    model.fit(x, np.isin(x[:, 0], [1, 4]))
    with pytest.raises(ValueError, match='by category'): trees_as_arrays(model)
