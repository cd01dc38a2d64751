"A classifier as bytes, or as json, gives the probabilities that it gave, or is refused."
import json

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier

from fastmatch.core import InputError
from fastmatch.match import PairModel
from fastmatch.match.pairs.saving import SavedClassifier
from tests.match.pairs.made import linear, listings


class Own(ClassifierMixin, BaseEstimator):
    "A classifier of somebody's own."
    def fit(self, features, classes):
        self.classes_ = np.unique(classes)
        return self

    def predict_proba(self, features): return np.stack([1 - features[:, 0], features[:, 0]], 1)


def test_refuses_to_save_what_needs_pickle(tmp_path):
    pytest.importorskip('skl2onnx')
    pytest.importorskip('onnxruntime')
    scored_candidates, groups, _ = listings()
    model = PairModel(Own(), use=['score']).fit(scored_candidates, groups)
    assert model.score(scored_candidates).check(self_join=True)
    message = ("Own can't be saved without pickle, skl2onnx says: "
               '.*Take HistGradientBoostingClassifier, LGBMClassifier')
    with pytest.raises(InputError, match=message): model.save(tmp_path/'m')
    assert not (tmp_path/'m').exists()


def test_a_save_that_scores_otherwise_is_refused(tmp_path, monkeypatch):
    from fastmatch.match.pairs import saving
    scored_candidates, groups, _ = listings()
    model = PairModel(use=['score']).fit(scored_candidates, groups)
    monkeypatch.setattr(saving, 'tree_probabilities', lambda trees, features: np.full(len(features), .5))
    with pytest.raises(InputError, match='gives other probabilities'): model.save(tmp_path/'m')
    assert not (tmp_path/'m').exists()


KINDS = {'trees': HistGradientBoostingClassifier(max_iter=30), 'onnx': linear(), 'lightgbm': None}


@pytest.mark.parametrize('kind', KINDS)
def test_saved_probabilities_are_the_classifiers(kind):
    if kind == 'onnx':
        pytest.importorskip('skl2onnx')
        pytest.importorskip('onnxruntime')
    if kind == 'lightgbm':
        classifier = pytest.importorskip('lightgbm').LGBMClassifier(n_estimators=30, verbose=-1)
    else: classifier = clone(KINDS[kind])
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 5)).astype(np.float32)
    classifier.fit(features, features[:, 0] + rng.normal(size=300) > 0)
    saved = SavedClassifier.of(classifier, features)
    assert saved.kind == kind
    loaded = SavedClassifier(kind, bytes(saved.data))
    unseen = rng.normal(size=(50, 5)).astype(np.float32)
    expected = classifier.predict_proba(unseen)[:, 1]
    np.testing.assert_allclose(loaded.probabilities(unseen), expected, atol=1e-5)
    # as json takes it, and the same bits again
    from_json = SavedClassifier.from_dict(json.loads(json.dumps(saved.to_dict())), 5)
    np.testing.assert_array_equal(from_json.probabilities(unseen), saved.probabilities(unseen))
    assert from_json.to_dict() == saved.to_dict()


def test_refuses_what_is_no_classifier():
    features = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=3).fit(features, features[:, 0] > 0)
    good = SavedClassifier.of(model, features).to_dict()
    trees = good['content']
    bad = [({'kind': 'pickle', 'content': ''}, "kind='pickle' with str"), ({'kind': 'trees'}, 'NoneType'),
           ({'kind': 'onnx', 'content': '?!'}, 'ONNX is damaged'),
           ({**good, 'content': {}}, r'trees of \[\]'),
           ({**good, 'content': {**trees, 'value': ['a'] * len(trees['value'])}}, 'no numbers'),
           # a child that is its own parent would be walked for ever
           ({**good, 'content': {**trees, 'left': [0] * len(trees['left'])}}, 'do not hang together'),
           ({**good, 'content': {**trees, 'start': [0, 99999]}}, 'do not hang together'),
           ({**good, 'content': {**trees, 'base': []}}, 'do not hang together'),
           ({**good, 'content': {**trees, 'value': trees['value'][1:]}}, 'do not hang together')]
    for saved, says in bad:
        with pytest.raises(InputError, match=says): SavedClassifier.from_dict(saved, 5)
    with pytest.raises(InputError, match='do not hang together'): SavedClassifier.from_dict(good, 0)
