"The held-out protocol against a double loop, its errors against a formula and a simulation."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    HeldOut,
    Tfidf,
    alone,
    alone_heldout,
    candidates,
    fuse,
    fusion_grid,
    heldout,
    heldout_fused,
    map_at_r,
    paired,
    recall_at,
)
from fastmatch.match.judge.heldout import random_halves
from tests.match.cases import cases, noisy, titles
from tests.reference import match as ref


def naive(options, labels, groups, halvings, seed, max_matches=50):
    seen = {o: i for i, o in reversed(list(enumerate(dict.fromkeys(groups))))}
    masks = list(random_halves(np.array([seen[o] for o in groups]), halvings, seed))
    return ref.heldout({k: tuple(o) for k, o in options.items()}, list(labels), masks, max_matches)


@settings(max_examples=60, deadline=None)
@given(case=cases(smallest=3), halvings=st.integers(1, 4), seed=st.integers(0, 9), max_matches=st.sampled_from([1, 3, 50]),
       other=st.booleans())
def test_one_option_against_a_double_loop(case, halvings, seed, max_matches, other):
    nb, labels = case
    groups = (np.asarray(labels) // 2 + 7) if other else labels
    if len(set(groups)) < 2: return
    names = [f'g{o}' for o in labels]
    got = heldout(nb, names, groups if other else None, halvings, seed, max_matches)
    want, picks = naive({'': nb}, labels, list(groups), halvings, seed, max_matches)
    np.testing.assert_allclose(got.row_f1, want, atol=1e-12)
    assert got.picks == picks and len(picks) == 2 * halvings
    np.testing.assert_allclose(got.recall_at_1, recall_at(nb, labels), atol=1e-12)
    np.testing.assert_allclose(got.map_at_r, map_at_r(nb, labels), atol=1e-12)
    assert got.mean == pytest.approx(want.mean()) and got.se == pytest.approx(ref.cluster_se(want, list(groups)), abs=1e-12)


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n // 3, n)
    centres = rng.normal(size=(n, 6))
    return Dense(centres[labels] + rng.normal(size=(n, 6)) * .7), Dense(centres[labels] + rng.normal(size=(n, 6))), labels


@pytest.mark.parametrize('seed', [7, 9])
def test_several_options_against_a_double_loop(seed):
    a, _, labels = data(seed=seed)
    # nearly as good as the first, so that some halves take it
    close = Dense(a.vectors + np.random.default_rng(seed + 100).normal(size=a.vectors.shape) * .15)
    options = {'a': a.search(8), 'close': close.search(12), 'again': a.search(8), 'tfidf': Tfidf(titles(40, seed)).search(5)}
    got = heldout(options, labels, halvings=5, seed=seed)
    want, picks = naive(options, labels, list(labels), 5, seed)
    np.testing.assert_allclose(got.row_f1, want, atol=1e-12)
    assert got.picks == picks and {o for o, _ in picks} == {'a', 'close'}
    recall, ap = {k: recall_at(o, labels) for k, o in options.items()}, {k: map_at_r(o, labels) for k, o in options.items()}
    for got_, each in ((got.recall_at_1, recall), (got.map_at_r, ap)):
        total = np.zeros(40)
        codes = np.unique(labels, return_inverse=True)[1]
        first = np.array([list(dict.fromkeys(codes)).index(o) for o in codes])
        for mask, (p, q) in zip(random_halves(first, 5, seed), zip(picks[::2], picks[1::2])):
            total += np.where(mask, each[q[0]], each[p[0]])
        np.testing.assert_allclose(got_, total / 5, atol=1e-12)


def test_fused_is_heldout_over_the_grid():
    a, b, labels = data(30)
    cand = candidates({'a': a, 'b': b}, 30)
    got = heldout_fused(cand, labels, halvings=2)
    want = heldout({(how, tuple(w.items())): fuse(cand, how, w) for how, w in fusion_grid('ab')}, labels, halvings=2)
    np.testing.assert_array_equal(got.row_f1, want.row_f1)
    assert got.picks == want.picks and all(o[0] in ('mean', 'prob_or') for o, _ in got.picks)
    one = heldout_fused(cand, labels, [('mean', {'b': 1.})], halvings=2)
    np.testing.assert_array_equal(one.row_f1, heldout(fuse(cand, 'mean', {'b': 1.}), labels, halvings=2).row_f1)


@pytest.mark.parametrize('sizes', [[1, 1], [3, 1, 2], [2] * 9 + [5]])
def test_halves_keep_groups_together(sizes):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    masks = list(random_halves(groups, 20, 3))
    assert len(masks) == 20 and (len(sizes) < 3 or len({o.tobytes() for o in masks}) > 1)
    for mask in masks:
        inside = {int(g) for g in groups[mask]}
        assert len(inside) == len(sizes) // 2 and not inside & set(groups[~mask].tolist())
    assert all((x == y).all() for x, y in zip(masks, random_halves(groups, 20, 3)))
    assert any((x != y).any() for x, y in zip(masks, random_halves(groups, 20, 4)))


def test_the_label_never_helps_its_own_half():
    "Random scores, labels of their own half would choose a cut that pays there: held out, it doesn't pay."
    rng = np.random.default_rng(0)
    x, labels = Dense(rng.normal(size=(60, 30))), np.arange(60) // 2
    got = heldout(x.search(10), labels, halvings=5)
    assert got.mean <= alone(labels).mean() + .01


def test_summary():
    a, _, labels = data()
    labels[labels == labels[0]] = 999
    got = heldout(a.search(9), labels)
    s = got.summary()
    assert set(s) == {'row_f1', 'se', 'recall_at_1', 'map_at_r', 'n'} and s['n'] == 40
    assert s['row_f1'] == round(got.row_f1.mean(), 5) and s['se'] == round(got.se, 5)
    assert s['recall_at_1'] == round(np.nanmean(recall_at(a.search(9), labels)), 5)
    assert s['map_at_r'] == round(np.nanmean(map_at_r(a.search(9), labels)), 5)
    assert all(type(o) in (int, float) for o in s.values()) and f'{got.mean:.3f}' in repr(got) and 'n=40' in repr(got)
    lone = alone_heldout(list('aabc'))
    assert lone.row_f1.tolist() == alone(list('aabc')).tolist()
    want = {'row_f1': round(10 / 12, 5), 'recall_at_1': None, 'map_at_r': None, 'n': 4}
    assert {k: v for k, v in lone.summary().items() if k != 'se'} == want
    single = heldout(a.search(3), np.arange(40)).summary()
    assert single['recall_at_1'] is None and single['map_at_r'] is None


def test_refuses():
    a, b, labels = data()
    nb = a.search(5)
    for args, says in [((nb, [1] * 40), 'one group only'), ((nb, labels, [1] * 40), 'one group only'), (({}, labels), 'options'),
                       ((nb, labels[:-1]), 'give 40'), ((nb, labels, labels[:-1]), 'give 40'),
                       (({'a': nb, 'b': Dense(np.ones((3, 2))).search(2)}, labels), 'give 3')]:
        with pytest.raises(InputError, match=says): heldout(*args)
    with pytest.raises(InputError, match='halvings=0'): heldout(nb, labels, halvings=0)
    with pytest.raises(InputError, match='max_matches=0'): heldout(nb, labels, max_matches=0)


def test_cluster_se_against_a_simulation():
    "The spread of the mean over fresh draws of correlated groups; the plain formula is too small by half."
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 8, 60))
    def draw(): return rng.normal(size=60)[groups] + rng.normal(size=len(groups)) * .5
    means, ses = zip(*((o.mean, o.se) for o in (HeldOut(draw(), groups) for _ in range(1500))))
    assert np.mean(ses) == pytest.approx(np.std(means), rel=.1)
    x = draw()
    assert HeldOut(x, groups).se == pytest.approx(ref.cluster_se(x, list(groups)), rel=1e-9) and np.std(x) / len(x)**.5 < .7 * np.std(means)
    # each listing its own group: the textbook's
    assert HeldOut(x, np.arange(len(x))).se == pytest.approx(x.std(ddof=1) / len(x)**.5)


def test_paired():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(150), rng.integers(1, 5, 150))
    shared, n = rng.random(150)[groups], len(groups)
    a, b = (HeldOut(shared + o + rng.normal(size=150)[groups] * .1 + rng.normal(size=n) * .1, groups) for o in (.03, 0))
    got = paired(a, b)
    d = a.row_f1 - b.row_f1
    assert got.diff == pytest.approx(d.mean()) and got.se == pytest.approx(ref.cluster_se(d, list(groups)), rel=1e-9)
    assert got.low == pytest.approx(got.diff - 1.96 * got.se, abs=.15 * got.se)
    assert got.high == pytest.approx(got.diff + 1.96 * got.se, abs=.15 * got.se)
    wide = paired(a, b, level=.99)
    assert wide.high == pytest.approx(got.diff + 2.576 * got.se, abs=.3 * got.se) and wide.low < got.low
    back = paired(b, a)
    assert back.diff == -got.diff and back.low == pytest.approx(-got.high, abs=1e-12) and back.se == pytest.approx(got.se)
    assert vars(paired(a, b)) == vars(got) and vars(paired(a, b, seed=1)) != vars(got)
    assert set(got.to_dict()) == {'diff', 'se', 'low', 'high'} and got.to_dict()['diff'] == round(got.diff, 5)
    # pairing takes out what both share
    assert got.se < .6 * np.hypot(a.se, b.se)


def test_paired_of_itself_is_nothing():
    a, _, labels = data()
    h = heldout(a.search(6), labels)
    assert set(paired(h, h).to_dict().values()) == {0}


def test_paired_refuses():
    a = HeldOut(np.ones(4), np.array([0, 0, 1, 1]))
    for b in (HeldOut(np.ones(3), np.array([0, 0, 1])), HeldOut(np.ones(4), np.array([0, 1, 1, 1]))):
        with pytest.raises(InputError, match='different listings'): paired(a, b)
    for level in (0, 1, 95):
        with pytest.raises(InputError, match=f'level={level}'): paired(a, a, level)


def test_emoji_titles_untrained(real_data):
    "What data/README.md promises of untrained character TF-IDF on fold 0: .683, every listing alone .517."
    import pandas as pd
    df = pd.read_csv(real_data/'emoji'/'listings.csv', keep_default_na=False).query('fold == 0')
    got = heldout(Tfidf(df.title).search(50), df.label_group)
    lone = alone_heldout(df.label_group)
    assert len(df) == 463 and got.mean == pytest.approx(.683, abs=.02) and lone.mean == pytest.approx(.517, abs=.001)
    assert got.se == pytest.approx(.017, abs=.004) and paired(got, lone).low > .1
    # noise as a second modality is left aside by the choice
    cand = candidates({'noise': Dense(noisy(463, 16, 0)), 'tfidf': Tfidf(df.title)}, 20)
    assert heldout_fused(cand, df.label_group, halvings=2).mean > got.mean - .03


def test_a_label_cut_by_groups_is_refused():
    d, _, labels = data()
    with pytest.raises(InputError, match='cut through a group'): heldout(d.search(5), np.zeros(len(labels), int), np.arange(len(labels)))


def test_options_may_come_one_by_one():
    a, b, labels = data()
    options = {'a': a.search(9), 'b': b.search(9)}
    got = heldout(((k, v) for k, v in options.items()), labels)
    np.testing.assert_array_equal(got.row_f1, heldout(options, labels).row_f1)
    with pytest.raises(InputError, match='one at least'): heldout({}, labels)


def test_the_interval_resamples_groups_of_any_size():
    "With unequal groups the mean's denominator is drawn anew as well: against a plain loop."
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2, 3], [1, 2, 10, 4])
    x = rng.normal(size=17) + groups
    got = paired(HeldOut(x, groups), HeldOut(np.zeros(17), groups), n_boot=20_000)
    means = []
    for _ in range(20_000):
        drawn = rng.integers(0, 4, 4)
        means.append(np.concatenate([x[groups == g] for g in drawn]).mean())
    np.testing.assert_allclose([got.low, got.high], np.quantile(means, [.025, .975]), atol=.05)
