"Pair models: what is learnt, held out, saved without pickle; the protocol against a double loop."
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Keys,
    PairModel,
    Tfidf,
    alone,
    best_threshold,
    candidates,
    decide,
    fuse,
    heldout,
    heldout_pairs,
    pair_features,
    paired,
    row_f1,
)
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.neighbors import group_codes
from fastmatch.match.pairs.features import radii_of
from fastmatch.match.pairs.model import random_parts
from fastmatch.match.pairs.trees import tree_probabilities, trees_as_arrays
from tests.match.cases import titles


def listings(groups=60, seed=0):
    "Groups of two to five; pictures tell half of it, titles the other."
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(groups), rng.integers(2, 6, groups))
    n = len(y)
    x = rng.normal(size=(groups, 12))[y] + 1.3 * rng.normal(size=(n, 12))
    words = [f'brand{g % 7} item{rng.integers(99)} {g * 13 % 97}ml' for g in range(groups)]
    t = [w if rng.random() < .6 else ' '.join(w.split()[:2]) for w in (words[g] for g in y)]
    cand = candidates({'image': Dense(x), 'tfidf': Tfidf(t), 'phash': Keys([f'h{g}' if rng.random() < .1 else None for g in y])}, 20)
    return cand, y, t


LINEAR = lambda: make_pipeline(StandardScaler(), LogisticRegression())


def test_learns_more_than_a_mean():
    cand, y, t = listings()
    half = y < 30
    model = PairModel().fit(cand, y, t, half)
    assert model.radii == radii_of(cand)
    nb = model.score(cand, t).check(self_join=True)
    np.testing.assert_array_equal(np.sort(nb.ids, 1), np.sort(cand.ids, 1))
    assert (nb.scores[:, 0] == 1).all() and nb.scores[nb.ids >= 0].min() >= 0
    # probabilities of the classifier itself, pair by pair
    rows, cols, x, names = model.features(cand, t)
    p = {(i, int(cand.ids[i, c])): v for i, c, v in zip(rows, cols, model.model.predict_proba(x)[:, 1])}
    assert all(s == pytest.approx(p[i, int(j)], abs=1e-6) for i in range(len(y)) for j, s in zip(nb.ids[i, 1:], nb.scores[i, 1:]) if j >= 0)
    rest = ~half
    assert best_threshold(nb, y, rest)[1] > best_threshold(fuse(cand), y, rest)[1] + .02


def test_only_the_rows_named_teach():
    cand, y, t = listings()
    half = y < 30
    other = y.copy()
    other[~half] = np.random.default_rng(0).permutation(other[~half])
    for rows in (half, np.flatnonzero(half)):
        a, b = (PairModel().fit(cand, o, t, rows).score(cand, t) for o in (y, other))
        np.testing.assert_array_equal(a.scores, b.scores)
    assert (PairModel().fit(cand, other, t).score(cand, t).scores != a.scores).any()


def test_any_classifier_and_left_as_it_was():
    cand, y, t = listings()
    mine = RandomForestClassifier(20, random_state=0)
    model = PairModel(mine, use=['score', 'rank']).fit(cand, y)
    assert not hasattr(mine, 'estimators_') and model.names == ['image', 'image rank', 'image rank back', 'tfidf', 'tfidf rank', 'tfidf rank back', 'phash']
    rows, cols, x, _ = pair_features(cand, use=['score', 'rank'])
    want = RandomForestClassifier(20, random_state=0).fit(x, y[rows] == y[cand.ids[rows, cols]]).predict_proba(x)[:, 1]
    np.testing.assert_array_equal(np.sort(model.score(cand).scores[:, 1:][cand.ids[:, 1:] >= 0]), np.sort(want.astype(np.float32)))


def test_unseen_scores_know_nothing_of_their_group():
    cand, y, t = listings()
    model = PairModel()
    nb = model.score_unseen(cand, y, t, folds=4, seed=1)
    part = random_parts(y, 4, 1)
    assert np.bincount(part).min() > 0 and all(len(set(part[y == g])) == 1 for g in range(60)) and np.bincount(part[np.unique(y, return_index=True)[1]]).tolist() == [15] * 4
    for f in range(4):
        want = PairModel().fit(cand, y, t, part != f).score(cand, t)
        at = part == f
        np.testing.assert_array_equal(nb.ids[at], want.ids[at])
        np.testing.assert_array_equal(nb.scores[at], want.scores[at])
    # the model that stays has seen all, and flatters
    np.testing.assert_array_equal(model.score(cand, t).scores, PairModel().fit(cand, y, t).score(cand, t).scores)
    assert best_threshold(model.score(cand, t), y)[1] > best_threshold(nb, y)[1] + .003


def test_heldout_against_a_double_loop():
    cand, y, t = listings(24, 3)
    rng = np.random.default_rng(3)
    # labels that are wrong here and there, so that nothing is perfect
    y = group_codes(np.where(rng.random(len(y)) < .25, rng.integers(0, 24, len(y)), y), len(y))
    quick = lambda: PairModel(HistGradientBoostingClassifier(max_iter=20, random_state=0))
    got = heldout_pairs(cand, y, t, quick(), halvings=2, seed=5)
    total, picks, part = np.zeros(len(y)), [], random_parts(y, 3, 5)
    for side in random_halves(y, 2, 5):
        for a in (side, ~side):
            nb = quick().fit(cand, y, t, a).score(cand, t)
            ids, scores = nb.ids.copy(), nb.scores.copy()
            for f in range(3):
                mine = quick().fit(cand, y, t, a & (part != f)).score(cand, t)
                at = a & (part == f)
                ids[at], scores[at] = mine.ids[at], mine.scores[at]
            nb = type(nb)(ids, scores)
            threshold, _ = best_threshold(nb, y, a)
            total += np.where(a, 0, row_f1(decide(nb, threshold), y))
            picks.append(('pair model', threshold))
    np.testing.assert_allclose(got.row_f1, total / 2, atol=1e-12)
    assert [o[0] for o in got.picks] == ['pair model'] * 4 and np.allclose([o[1] for o in got.picks], [o[1] for o in picks], atol=1e-6)
    assert .3 < got.mean < .97
    assert got.clusters.tolist() == y.tolist() and 0 < got.summary()['recall_at_1'] <= 1


def test_heldout_beside_fusion_and_chance():
    cand, y, t = listings()
    pair, mean = heldout_pairs(cand, y, t, halvings=3), heldout(fuse(cand), y, halvings=3)
    assert paired(pair, mean).low > 0
    # labels that nothing tells of: what is learnt on one half is worth nothing on the other
    lost = np.random.default_rng(1).permutation(y)
    got = heldout_pairs(cand, lost, t, PairModel(LINEAR()), halvings=3)
    assert got.mean <= alone(lost).mean() + .01


def test_groups_larger_than_labels():
    cand, y, t = listings(30)
    got = heldout_pairs(cand, y, t, PairModel(LINEAR()), clusters=y // 2, halvings=2)
    assert got.clusters.max() == 14
    with pytest.raises(InputError, match='cut through a group'): heldout_pairs(cand, y // 2, t, clusters=y)


SAVED = [('trees', lambda: None), ('trees', lambda: HistGradientBoostingClassifier(max_iter=30, max_depth=3)), ('onnx', LINEAR), ('onnx', lambda: RandomForestClassifier(20)), ('lightgbm', None)]


@pytest.mark.parametrize('kind, make', SAVED)
def test_save_and_load(kind, make, tmp_path):
    cand, y, t = listings()
    if kind == 'onnx': pytest.importorskip('skl2onnx'), pytest.importorskip('onnxruntime')
    clf = pytest.importorskip('lightgbm').LGBMClassifier(n_estimators=30, verbose=-1) if kind == 'lightgbm' else make()
    model = PairModel(clf).fit(cand, y, t)
    model.save(tmp_path/'m')
    got = PairModel.load(tmp_path/'m')
    a, b = model.score(cand, t), got.score(cand, t)
    np.testing.assert_allclose(a.scores, b.scores, atol=2e-6)
    assert (got.names, got.radii, got._saved.kind) == (model.names, model.radii, kind) and {o.name for o in (tmp_path/'m').iterdir()} == {'pair.json', {'trees': 'trees.safetensors', 'onnx': 'model.onnx', 'lightgbm': 'lightgbm.txt'}[kind]}
    # saved again, the same bytes
    got.save(tmp_path/'again')
    assert all((tmp_path/'m'/o.name).read_bytes() == o.read_bytes() for o in (tmp_path/'again').iterdir())
    # the radii come with it: fewer listings are looked at as all were
    few = candidates({'image': Dense(np.random.default_rng(0).normal(size=(9, 12))), 'tfidf': Tfidf(titles(9, 1)), 'phash': Keys([None] * 9)}, 9)
    np.testing.assert_allclose(model.score(few, titles(9, 1)).scores, got.score(few, titles(9, 1)).scores, atol=2e-6)
    for file in sorted((tmp_path/'m').iterdir()):
        whole = file.read_bytes()
        for at in np.random.default_rng(0).integers(0, len(whole), 40):
            bad = bytearray(whole)
            bad[at] ^= 1 << int(at) % 8
            file.write_bytes(bad)
            with pytest.raises(InputError, match=file.name): PairModel.load(tmp_path/'m')
        file.write_bytes(whole)


def test_trees_walk_like_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 6)).astype(np.float32)
    x[rng.random(x.shape) < .1] = np.nan
    x[:, 2] = np.round(x[:, 2])
    y = np.nan_to_num(x[:, 0] * x[:, 1] + x[:, 2]) + np.isnan(x[:, 3]) > .3
    for kwargs in ({}, {'max_iter': 1}, {'max_leaf_nodes': None, 'min_samples_leaf': 1, 'max_iter': 20}):
        m = HistGradientBoostingClassifier(random_state=0, **kwargs).fit(x, y)
        new = rng.normal(size=(500, 6)).astype(np.float32) * 2
        new[rng.random(new.shape) < .2] = np.nan
        for o in (x, new): np.testing.assert_allclose(tree_probabilities(trees_as_arrays(m), o), m.predict_proba(o)[:, 1], atol=1e-12)
    assert len(tree_probabilities(trees_as_arrays(m), x[:0])) == 0


class Own(ClassifierMixin, BaseEstimator):
    "A classifier of somebody's own."
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x): return np.stack([1 - x[:, 0], x[:, 0]], 1)


def test_refuses_to_save_what_needs_pickle(tmp_path):
    pytest.importorskip('skl2onnx'), pytest.importorskip('onnxruntime')
    cand, y, _ = listings()
    model = PairModel(Own(), use=['score']).fit(cand, y)
    assert model.score(cand).check(self_join=True)
    with pytest.raises(InputError, match="Own can't be saved without pickle, skl2onnx says: .*Take HistGradientBoostingClassifier, LGBMClassifier"): model.save(tmp_path/'m')
    assert not (tmp_path/'m').exists()


def test_a_save_that_scores_otherwise_is_refused(tmp_path, monkeypatch):
    from fastmatch.match.pairs import saving
    cand, y, _ = listings()
    model = PairModel(use=['score']).fit(cand, y)
    monkeypatch.setattr(saving, 'tree_probabilities', lambda trees, x: np.full(len(x), .5))
    with pytest.raises(InputError, match='gives other probabilities'): model.save(tmp_path/'m')
    assert not (tmp_path/'m').exists()


def test_missing_packages_are_named(tmp_path, monkeypatch):
    from fastmatch.core import MissingPackage
    cand, y, t = listings()
    import sys
    for name in ('skl2onnx', 'rapidfuzz'): monkeypatch.setitem(sys.modules, name, None)
    model = PairModel(LINEAR(), use=['score']).fit(cand, y)
    with pytest.raises(MissingPackage, match='pip install skl2onnx onnxruntime'): model.save(tmp_path/'m')
    with pytest.raises(MissingPackage, match='rapidfuzz'): PairModel().fit(cand, y, t)


def test_refuses():
    cand, y, t = listings()
    with pytest.raises(InputError, match='no predict_proba'): PairModel(StandardScaler())
    for f in (lambda m: m.score(cand), lambda m: m.save('x')):
        with pytest.raises(InputError, match='not fitted'): f(PairModel())
    with pytest.raises(InputError, match='none are of one group'): PairModel().fit(cand, np.arange(len(y)))
    with pytest.raises(InputError, match='all are of one group'): PairModel().fit(cand, np.zeros(len(y), int))
    with pytest.raises(InputError, match='give'): PairModel().fit(cand, y[:-1])
    with pytest.raises(InputError, match='3 listings were trained on'): PairModel().fit(cand, y, trained_on=np.arange(len(y)) < 3)
    with pytest.raises(InputError, match='folds=1'): PairModel().score_unseen(cand, y, t, folds=1)
    model = PairModel().fit(cand, y, t)
    with pytest.raises(InputError, match='title, length: need titles|length, title: need titles'): model.score(cand)
    few = candidates({'tfidf': Tfidf(t)}, 5)
    with pytest.raises(InputError, match='lacks the features image'): model.score(few, t)
    for kwargs, says in [(dict(halvings=0), 'halvings=0'), (dict(clusters=np.zeros(len(y), int)), 'one group only'), (dict(folds=99), 'folds=99')]:
        with pytest.raises(InputError, match=says): heldout_pairs(cand, y, t, **kwargs)
