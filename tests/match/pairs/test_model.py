"Pair models: what is learned, held out, saved without pickle; the protocol against a double loop."
import json

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
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
from fastmatch.match.pairs.model import random_parts
from fastmatch.match.pairs.surroundings import radii_of
from fastmatch.store import write_sealed
from tests.match.cases import titles
from tests.match.pairs.made import linear, listings


def test_learns_more_than_a_mean():
    found, groups, texts = listings()
    half = groups < 30
    model = PairModel().fit(found, groups, texts, half)
    assert model.radii == radii_of(found)
    neighbors = model.score(found, texts).check(self_join=True)
    np.testing.assert_array_equal(np.sort(neighbors.ids, 1), np.sort(found.ids, 1))
    assert (neighbors.scores[:, 0] == 1).all() and neighbors.scores[neighbors.ids >= 0].min() >= 0
    # probabilities of the classifier itself, pair by pair, at the odds of a match among all the half's pairs;
    # it was fitted to those that lie within the half
    rows, columns, features, _ = model.features(found, texts)
    others = found.ids[rows, columns]
    different = half[rows] & (groups[rows] != groups[others])
    share = (different & half[others]).sum() / different.sum()
    assert model.kept == share and .3 < share < .7
    odds = [p / (1 - p) * share for p in model.model.predict_proba(features)[:, 1]]
    wanted = dict(zip(zip(rows, others), [each / (1 + each) for each in odds]))
    for i, j, score in zip(*neighbors.pairs()):
        if i != j: assert score == pytest.approx(wanted[i, j], abs=1e-6)
    rest = ~half
    assert best_threshold(neighbors, groups, rest)[1] > best_threshold(fuse(found), groups, rest)[1] + .02


def test_only_the_rows_named_teach():
    found, groups, texts = listings()
    half = groups < 30
    other = groups.copy()
    other[~half] = np.random.default_rng(0).permutation(other[~half])
    for rows in (half, np.flatnonzero(half)):
        first = PairModel().fit(found, groups, texts, rows).score(found, texts)
        second = PairModel().fit(found, other, texts, rows).score(found, texts)
        np.testing.assert_array_equal(first.scores, second.scores)
    assert (PairModel().fit(found, other, texts).score(found, texts).scores != first.scores).any()


def test_any_classifier_and_left_as_it_was():
    found, groups, _ = listings()
    mine = RandomForestClassifier(20, random_state=0)
    model = PairModel(mine, use=['score', 'rank']).fit(found, groups)
    assert not hasattr(mine, 'estimators_')
    assert model.names == [
        'image', 'image rank', 'image rank back', 'tfidf', 'tfidf rank', 'tfidf rank back', 'phash']
    rows, columns, features, _ = pair_features(found, use=['score', 'rank'])
    same = groups[rows] == groups[found.ids[rows, columns]]
    wanted = RandomForestClassifier(20, random_state=0).fit(features, same).predict_proba(features)[:, 1]
    got = model.score(found).scores[:, 1:][found.ids[:, 1:] >= 0]
    np.testing.assert_array_equal(np.sort(got), np.sort(wanted.astype(np.float32)))


def test_unseen_scores_know_nothing_of_their_group():
    found, groups, texts = listings()
    model = PairModel()
    neighbors = model.score_unseen(found, groups, texts, folds=4, seed=1)
    part = random_parts(groups, 4, 1)
    assert np.bincount(part).min() > 0
    assert all(len(set(part[groups == group])) == 1 for group in range(60))
    assert np.bincount(part[np.unique(groups, return_index=True)[1]]).tolist() == [15] * 4
    for fold in range(4):
        wanted = PairModel().fit(found, groups, texts, part != fold).score(found, texts)
        mine = part == fold
        np.testing.assert_array_equal(neighbors.ids[mine], wanted.ids[mine])
        np.testing.assert_array_equal(neighbors.scores[mine], wanted.scores[mine])
    # the model that stays has seen all, and flatters
    seen = model.score(found, texts)
    wanted = PairModel().fit(found, groups, texts).score(found, texts)
    np.testing.assert_array_equal(seen.scores, wanted.scores)
    assert best_threshold(seen, groups)[1] > best_threshold(neighbors, groups)[1] + .003


def quick(): return PairModel(HistGradientBoostingClassifier(max_iter=20, random_state=0))


def test_heldout_against_a_double_loop():
    found, groups, texts = listings(24, 3)
    rng = np.random.default_rng(3)
    n = len(groups)
    # groups that are wrong here and there, so that nothing is perfect
    groups = group_codes(np.where(rng.random(n) < .25, rng.integers(0, 24, n), groups), n)
    got = heldout_pairs(found, groups, texts, quick(), halvings=2, seed=5)
    total, thresholds, part = np.zeros(n), [], random_parts(groups, 3, 5)
    for side in random_halves(groups, 2, 5):
        for chosen_on in (side, ~side):
            neighbors = quick().fit(found, groups, texts, chosen_on).score(found, texts)
            ids, scores = neighbors.ids.copy(), neighbors.scores.copy()
            for fold in range(3):
                of_fold = quick().fit(found, groups, texts, chosen_on & (part != fold)).score(found, texts)
                mine = chosen_on & (part == fold)
                ids[mine], scores[mine] = of_fold.ids[mine], of_fold.scores[mine]
            neighbors = type(neighbors)(ids, scores)
            threshold, _ = best_threshold(neighbors, groups, chosen_on)
            total += np.where(chosen_on, 0, row_f1(decide(neighbors, threshold), groups))
            thresholds.append(threshold)
    np.testing.assert_allclose(got.row_f1, total / 2, atol=1e-12)
    assert [option for option, _ in got.picks] == ['pair model'] * 4
    assert np.allclose([threshold for _, threshold in got.picks], thresholds, atol=1e-6)
    assert .3 < got.mean < .97
    assert got.clusters.tolist() == groups.tolist() and 0 < got.summary()['recall_at_1'] <= 1


def test_heldout_beside_fusion_and_chance():
    found, groups, texts = listings()
    of_model = heldout_pairs(found, groups, texts, halvings=3)
    assert paired(of_model, heldout(fuse(found), groups, halvings=3)).low > 0
    # groups that nothing tells of: what is learned on one half is worth nothing on the other
    lost = np.random.default_rng(1).permutation(groups)
    got = heldout_pairs(found, lost, texts, PairModel(linear()), halvings=3)
    assert got.mean <= alone(lost).mean() + .01


def test_clusters_larger_than_groups():
    found, groups, texts = listings(30)
    got = heldout_pairs(found, groups, texts, PairModel(linear()), clusters=groups // 2, halvings=2)
    assert got.clusters.max() == 14
    with pytest.raises(InputError, match='cut through a group'):
        heldout_pairs(found, groups // 2, texts, clusters=groups)


SAVED = [('trees', lambda: None), ('trees', lambda: HistGradientBoostingClassifier(max_iter=30, max_depth=3)),
         ('onnx', linear), ('onnx', lambda: RandomForestClassifier(20)), ('lightgbm', None)]
FILES = {'trees': 'trees.safetensors', 'onnx': 'model.onnx', 'lightgbm': 'lightgbm.txt'}


def assert_every_flipped_bit_is_seen(folder):
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for position in np.random.default_rng(0).integers(0, len(whole), 40):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(position) % 8
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=file.name): PairModel.load(folder)
        file.write_bytes(whole)


@pytest.mark.parametrize('kind, make', SAVED)
def test_save_and_load(kind, make, tmp_path):
    found, groups, texts = listings()
    if kind == 'onnx':
        pytest.importorskip('skl2onnx')
        pytest.importorskip('onnxruntime')
    if kind == 'lightgbm':
        classifier = pytest.importorskip('lightgbm').LGBMClassifier(n_estimators=30, verbose=-1)
    else: classifier = make()
    model = PairModel(classifier).fit(found, groups, texts)
    model.save(tmp_path/'m')
    loaded = PairModel.load(tmp_path/'m')
    np.testing.assert_allclose(model.score(found, texts).scores, loaded.score(found, texts).scores, atol=2e-6)
    assert (loaded.names, loaded.radii, loaded._saved.kind) == (model.names, model.radii, kind)
    assert {file.name for file in (tmp_path/'m').iterdir()} == {'pair.json', FILES[kind]}
    # saved again, the same bytes
    loaded.save(tmp_path/'again')
    for file in (tmp_path/'again').iterdir():
        assert (tmp_path/'m'/file.name).read_bytes() == file.read_bytes()
    # the radii come with it: fewer listings are looked at as all were
    few_texts, vectors = titles(9, 1), np.random.default_rng(0).normal(size=(9, 12))
    few = candidates({'image': Dense(vectors), 'tfidf': Tfidf(few_texts), 'phash': Keys([None] * 9)}, 9)
    wanted = model.score(few, few_texts).scores
    np.testing.assert_allclose(wanted, loaded.score(few, few_texts).scores, atol=2e-6)
    assert_every_flipped_bit_is_seen(tmp_path/'m')


def test_a_model_that_an_earlier_version_saved(tmp_path):
    "It holds no medians and no share of the pairs."
    found, groups, texts = listings()
    model = PairModel().fit(found, groups, texts)
    saved = model.to_dict()
    from_dict = PairModel.from_dict(json.loads(json.dumps(saved)))
    assert from_dict.to_dict() == saved and from_dict.medians == model.medians
    content = {
        'format': 1,
        'kind': 'trees',
        **{name: saved[name] for name in ('use', 'top', 'names', 'radii')},
    }
    data = from_dict._saved.data
    write_sealed(tmp_path/'m', 'pair.json', content, {'trees.safetensors': data})
    loaded = PairModel.load(tmp_path/'m')
    np.testing.assert_array_equal(loaded.score(found, texts).scores, from_dict.score(found, texts).scores)
    with pytest.raises(InputError, match='without medians'): loaded.moved(loaded.features(found, texts)[2])
    # it may be a step all the same
    again = PairModel.from_dict(loaded.to_dict())
    np.testing.assert_array_equal(again.score(found, texts).scores, from_dict.score(found, texts).scores)


def test_what_moved_a_probability_against_a_loop():
    found, groups, texts = listings()
    model = PairModel(linear()).fit(found, groups, texts)
    _, _, features, names = model.features(found, texts)
    medians = np.median(features, axis=0)
    np.testing.assert_allclose(model.medians, medians)
    def log_odds(table): return np.log(1 / (1 / model.model.predict_proba(table)[:, 1].astype(float) - 1))
    # near 0 and 1 float32, in which this classifier counts, rounds odds away
    some = features[np.abs(log_odds(features)) < 3][:20]
    moved = model.moved(some)
    assert moved.shape == (20, len(names))
    for column, median in enumerate(medians):
        changed = some.copy()
        changed[:, column] = median
        np.testing.assert_allclose(moved[:, column], log_odds(some) - log_odds(changed), atol=1e-3)
    # of a linear model: the distance to the median times its weight
    scale, regression = model.model[0].scale_, model.model[1]
    is_exact = np.abs(log_odds(some)[:, None] - moved) < 3
    wanted = (some - medians) * regression.coef_[0] / scale
    np.testing.assert_allclose(moved[is_exact], wanted[is_exact], atol=1e-3)
    assert is_exact.mean() > .8


def test_missing_packages_are_named(tmp_path, monkeypatch):
    import sys

    from fastmatch.core import MissingPackage
    found, groups, texts = listings()
    for name in ('skl2onnx', 'rapidfuzz'): monkeypatch.setitem(sys.modules, name, None)
    model = PairModel(linear(), use=['score']).fit(found, groups)
    with pytest.raises(MissingPackage, match='pip install skl2onnx onnxruntime'): model.save(tmp_path/'m')
    with pytest.raises(MissingPackage, match='rapidfuzz'): PairModel().fit(found, groups, texts)


def test_refuses():
    found, groups, texts = listings()
    n = len(groups)
    with pytest.raises(InputError, match='no predict_proba'): PairModel(StandardScaler())
    for use in (lambda model: model.score(found), lambda model: model.save('x')):
        with pytest.raises(InputError, match='not fitted'): use(PairModel())
    for bad, words in ((np.arange(n), 'none are of one group'), (np.zeros(n, int), 'all are of one group'),
                       (groups[:-1], 'give')):
        with pytest.raises(InputError, match=words): PairModel().fit(found, bad)
    with pytest.raises(InputError, match='3 listings were trained on'):
        PairModel().fit(found, groups, trained_on=np.arange(n) < 3)
    with pytest.raises(InputError, match='folds=1'): PairModel().score_unseen(found, groups, texts, folds=1)
    model = PairModel().fit(found, groups, texts)
    with pytest.raises(InputError, match='length, title: need titles'): model.score(found)
    few = candidates({'tfidf': Tfidf(texts)}, 5)
    with pytest.raises(InputError, match='lacks the features image'): model.score(few, texts)
    for kwargs, words in [(dict(halvings=0), 'halvings=0'), (dict(folds=99), 'folds=99'),
                          (dict(clusters=np.zeros(n, int)), 'one group only')]:
        with pytest.raises(InputError, match=words): heldout_pairs(found, groups, texts, **kwargs)
