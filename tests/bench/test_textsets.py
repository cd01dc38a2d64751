"The text sets' bench against counting by hand."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.match import Dense, candidates
from tests.bench import textsets


@given(st.lists(st.tuples(st.sampled_from([.1, .2, .5, .9]), st.booleans()), max_size=12), st.integers(0, 3))
def test_best_cut_against_every_cut(pairs, more):
    score, true = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], bool)
    positives = int(true.sum()) + more + 1
    threshold, f1 = textsets.best_cut(score, true, positives)
    def at(t): return 2 * sum(b for a, b in pairs if a >= t) / (sum(a >= t for a, _ in pairs) + positives)

    assert f1 == pytest.approx(max([at(t) for t in (0.1, 0.2, 0.5, 0.9)] if pairs else [0])) and (
        not pairs or at(threshold) == pytest.approx(f1)
    )


def test_mutual_against_a_loop():
    rng = np.random.default_rng(0)
    rows, ids = (item.ravel() for item in np.meshgrid(np.arange(5), np.arange(5, 9), indexing='ij'))
    score = rng.choice([.1, .2, .3, .4], len(rows))
    got = textsets.mutual(rows, ids, score, 9)
    best = lambda at, value: min(
        (i for i in range(len(rows)) if at[i] == value), key=lambda i: (-score[i], rows[i], ids[i])
    )
    assert (
        got.tolist() == [best(rows, r) == i == best(ids, j) for i, (r, j) in enumerate(zip(rows, ids))]
        and got.any()
    )


def test_across_keeps_the_other_shop():
    shop = np.array([0, 1, 0, 1, 1, 0])
    scored = candidates({'a': Dense(np.random.default_rng(0).normal(size=(6, 3)))}, 6)
    got = textsets.across(scored, shop)
    for i in range(6):
        want = [i] + [j for j in range(6) if shop[j] != shop[i]]
        assert got.ids[i].tolist() == want and np.array_equal(
            got.scores['a'][i], [scored.scores['a'][i][scored.ids[i].tolist().index(j)] for j in want]
        )


def test_two_made_up_shops():
    rng = np.random.default_rng(0)
    words = [f'item{i}' for i in range(60)]
    a = [' '.join(rng.choice(words, 4, replace=False)) for _ in range(80)]
    b = [item if i % 2 else item.replace('item', 'thing') for i, item in enumerate(a[:50])] + [
        ' '.join(rng.choice(words, 4)) for _ in range(60)
    ]
    df = pd.DataFrame(
        {
            'title': a + b,
            'source': ['x'] * 80 + ['y'] * 110,
            'label_group': [*range(80), *range(50), *range(100, 160)],
        }
    )
    vectors = rng.normal(size=(60, 16))
    vectors = np.stack(
        [
            sum(
                (vectors[words.index(weights)] for weights in t.split() if weights in words),
                np.full(16, 0.01),
            )
            for t in df.title
        ]
    )
    result = {item['way']: item for item in textsets.measure('abt_buy', vectors, 2, df)}
    # half of the pairs share every word, the others none: one half can be had, for sure
    for way in ('words', 'fused', 'pair model'):
        # a model has few pairs to learn from here, those within a half
        least_precision = 75 if way == 'pair model' else 85
        assert 60 < result[way]['pair_f1'] <= 100 and result[way]['precision'] > least_precision, result[way]
    assert result['words']['recall'] <= result['words']['among_candidates'] and list(result) == [
        'characters',
        'words',
        'MiniLM',
        'fused',
        'pair model',
    ]
