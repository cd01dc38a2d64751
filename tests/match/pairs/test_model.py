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
    scored_candidates, groups, texts = listings()
    half = groups < 30
    model = PairModel().fit(scored_candidates, groups, texts, half)
    assert model.radii == radii_of(scored_candidates)
    neighbors = model.score(scored_candidates, texts).check(self_join=True)
    np.testing.assert_array_equal(np.sort(neighbors.ids, 1), np.sort(scored_candidates.ids, 1))
    assert (neighbors.scores[:, 0] == 1).all() and neighbors.scores[neighbors.ids >= 0].min() >= 0
    # probabilities of the classifier itself, pair by pair, at the odds of a match among all the half's pairs;
    # it was fitted to those that lie within the half
    rows, columns, features, _ = model.features(scored_candidates, texts)
    other_ids = scored_candidates.ids[rows, columns]
    is_different = half[rows] & (groups[rows] != groups[other_ids])
    share = (is_different & half[other_ids]).sum() / is_different.sum()
    assert model.kept == share and .3 < share < .7
    all_odds = [p / (1 - p) * share for p in model.model.predict_proba(features)[:, 1]]
    expected = dict(zip(zip(rows, other_ids), [odds / (1 + odds) for odds in all_odds]))
    for i, j, score in zip(*neighbors.pairs()):
        if i != j: assert score == pytest.approx(expected[i, j], abs=1e-6)
    other_half = ~half
    of_model = best_threshold(neighbors, groups, other_half)[1]
    of_fusion = best_threshold(fuse(scored_candidates), groups, other_half)[1]
    assert of_model > of_fusion + .02


def test_only_the_rows_named_teach():
    scored_candidates, groups, texts = listings()
    half = groups < 30
    changed_groups = groups.copy()
    changed_groups[~half] = np.random.default_rng(0).permutation(changed_groups[~half])
    def scores(given_groups, rows=None):
        model = PairModel().fit(scored_candidates, given_groups, texts, rows)
        return model.score(scored_candidates, texts).scores

    for rows in (half, np.flatnonzero(half)):
        of_half = scores(groups, rows)
        np.testing.assert_array_equal(of_half, scores(changed_groups, rows))
    assert (scores(changed_groups) != of_half).any()


def test_any_classifier_and_left_as_it_was():
    scored_candidates, groups, _ = listings()
    own_classifier = RandomForestClassifier(20, random_state=0)
    model = PairModel(own_classifier, use=['score', 'rank']).fit(scored_candidates, groups)
    assert not hasattr(own_classifier, 'estimators_')
    assert model.names == [
        'image', 'image rank', 'image rank back', 'tfidf', 'tfidf rank', 'tfidf rank back', 'phash']
    rows, columns, features, _ = pair_features(scored_candidates, use=['score', 'rank'])
    same_group = groups[rows] == groups[scored_candidates.ids[rows, columns]]
    expected_classifier = RandomForestClassifier(20, random_state=0).fit(features, same_group)
    expected = expected_classifier.predict_proba(features)[:, 1]
    actual = model.score(scored_candidates).scores[:, 1:][scored_candidates.ids[:, 1:] >= 0]
    np.testing.assert_array_equal(np.sort(actual), np.sort(expected.astype(np.float32)))


def test_unseen_scores_know_nothing_of_their_group():
    scored_candidates, groups, texts = listings()
    model = PairModel()
    neighbors = model.score_unseen(scored_candidates, groups, texts, folds=4, seed=1)
    part_of_listing = random_parts(groups, 4, 1)
    assert np.bincount(part_of_listing).min() > 0
    assert all(len(set(part_of_listing[groups == group])) == 1 for group in range(60))
    assert np.bincount(part_of_listing[np.unique(groups, return_index=True)[1]]).tolist() == [15] * 4
    for fold in range(4):
        fold_model = PairModel().fit(scored_candidates, groups, texts, part_of_listing != fold)
        expected = fold_model.score(scored_candidates, texts)
        in_fold = part_of_listing == fold
        np.testing.assert_array_equal(neighbors.ids[in_fold], expected.ids[in_fold])
        np.testing.assert_array_equal(neighbors.scores[in_fold], expected.scores[in_fold])
    # the model that stays has seen all, and flatters
    seen_neighbors = model.score(scored_candidates, texts)
    expected = PairModel().fit(scored_candidates, groups, texts).score(scored_candidates, texts)
    np.testing.assert_array_equal(seen_neighbors.scores, expected.scores)
    assert best_threshold(seen_neighbors, groups)[1] > best_threshold(neighbors, groups)[1] + .003


def quick_model(): return PairModel(HistGradientBoostingClassifier(max_iter=20, random_state=0))


def test_heldout_against_a_double_loop():
    scored_candidates, groups, texts = listings(24, 3)
    rng = np.random.default_rng(3)
    n = len(groups)
    # groups that are wrong here and there, so that nothing is perfect
    groups = group_codes(np.where(rng.random(n) < .25, rng.integers(0, 24, n), groups), n)
    actual = heldout_pairs(scored_candidates, groups, texts, quick_model(), halvings=2, seed=5)
    f1_sums = np.zeros(n)
    thresholds = []
    part_of_listing = random_parts(groups, 3, 5)
    for side in random_halves(groups, 2, 5):
        for chosen_on in (side, ~side):
            model = quick_model().fit(scored_candidates, groups, texts, chosen_on)
            neighbors = model.score(scored_candidates, texts)
            ids, scores = neighbors.ids.copy(), neighbors.scores.copy()
            for fold in range(3):
                in_others = chosen_on & (part_of_listing != fold)
                fold_model = quick_model().fit(scored_candidates, groups, texts, in_others)
                fold_neighbors = fold_model.score(scored_candidates, texts)
                in_fold = chosen_on & (part_of_listing == fold)
                ids[in_fold], scores[in_fold] = fold_neighbors.ids[in_fold], fold_neighbors.scores[in_fold]
            neighbors = type(neighbors)(ids, scores)
            threshold, _ = best_threshold(neighbors, groups, chosen_on)
            f1_sums += np.where(chosen_on, 0, row_f1(decide(neighbors, threshold), groups))
            thresholds.append(threshold)
    np.testing.assert_allclose(actual.row_f1, f1_sums / 2, atol=1e-12)
    assert [option for option, _ in actual.picks] == ['pair model'] * 4
    assert np.allclose([threshold for _, threshold in actual.picks], thresholds, atol=1e-6)
    assert .3 < actual.mean < .97
    assert actual.clusters.tolist() == groups.tolist() and 0 < actual.summary()['recall_at_1'] <= 1


def test_heldout_beside_fusion_and_chance():
    scored_candidates, groups, texts = listings()
    of_model = heldout_pairs(scored_candidates, groups, texts, halvings=3)
    assert paired(of_model, heldout(fuse(scored_candidates), groups, halvings=3)).low > 0
    # groups that nothing tells of: what is learned on one half is worth nothing on the other
    random_groups = np.random.default_rng(1).permutation(groups)
    actual = heldout_pairs(scored_candidates, random_groups, texts, PairModel(linear()), halvings=3)
    assert actual.mean <= alone(random_groups).mean() + .01


def test_clusters_larger_than_groups():
    scored_candidates, groups, texts = listings(30)
    model = PairModel(linear())
    actual = heldout_pairs(scored_candidates, groups, texts, model, clusters=groups // 2, halvings=2)
    assert actual.clusters.max() == 14
    with pytest.raises(InputError, match='cut through a group'):
        heldout_pairs(scored_candidates, groups // 2, texts, clusters=groups)


SAVED = [('trees', lambda: None), ('trees', lambda: HistGradientBoostingClassifier(max_iter=30, max_depth=3)),
         ('onnx', linear), ('onnx', lambda: RandomForestClassifier(20)), ('lightgbm', None)]
FILES = {'trees': 'trees.safetensors', 'onnx': 'model.onnx', 'lightgbm': 'lightgbm.txt'}


def assert_every_flipped_bit_is_seen(folder):
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        for position in np.random.default_rng(0).integers(0, len(content), 40):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(position) % 8
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=file.name): PairModel.load(folder)
        file.write_bytes(content)


@pytest.mark.parametrize('kind, make_classifier', SAVED)
def test_save_and_load(kind, make_classifier, tmp_path):
    scored_candidates, groups, texts = listings()
    if kind == 'onnx':
        pytest.importorskip('skl2onnx')
        pytest.importorskip('onnxruntime')
    if kind == 'lightgbm':
        classifier = pytest.importorskip('lightgbm').LGBMClassifier(n_estimators=30, verbose=-1)
    else: classifier = make_classifier()
    model = PairModel(classifier).fit(scored_candidates, groups, texts)
    model.save(tmp_path/'m')
    loaded = PairModel.load(tmp_path/'m')
    expected = model.score(scored_candidates, texts).scores
    np.testing.assert_allclose(expected, loaded.score(scored_candidates, texts).scores, atol=2e-6)
    assert (loaded.names, loaded.radii, loaded._saved.kind) == (model.names, model.radii, kind)
    assert {file.name for file in (tmp_path/'m').iterdir()} == {'pair.json', FILES[kind]}
    # saved again, the same bytes
    loaded.save(tmp_path/'again')
    for file in (tmp_path/'again').iterdir():
        assert (tmp_path/'m'/file.name).read_bytes() == file.read_bytes()
    # the radii come with it: fewer listings are looked at as all were
    few_texts, vectors = titles(9, 1), np.random.default_rng(0).normal(size=(9, 12))
    spaces = {'image': Dense(vectors), 'tfidf': Tfidf(few_texts), 'phash': Keys([None] * 9)}
    few_candidates = candidates(spaces, 9)
    expected = model.score(few_candidates, few_texts).scores
    np.testing.assert_allclose(expected, loaded.score(few_candidates, few_texts).scores, atol=2e-6)
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
    def log_odds(table):
        both = np.clip(model.model.predict_proba(table).astype(float), 1e-9, 1)
        return np.log(both[:, 1] / both[:, 0])
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
    scored_candidates, groups, texts = listings()
    for name in ('skl2onnx', 'rapidfuzz'): monkeypatch.setitem(sys.modules, name, None)
    model = PairModel(linear(), use=['score']).fit(scored_candidates, groups)
    with pytest.raises(MissingPackage, match='pip install skl2onnx onnxruntime'): model.save(tmp_path/'m')
    with pytest.raises(MissingPackage, match='rapidfuzz'): PairModel().fit(scored_candidates, groups, texts)


def test_refuses():
    scored_candidates, groups, texts = listings()
    n = len(groups)
    with pytest.raises(InputError, match='no predict_proba'): PairModel(StandardScaler())
    for refused_call in (lambda model: model.score(scored_candidates), lambda model: model.save('x')):
        with pytest.raises(InputError, match='not fitted'): refused_call(PairModel())
    for invalid_groups, message in [(np.arange(n), 'none are of one group'),
                                    (np.zeros(n, int), 'all are of one group'),
                                    (groups[:-1], 'give')]:
        with pytest.raises(InputError, match=message): PairModel().fit(scored_candidates, invalid_groups)
    with pytest.raises(InputError, match='3 of .* listings were trained on'):
        PairModel().fit(scored_candidates, groups, trained_on=np.arange(n) < 3)
    with pytest.raises(InputError, match='folds=1'):
        PairModel().score_unseen(scored_candidates, groups, texts, folds=1)
    model = PairModel().fit(scored_candidates, groups, texts)
    with pytest.raises(InputError, match='length, .*title: need titles'): model.score(scored_candidates)
    few_candidates = candidates({'tfidf': Tfidf(texts)}, 5)
    with pytest.raises(InputError, match='lacks the features image'): model.score(few_candidates, texts)
    for options, message in [(dict(halvings=0), 'halvings=0'), (dict(folds=99), 'folds=99'),
                             (dict(clusters=np.zeros(n, int)), 'one group only')]:
        with pytest.raises(InputError, match=message):
            heldout_pairs(scored_candidates, groups, texts, **options)
