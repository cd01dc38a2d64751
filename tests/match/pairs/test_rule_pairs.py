"""A rule with a pair model against loops over pairs and trees; fitted out of fold; in a pool as in one self-
join."""
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Neighbors,
    PairModel,
    Pool,
    Rule,
    Step,
    augment,
    best_threshold,
    candidates,
    decide,
    fuse,
    row_f1,
)
from fastmatch.match.judge.groups import Groups
from fastmatch.match.pairs.rule_pairs import RulePairs
from tests.match.pairs.made import in_a_catalogue, linear, pools
from tests.reference import pair as reference

W = {'image': .5, 'tfidf': .5}
AUGMENT = Step('augment', by='fused', k=2)
K = 12


def fused(spaces): return fuse(candidates({name: spaces[name] for name in (*W, 'phash')}, K), 'mean', W)


def refined(spaces):
    near = fused(spaces)
    return {**spaces, **{name: augment(spaces[name], near, k=2) for name in W}}


def pairs_of(spaces, n_rows=None, model=None):
    after = refined(spaces)
    return RulePairs(fused(after), after, plain=spaces, n_rows=n_rows, model=model)


def fitted_rule(n_groups=60, classifier=None, steps=()):
    "(rule, spaces, groups, rows), chosen on the first listings in a pool with the others."
    spaces, groups, n_rows = in_a_catalogue(n_groups)
    model, neighbors = pairs_of(spaces, n_rows, PairModel(classifier)).crossed(groups)
    threshold, _ = best_threshold(neighbors, Groups(groups, rows=n_rows))
    rule = Rule('mean', W, threshold, K, join=('phash',),
                steps=[AUGMENT, Step('pair_model', model=model), *steps])
    return rule, spaces, groups, n_rows


def walked(model, values):
    "The probability of one pair from the numbers in a rule's json, a node at a time."
    trees, total = model['content'], model['content']['base'][0]
    for node in trees['start'][:-1]:
        while not trees['leaf'][node]:
            value = np.float32(values[model['names'][trees['feature'][node]]])
            node = trees['left' if value <= trees['threshold'][node] else 'right'][node]
        total += trees['value'][node]
    odds = math.exp(total) * model['kept']
    return odds / (1 + odds)


@pytest.mark.parametrize('m', [1, 9, None])
def test_a_rule_against_loops_over_pairs_and_trees(m):
    rule, spaces, _, n_rows = fitted_rule()
    n_rows = m or n_rows
    n = len(spaces['titles'])
    after, every = refined(spaces), np.arange(n)
    near_all = fused(after)
    near = [[int(j) for j in row[1:] if j >= 0] for row in near_all.ids]
    matrices = {name: after[name].scores(every[:, None], every) for name in W}
    matrices |= {f'plain {name}': spaces[name].scores(every[:, None], every) for name in W}
    matrices['phash'] = spaces['phash'].scores(every[:, None], every)
    scores = {name: [{j: float(matrix[i, j]) for j in near[i]} for i in range(n)]
              for name, matrix in matrices.items()}
    scores['fused'] = [dict(zip(ids.tolist(), of_row.tolist())) for ids, of_row in zip(*near_all)]
    model = json.loads(json.dumps(rule.to_dict()))['steps'][1]['params']['model']
    assert set(model['radii']) == {'image', 'tfidf', 'plain image', 'plain tfidf', 'fused'}
    features = reference.features(near, scores, ['phash'], spaces['titles'].titles, model['radii'], 5)
    decision = rule.run(pools(spaces, n_rows))
    assert len(decision.matches) == n_rows == decision.pairs.n_rows
    found = decision.neighbors.check()
    for i in range(n_rows):
        wanted = {j: 1. if matrices['phash'][i, j] == 1 else walked(model, features[i, j]) for j in near[i]}
        got = dict(zip(found.ids[i, 1:].tolist(), found.scores[i, 1:].tolist()))
        got.pop(-1, None)
        assert got == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize('steps', [(), ('veto', 'min2'), (Step('mutual', k=5), 'veto'),
                                   (Step('min2', mutual=True),), ('components',)])
@pytest.mark.parametrize('m', [1, 30])
def test_a_pool_is_one_self_join(steps, m):
    rule, spaces, _, _ = fitted_rule(steps=steps)
    whole, part = rule.run(spaces), rule.run(pools(spaces, m))
    assert len(part.matches) == len(part.neighbors.ids) == m
    for one, both in zip(part.neighbors, whole.neighbors): np.testing.assert_array_equal(one, both[:m])
    for name in ('indptr', 'ids', 'scores'):
        np.testing.assert_array_equal(getattr(part.matches, name), getattr(whole.matches.head(m), name))
    assert [name for name, _ in part.trail] == [name for name, _ in whole.trail]
    # where a later step asks for the neighbors' neighbors all pairs are scored
    rows_suffice = steps in ((), ('veto', 'min2'))
    assert part.pairs.n_rows == (m if rows_suffice else len(spaces['titles']))


def test_kept_as_json_with_the_same_bits():
    rule, spaces, _, n_rows = fitted_rule()
    again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule and repr(again) == repr(rule) and hash(again.steps[1]) == hash(rule.steps[1])
    assert 'PairModel(trees, ' in repr(rule) and len(repr(rule)) < 600
    for one, two in zip(
        rule.run(pools(spaces, n_rows)).neighbors, again.run(pools(spaces, n_rows)).neighbors
    ):
        np.testing.assert_array_equal(one, two)
    # read once, whatever becomes of the rule
    assert replace(rule, threshold=.1).steps[1].pair_model is rule.steps[1].pair_model
    other, *_ = fitted_rule(50)
    assert other != rule


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['onnx', 'lightgbm'])
def test_other_classifiers_in_a_rule(kind):
    pytest.importorskip('skl2onnx' if kind == 'onnx' else 'lightgbm')
    if kind == 'onnx': classifier = linear()
    else: classifier = pytest.importorskip('lightgbm').LGBMClassifier(n_estimators=20, verbose=-1)
    rule, spaces, _, n_rows = fitted_rule(classifier=classifier)
    again = Rule.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule and f'PairModel({kind}' in repr(again)
    for one, two in zip(rule.run(spaces).neighbors, again.run(spaces).neighbors):
        np.testing.assert_array_equal(one, two)


def test_equal_keys_match_by_themselves():
    rule, spaces, _, n_rows = fitted_rule()
    # nothing else reaches this
    decision = replace(rule, threshold=2.).run(pools(spaces, n_rows))
    rows, ids, _ = decision.neighbors.pairs()
    equal = {(i, j) for i, j in zip(rows, ids) if i != j and spaces['phash'].scores([i], [j])[0] == 1}
    assert equal and {(i, j) for i in range(n_rows) for j in decision.matches[i] if i != j} == equal
    # the neighbors that a threshold is chosen on have them on top as well
    neighbors = pairs_of(spaces, n_rows).neighbors(np.zeros(len(decision.pairs), np.float32)).check()
    assert {(i, j) for i, j, score in zip(*neighbors.pairs()) if i != j and score == 1} == equal


def test_features_are_those_of_candidates():
    "The scores of the fused neighbors in all modalities, for the first rows alone."
    spaces, groups, n_rows = in_a_catalogue()
    pairs, whole = pairs_of(spaces, n_rows), pairs_of(spaces)
    assert pairs.features.shape == (len(pairs), len(pairs.names)) == (len(pairs.rows), len(whole.names))
    first = whole.rows < n_rows
    np.testing.assert_array_equal(pairs.ids, whole.ids[first])
    # but for the radii, which are the judged listings' own
    alike = ['within' not in name for name in pairs.names]
    np.testing.assert_array_equal(pairs.features[:, alike], whole.features[first][:, alike])
    np.testing.assert_array_equal(pairs.same(groups), groups[pairs.rows] == groups[pairs.ids])
    for name, where in (('image', refined(spaces)), ('plain image', spaces)):
        wanted = where['image'].scores(pairs.rows, pairs.ids)
        np.testing.assert_array_equal(pairs.features[:, pairs.names.index(name)], wanted)
    # without steps on vectors the plain scores are the scores
    plain = RulePairs(fused(spaces), spaces, n_rows=n_rows)
    assert list(plain.candidates.scores) == ['image', 'tfidf', 'fused', 'phash']


def test_blocks_change_nothing(monkeypatch):
    spaces, groups, n_rows = in_a_catalogue()
    pairs = pairs_of(spaces, n_rows)
    model = pairs.fit(groups)
    wanted = model.probabilities(pairs.features)
    monkeypatch.setattr('fastmatch.match.pairs.rule_pairs.BLOCK_PAIRS', 100)
    np.testing.assert_array_equal(pairs_of(spaces, n_rows, model).probabilities(model), wanted)
    np.testing.assert_array_equal(pairs_of(spaces, n_rows).features, pairs.features)
    ids, features = pairs.of_row(3)
    np.testing.assert_array_equal(ids, pairs.ids[pairs.rows == 3])
    np.testing.assert_array_equal(features, pairs.features[pairs.rows == 3])


def test_crossed_scores_are_unseen():
    spaces, groups, n_rows = in_a_catalogue()
    pairs = pairs_of(spaces, n_rows)
    half = groups[:n_rows] % 2 == 0
    model, neighbors = pairs.crossed(groups, half, folds=3, seed=1)
    probability = {(i, j): score for i, j, score in zip(*neighbors.check().pairs())}
    unseen = pairs.unseen_probabilities(groups, half, 3, 1)
    np.testing.assert_array_equal(np.isnan(unseen), ~half[pairs.rows])
    by_model = pairs.fit(groups, half).probabilities(pairs.features)
    equal = pairs.candidates.scores['phash'][pairs.rows, pairs.columns] == 1
    for place, (i, j) in enumerate(zip(pairs.rows, pairs.ids)):
        wanted = 1 if equal[place] else unseen[place] if half[i] else by_model[place]
        assert probability[i, j] == wanted
    # what other listings' groups are is not asked: theirs, and the other halves', may be anything
    other = groups.copy()
    other[:n_rows][~half] = np.random.default_rng(0).permutation(other[:n_rows][~half])
    np.testing.assert_array_equal(pairs.crossed(other, half, seed=1)[1].scores, neighbors.scores)
    assert model.reads_titles and model.names == pairs.names


def test_the_model_adds_to_the_fusion():
    gains = []
    for seed in range(3):
        spaces, groups, n_rows = in_a_catalogue(160, seed, 100)
        codes, pairs = Groups(groups, rows=n_rows), pairs_of(spaces, n_rows)
        half = codes.row_codes % 2 == 0
        model, neighbors = pairs.crossed(groups, half)
        for_plain = fused(refined(spaces)).head(n_rows)
        value = []
        for near in (neighbors, for_plain):
            threshold, _ = best_threshold(near, codes, half)
            value.append(row_f1(decide(near, threshold, pool=len(groups)), codes)[~half].mean())
        gains.append(value[0] - value[1])
    assert np.mean(gains) > .02


def test_refuses():
    rule, spaces, groups, n_rows = fitted_rule()
    step = rule.steps[1]
    with pytest.raises(InputError, match=r"reads the scores of \['tfidf', 'plain tfidf'\]"):
        Rule('mean', {'image': 1.}, .5, steps=[step])
    without_titles = {name: space for name, space in spaces.items() if name != 'titles'}
    assert rule.reads == ['image', 'tfidf', 'phash', 'titles']
    with pytest.raises(InputError, match=r"needs the modalities \['titles'\]"): rule.run(without_titles)
    with pytest.raises(InputError, match='lacks the features phash'):
        replace(rule, join=()).run(spaces)
    apart = {name: Pool(pool.new, pool.catalogue, within=False) for name, pool in pools(spaces, 9).items()}
    with pytest.raises(InputError, match="within=False: step 'pair_model'"):
        replace(rule, steps=rule.steps[1:]).run(apart)
    for given, says in (
        ({}, 'give a fitted'),
        ({'model': PairModel()}, 'not fitted'),
        ({'model': {'kind': 'trees'}}, 'what `PairModel.to_dict` gave'),
        ({'model': 5}, 'gave'),
        ({'model': step.pair_model, 'k': 3}, "unexpected keyword argument 'k'"),
    ):
        with pytest.raises(InputError, match=says): Step('pair_model', **given)
    saved = step.pair_model.to_dict()
    for change, says in (
        ({'use': ['colour']}, "use=\\['colour'\\]"),
        ({'medians': [1.0]}, 'do not fit together'),
        ({'kind': 'pickle'}, "kind='pickle'"),
        ({'names': ['image']}, 'fit together'),
    ):
        with pytest.raises(InputError, match=says): Step('pair_model', model={**saved, **change})


def test_pairs_refuse():
    spaces, groups, n_rows = in_a_catalogue()
    near = fused(spaces)
    pairs = RulePairs(near, spaces, n_rows=n_rows)
    for use, says in (
        (lambda: RulePairs(near, spaces, n_rows=999), 'n_rows=999'),
        (lambda: RulePairs(Neighbors(near.ids[:, 1:], near.scores[:, 1:]), spaces), 'itself'),
        (lambda: pairs.fit(groups[:-1]), 'groups of 72 listings in a pool of 214'),
        (lambda: pairs.fit(np.arange(len(groups))), 'none are of one group'),
        (lambda: pairs.fit(groups, np.zeros(3, bool)), 'rows of dtype bool'),
        (lambda: pairs.crossed(groups, folds=99), 'folds=99'),
        (lambda: RulePairs(near, {**spaces, 'fused': Dense(np.eye(len(groups)))}), "named 'fused'"),
    ):
        with pytest.raises(InputError, match=says): use()
