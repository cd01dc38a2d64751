"The text sets' bench against counting by hand."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.match import Dense, candidates
from tests.bench import textsets


@given(st.lists(st.tuples(st.sampled_from([.1, .2, .5, .9]), st.booleans()), max_size=12), st.integers(0, 3))
def test_best_cut_against_every_cut(pairs, missed):
    scores, true = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], bool)
    positives = int(true.sum()) + missed + 1
    threshold, best = textsets.best_cut(scores, true, positives)

    def f1(cut): return 2 * true[scores >= cut].sum() / ((scores >= cut).sum() + positives)
    if not pairs: assert best == 0
    else:
        assert best == pytest.approx(max(f1(cut) for cut in (.1, .2, .5, .9)))
        assert f1(threshold) == pytest.approx(best)


def test_mutual_against_a_loop():
    rng = np.random.default_rng(0)
    rows, ids = (side.ravel() for side in np.meshgrid(np.arange(5), np.arange(5, 9), indexing='ij'))
    scores = rng.choice([.1, .2, .3, .4], len(rows))
    mutual = textsets.mutual(rows, ids, scores, 9)

    def best(side, listing):
        pairs = [i for i in range(len(rows)) if side[i] == listing]
        return min(pairs, key=lambda i: (-scores[i], rows[i], ids[i]))
    expected = [best(rows, row) == i == best(ids, other) for i, (row, other) in enumerate(zip(rows, ids))]
    assert mutual.tolist() == expected and mutual.any()


def test_across_keeps_the_other_shop():
    shop = np.array([0, 1, 0, 1, 1, 0])
    scored = candidates({'a': Dense(np.random.default_rng(0).normal(size=(6, 3)))}, 6)
    across = textsets.across(scored, shop)
    for i in range(6):
        ids = [i] + [j for j in range(6) if shop[j] != shop[i]]
        place = [scored.ids[i].tolist().index(j) for j in ids]
        assert across.ids[i].tolist() == ids
        assert np.array_equal(across.scores['a'][i], scored.scores['a'][i][place])


def test_two_made_up_shops():
    rng = np.random.default_rng(0)
    words = [f'item{i}' for i in range(60)]
    first_shop = [' '.join(rng.choice(words, 4, replace=False)) for _ in range(80)]
    second_shop = [title if i % 2 else title.replace('item', 'thing')
                   for i, title in enumerate(first_shop[:50])]
    second_shop += [' '.join(rng.choice(words, 4)) for _ in range(60)]
    df = pd.DataFrame(
        {
            'title': first_shop + second_shop,
            'source': ['x'] * 80 + ['y'] * 110,
            'label_group': [*range(80), *range(50), *range(100, 160)],
        }
    )
    word_vectors = dict(zip(words, rng.normal(size=(60, 16))))

    def embed(title):
        return sum((word_vectors[word] for word in title.split() if word in words), np.full(16, .01))
    vectors = np.stack([embed(title) for title in df.title])
    rows = {row['way']: row for row in textsets.measure('abt_buy', vectors, 2, df)}
    # half of the pairs share every word, the others none: one half can be had, for sure
    for way in ('words', 'fused', 'pair model'):
        # a model has few pairs to learn from here, those within a half
        least_precision = 75 if way == 'pair model' else 85
        assert 60 < rows[way]['pair_f1'] <= 100 and rows[way]['precision'] > least_precision, rows[way]
    assert rows['words']['recall'] <= rows['words']['among_candidates']
    assert list(rows) == ['characters', 'words', 'MiniLM', 'fused', 'pair model']
