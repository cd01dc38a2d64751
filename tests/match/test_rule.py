"The decision: every cut tried by brute force, what a cut lets in, and a rule kept as json."
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Embeddings,
    Matches,
    Neighbors,
    Rule,
    Sweep,
    Tfidf,
    best_threshold,
    candidates,
    choose_rule,
    decide,
    fuse,
    fusion_grid,
    group,
    heldout_fused,
    row_f1,
)
from fastmatch.match.thresholds.sweep import PADDING, _buckets
from tests.match.cases import cases, noisy, titles
from tests.reference import match as ref

NB = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


@settings(max_examples=300, deadline=None)
@given(
    case=cases(),
    max_matches=st.integers(1, 10),
    part=st.none() | st.integers(0, 99),
    as_numbers=st.booleans(),
)
def test_best_threshold_is_the_best(case, max_matches, part, as_numbers):
    neighbors, labels = case
    n = len(labels)
    mask = np.ones(n, bool) if part is None else np.random.default_rng(part).random(n) < .5
    mask[0] |= not mask.any()
    rows = None if part is None else np.flatnonzero(mask) if as_numbers else mask
    threshold, value = best_threshold(neighbors, labels, rows, max_matches)
    want = ref.best_threshold(neighbors.ids, neighbors.scores, labels, np.flatnonzero(mask), max_matches)
    assert value == pytest.approx(want[1], abs=1e-9)
    # the very cut: float64, midway, the highest of the best
    assert threshold == want[0] and isinstance(threshold, float)
    seen = neighbors.scores[mask, 1:max_matches].astype(np.float64)
    assert not (seen == threshold).any()
    # what it promises is what it does
    f1 = row_f1(decide(neighbors, threshold, max_matches), labels)
    assert f1[mask].mean() == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(Sweep(neighbors, labels, max_matches).at(threshold), f1, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(case=cases(), max_matches=st.integers(1, 10),
       threshold=st.sampled_from([-np.inf, -.75, 0, .25, .5, .5 + 2**-25, .5 + 2**-24, 1, 100, np.inf]))
def test_decide(case, max_matches, threshold):
    neighbors, labels = case
    matches = decide(neighbors, threshold, max_matches)
    want = ref.decide(neighbors.ids, neighbors.scores, threshold, max_matches)
    assert [item.tolist() for item in matches] == want and len(matches) == len(want)
    assert [matches[i].tolist() for i in range(len(matches))] == want and [
        matches[i - len(matches)].tolist() for i in range(len(matches))
    ] == want
    for i, item in enumerate(matches):
        assert len(item) <= max_matches and item[0] == i
        np.testing.assert_array_equal(
            matches.scores[matches.indptr[i] : matches.indptr[i + 1]],
            [neighbors.scores[i, neighbors.ids[i].tolist().index(j)] for j in item],
        )
    np.testing.assert_allclose(
        Sweep(neighbors, labels, max_matches).at(threshold), ref.row_f1(want, labels), atol=1e-12
    )
    np.testing.assert_array_equal(group(matches), ref.group(want))


@settings(max_examples=200, deadline=None)
@given(
    x=st.lists(
        st.floats(width=32, allow_nan=False)
        | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), np.inf, -np.inf])
    )
)
def test_buckets_fall_with_the_score(x):
    x = np.sort(np.array(x, np.float32))
    b = _buckets(x).astype(int)
    assert (np.diff(b) <= 0).all() and (b[1:] == b[:-1])[x[1:] == x[:-1]].all()
    np.testing.assert_array_equal(b >= PADDING, x == -np.inf)


@pytest.mark.parametrize('k, n_groups, spread', [(6, 20, .3), (6, 20, .003), (9, 4, .3), (6, 20, 1e-7)])
def test_best_threshold_of_many_edges(k, n_groups, spread):
    """Scores over many buckets and in a few, mates nearer, much further, and not at all: the cut is brute
    force's."""
    rng = np.random.default_rng(k + n_groups)
    labels = rng.integers(0, n_groups, 60)
    rows, ids = np.repeat(np.arange(60), k), rng.integers(0, 60, 60 * k)
    for sign in (1, -1, 0):
        scores = .6 + spread * (rng.normal(size=len(rows)) + 2 * sign * (labels[rows] == labels[ids]))
        neighbors = Neighbors.from_pairs(rows, ids, np.where(scores > .6 - spread, scores, -scores), 60)
        for part in (None, rng.random(60) < .3):
            want = ref.best_threshold(
                neighbors.ids,
                neighbors.scores,
                labels,
                np.arange(60) if part is None else np.flatnonzero(part),
                50,
            )
            assert best_threshold(neighbors, labels, part) == (want[0], pytest.approx(want[1], abs=1e-9))


def test_nothing_is_let_in_when_nothing_helps():
    # all neighbours wrong; and one right of three is not worth it
    for labels, rows in (([0, 1, 2, 3, 4], None), ([0, 1, 2, 3, 3], [0, 1, 2])):
        threshold, value = best_threshold(NB, labels, rows)
        assert (
            threshold > 0.75
            and value
            == ref.row_f1([[i] for i in range(5)], labels)[slice(None) if rows is None else rows].mean()
        )
        assert [item.tolist() for item in decide(NB, threshold)][:3] == [[0], [1], [2]]
    alone = Neighbors.from_pairs([], [], [], 3)
    assert best_threshold(alone, [0, 0, 1]) == (1.001, pytest.approx((2 / 3 + 2 / 3 + 1) / 3))
    assert best_threshold(NB, [0, 0, 1, 1, 1], max_matches=1)[0] == 1.001


@pytest.mark.parametrize('seed', [757, 1227])
def test_a_gain_that_is_only_rounding_is_none(seed):
    "Two cuts of the same worth, of which the lower sums up to a few bits more: the higher is taken."
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 14)
    rows, ids = np.nonzero(rng.random((14, 14)) < .4)
    neighbors = Neighbors.from_pairs(
        rows, ids, rng.integers(0, 40, len(rows)) / 64 + (labels[rows] == labels[ids]) * 0.05, 14
    )
    want = ref.best_threshold(neighbors.ids, neighbors.scores, labels, range(14), 50)
    assert best_threshold(neighbors, labels) == (want[0], pytest.approx(want[1], abs=1e-9))


def test_padding_is_never_let_in():
    labels = [0, 0, 1, 1, 1]
    for matches in (NB.top(2), NB):
        np.testing.assert_allclose(
            Sweep(matches, labels).at(-np.inf), row_f1(decide(matches, -np.inf), labels)
        )
        assert all((item >= 0).all() for item in decide(matches, -np.inf))


def test_two_listings():
    neighbors = Dense([[1., 0], [1., .5]]).search(2)
    threshold, value = best_threshold(neighbors, ['a', 'a'])
    assert value == 1 and threshold == pytest.approx(float(neighbors.scores[0, 1]) - 1e-3)
    assert [item.tolist() for item in decide(neighbors, threshold)] == [[0, 1], [1, 0]]
    threshold, value = best_threshold(neighbors, ['a', 'b'])
    assert (
        value == 1
        and threshold > neighbors.scores[0, 1]
        and [item.tolist() for item in decide(neighbors, threshold)] == [[0], [1]]
    )


def test_string_labels_do_as_well():
    labels = np.array([0, 0, 1, 1, 1])
    assert best_threshold(NB, labels) == best_threshold(NB, [f'g{label}' for label in labels])


@pytest.mark.parametrize(
    'rows', [[], np.zeros(5, bool), np.zeros(0, int), [5], [-1], [True, False], np.ones(6, bool), [0.5]]
)
def test_rows_refused(rows):
    with pytest.raises(InputError, match='^rows'): best_threshold(NB, [0, 0, 1, 1, 1], rows)


def test_rows_as_lists():
    labels = [0, 0, 1, 1, 1]
    want = best_threshold(NB, labels, np.array([True, True, False, False, True]))
    assert (
        best_threshold(NB, labels, [True, True, False, False, True])
        == best_threshold(NB, labels, [4, 0, 1])
        == want
    )


def test_decide_refuses():
    with pytest.raises(InputError, match='NaN'): decide(NB, np.nan)
    for k in (0, -1):
        with pytest.raises(InputError): decide(NB, .5, k)
        with pytest.raises(InputError): best_threshold(NB, [0, 0, 1, 1, 1], max_matches=k)
    with pytest.raises(InputError, match='give 5'): best_threshold(NB, [0, 0, 1])
    with pytest.raises(InputError, match='missing in rows 1'): best_threshold(NB, ['a', None, 'b', 'c', 'c'])


def test_to_frame():
    matches = decide(NB, .5)
    df = matches.to_frame(['p0', 'p1', 'p2', 'p3', 'p4'])
    assert df.columns.tolist() == ['posting_id', 'matches'] and df.posting_id.tolist() == [
        'p0',
        'p1',
        'p2',
        'p3',
        'p4',
    ]
    assert df.matches.tolist() == ['p0 p1 p2', 'p1 p0', 'p2 p0', 'p3', 'p4']
    assert decide(NB, -1, 2).to_frame(np.arange(5) * 7).matches.tolist() == [
        '0 7',
        '7 0',
        '14 0',
        '21 28',
        '28',
    ]
    with pytest.raises(InputError, match='4 for 5'): matches.to_frame(list('abcd'))
    big = decide(Dense(np.ones((70, 2))).search(70), .5).to_frame(range(70))
    assert (big.matches.str.split(' ').str.len() == 50).all() and (
        big.matches.str.split(' ').str[0] == big.posting_id
    ).all()


def test_matches_indexing():
    matches = decide(NB, .5)
    assert (
        matches[-1].tolist() == [4]
        and matches[-5].tolist() == [0, 1, 2]
        and matches[np.int64(1)].tolist() == [1, 0]
    )
    for i in (5, -6):
        with pytest.raises(IndexError): matches[i]


def test_group():
    assert group(decide(NB, .5)).tolist() == [0, 0, 0, 1, 2]
    # a chain that is linked one way only, its first listing last
    matches = Matches(np.array([0, 1, 3, 5, 6]), np.array([0, 1, 3, 2, 0, 3]), np.ones(6, np.float32))
    assert group(matches).tolist() == [0, 1, 0, 1] and group(matches).dtype == np.int64
    assert group(Matches(np.array([0, 1]), np.array([0]), np.ones(1, np.float32))).tolist() == [0]


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 30), links=st.integers(0, 30), seed=st.integers(0, 999))
def test_group_is_union_find(n, links, seed):
    rng = np.random.default_rng(seed)
    sets = [[i] for i in range(n)]
    for i, j in rng.integers(0, n, (links, 2)): sets[i].append(int(j))
    matches = Matches(
        np.cumsum([0] + [len(item) for item in sets]), np.concatenate(sets), np.ones(n + links, np.float32)
    )
    np.testing.assert_array_equal(group(matches), ref.group(sets))


SPACES = {'image': Dense(noisy(60, 6, 0, 60)), 'tfidf': Tfidf(titles(60, 0))}
LABELS = np.random.default_rng(1).integers(0, 20, 60)


@pytest.mark.parametrize('k, max_matches', [(60, 50), (12, 5), (12, 12)])
def test_rule_keeps_its_promise(k, max_matches, tmp_path):
    rule = choose_rule(candidates(SPACES, k), LABELS, max_matches=max_matches)
    (tmp_path/'rule.json').write_text(json.dumps(rule.to_dict()))
    again = Rule.from_dict(json.loads((tmp_path/'rule.json').read_text()))
    assert again == rule and again.k == k and again.max_matches == max_matches
    f1 = row_f1(again.apply(SPACES), LABELS)
    assert f1.mean() == pytest.approx(rule.score['row_f1_chosen_on'], abs=1.01e-5 / 2)
    # modalities that the rule doesn't name don't matter
    for a, b in zip(again.apply(SPACES), again.apply({'else': SPACES['image'], **SPACES})):
        np.testing.assert_array_equal(a, b)


def test_a_rule_takes_as_many_as_there_are():
    """Its `k` stays what it was, whatever it is applied to; one chosen without a `k` on few asks for 50 among
    many."""
    few = {name: item.take(np.arange(7)) for name, item in SPACES.items()}
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .2)
    want = decide(fuse(candidates(few, 7), 'mean', rule.weights), .2)
    assert (
        rule.k == 50
        and [item.tolist() for item in rule.apply(few)] == [item.tolist() for item in want]
        and rule.neighbors(SPACES).ids.shape[1] >= 50
    )
    assert (
        choose_rule(candidates(few), LABELS[:7]).k == 50
        and choose_rule(candidates(few, 7), LABELS[:7]).k == 7
    )
    blended = Rule('mean', rule.weights, .2, steps=['blend', 'augment', 'expand'])
    assert len(blended.apply(few)) == 7 and blended.neighbors(few).ids.shape[1] <= 7


def test_choose_rule_takes_the_best_of_the_grid():
    scored = candidates(SPACES, 60)
    grid = [('mean', {'image': 1.}), ('mean', {'tfidf': 1.}), ('prob_or', {'image': 2., 'tfidf': 1.}),
            ('union', {'image': .5, 'tfidf': .3})]
    values = []
    sims = {
        name: np.array(item.scores(np.arange(60)[:, None], np.arange(60)), np.float64)
        for name, item in SPACES.items()
    }
    for how, weights in grid:
        full = ref.nearest(ref.fuse(sims, how, weights), 60)
        values.append(ref.best_threshold(full[0], full[1].astype(np.float32), LABELS, range(60), 50)[1])
    rule = choose_rule(scored, LABELS, grid)
    assert (rule.how, rule.weights) == grid[int(np.argmax(values))]
    assert rule.score['row_f1_chosen_on'] == pytest.approx(max(values), abs=2e-3)


def test_choose_rule_among_more_fusions():
    scored = candidates(SPACES, 60)
    names = list(SPACES)
    grid = fusion_grid(names, ('power', 'square', 'joint'))
    assert (
        len(grid) == 2 * 11 + 2 * 3**2
        and {item[0] for item in grid} == {'power', 'square', 'joint'}
        and all(len(item) == 2 + (item[0] == 'power') for item in grid)
    )
    for part in (grid, [item for item in grid if item[0] == 'power']):
        rule = choose_rule(scored, LABELS, part)
        best = max(
            best_threshold(fuse(scored, how, weights, **dict(*more)), LABELS)[1]
            for how, weights, *more in part
        )
        assert (
            rule.score['row_f1_chosen_on']
            == round(best, 5)
            == round(row_f1(rule.apply(SPACES), LABELS).mean(), 5)
        )
        assert (rule.how, rule.weights, *([rule.options] if rule.options else [])) in part
    assert {pick[0][0] for pick in heldout_fused(scored, LABELS, grid, halvings=2).picks} <= {
        'power',
        'square',
        'joint',
    }
    with pytest.raises(InputError, match='union'): fusion_grid(names, ('union',))


@pytest.mark.parametrize(
    'bad, says',
    [
        ({'how': 'max'}, "how='max'"),
        ({'weights': {}}, 'none is above 0'),
        ({'weights': {'a': 0.0}}, 'none is above 0'),
        ({'weights': {'a': -1.0}}, '0 or more'),
        ({'weights': {'a': np.nan}}, 'finite'),
        ({'weights': {'a': np.inf}}, 'finite'),
        ({'threshold': np.nan}, 'finite'),
        ({'k': 0}, 'k=0'),
        ({'max_matches': 0}, 'max_matches=0'),
        ({'threshold': 84}, "'threshold': 84}: outside the range"),
        ({'threshold': -2.0}, 'outside'),
        ({'how': 'union', 'weights': {'a': 84.0}}, "'a': 84.0}: outside"),
        ({'how': 'power', 'weights': {'a': 1.2}}, 'outside'),
    ],
)
def test_rule_refuses(bad, says):
    good = {'how': 'mean', 'weights': {'a': 1.}, 'threshold': .5}
    Rule(**good)
    with pytest.raises(InputError, match=says): Rule(**{**good, **bad})
    with pytest.raises(InputError, match=says): Rule.from_dict({**good, **bad})


def test_rule_from_dict_refuses():
    good = {'how': 'mean', 'weights': {'a': 1}, 'threshold': 0.}
    with pytest.raises(InputError, match=r"unknown entries \['cut'\]"): Rule.from_dict({**good, 'cut': 1})
    with pytest.raises(InputError, match=r"\['threshold', 'weights'\] missing"):
        Rule.from_dict({'how': 'mean'})
    with pytest.raises(InputError, match=r"needs the modalities \['title'\]"):
        Rule('mean', {'image': .5, 'title': .5}, .5).apply(SPACES)


def test_a_rule_remembers_how_the_vectors_it_was_chosen_on_were_made():
    vectors = {'image': SPACES['image'].vectors}
    settings = {'tta': True, 'size': (104, 104)}
    emb = Embeddings(vectors, np.arange(60), titles(60, 0), LABELS, made_with=settings)
    found = candidates(emb.spaces())
    assert found.made_with == settings
    rule = choose_rule(found, emb.groups)
    # as json gives it back
    assert rule.made_with == {'tta': True, 'size': [104, 104]}
    assert Rule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    # what is not known is not kept, and leaves the rule as it was written before
    unknown = choose_rule(candidates(Embeddings(vectors, np.arange(60), titles(60, 0)).spaces()), LABELS)
    assert unknown.made_with is None and 'made_with' not in unknown.to_dict()
