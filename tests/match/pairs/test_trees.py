"Trees as arrays walk as scikit-learn's do."
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from fastmatch.match.pairs.trees import tree_probabilities, trees_as_arrays


def some_data():
    "Features with gaps and with few values, and classes that depend on both."
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 6)).astype(np.float32)
    features[rng.random(features.shape) < .1] = np.nan
    features[:, 2] = np.round(features[:, 2])
    classes = np.nan_to_num(features[:, 0] * features[:, 1] + features[:, 2]) + np.isnan(features[:, 3]) > .3
    return rng, features, classes


@pytest.mark.parametrize('options', [
    {}, {'max_iter': 1}, {'max_leaf_nodes': None, 'min_samples_leaf': 1, 'max_iter': 20}])
def test_trees_walk_like_scikit_learn(options):
    rng, features, classes = some_data()
    classifier = HistGradientBoostingClassifier(random_state=0, **options).fit(features, classes)
    trees = trees_as_arrays(classifier)
    unseen = rng.normal(size=(500, 6)).astype(np.float32) * 2
    unseen[rng.random(unseen.shape) < .2] = np.nan
    for some_features in (features, unseen):
        expected = classifier.predict_proba(some_features)[:, 1]
        np.testing.assert_allclose(tree_probabilities(trees, some_features), expected, atol=1e-12)
    assert len(tree_probabilities(trees, features[:0])) == 0


def test_splits_by_category_are_refused():
    rng = np.random.default_rng(0)
    features = rng.integers(0, 6, (400, 2)).astype(np.float32)
    classifier = HistGradientBoostingClassifier(max_iter=3, categorical_features=[0])
    classifier.fit(features, np.isin(features[:, 0], [1, 4]))
    with pytest.raises(ValueError, match='by category'): trees_as_arrays(classifier)
