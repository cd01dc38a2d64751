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


def test_across_is_every_listing_of_the_other_shop_that_a_space_finds():
    rng = np.random.default_rng(0)
    shop = np.array([0, 1, 0, 1, 1, 0])
    spaces = {'a': Dense(rng.normal(size=(6, 3))), 'b': Dense(rng.normal(size=(6, 4)))}
    whole = candidates(spaces, 6)
    for k, extra in ((9, None), (1, None), (1, np.array([[0, 2], [1, 4]]))):
        across = textsets.across(spaces, shop, k, extra)
        for i in range(6):
            score_of = {name: dict(zip(whole.ids[i].tolist(), scores[i].tolist()))
                        for name, scores in whole.scores.items()}
            others = [j for j in range(6) if shop[j] != shop[i]]
            found = {j for name in spaces for j in sorted(others, key=score_of[name].get)[-k:]}
            if extra is not None: found |= {int(b) for a, b in (*extra.T, *extra[::-1].T) if a == i}
            ids = [i, *sorted(found)]
            assert across.ids[i].tolist() == ids + [-1] * (across.ids.shape[1] - len(ids))
            for name, scores in across.scores.items():
                np.testing.assert_allclose(scores[i][:len(ids)], [score_of[name][j] for j in ids], atol=1e-6)


def made_up_shops():
    "(table, vectors): half of 50 true pairs share every word, the others none."
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
    return df, vectors


def test_open_search_between_two_made_up_shops():
    shops = textsets.ShopPairs(*made_up_shops())
    rows = {row['way']: row for row in textsets.measured(shops, 2, ['pair model'])}
    # one half of the pairs can be had, for sure
    for way in ('whole words', 'fused', 'pair model'):
        # a model has few pairs to learn from here, those within a half
        least_precision = 75 if way == 'pair model' else 85
        assert 60 < rows[way]['pair_f1'] <= 100 and rows[way]['precision'] > least_precision, rows[way]
    assert rows['whole words']['recall'] <= 100 * shops.true.sum() / shops.positives()
    assert list(rows) == ['characters', 'whole words', 'MiniLM', 'fused', 'pair model']


def labelled_pairs(seed=0):
    "All true pairs of the made-up shops that share words, three others for each, in three parts."
    df, vectors = made_up_shops()
    rng = np.random.default_rng(seed)
    first = np.repeat(np.arange(1, 50, 2), 4)
    second = np.where(np.arange(len(first)) % 4 == 0, first, rng.integers(50, 110, len(first)))
    pairs = pd.DataFrame({'ltable_id': first, 'rtable_id': second, 'label': (first == second).astype(int)})
    pairs['part'] = rng.permutation(np.resize(['train', 'train', 'valid', 'test'], len(pairs)))
    return textsets.LabelledPairs(df.title.tolist(), 80, pairs, vectors), pairs, df


def test_labelled_pairs_are_those_of_the_table():
    labelled, pairs, df = labelled_pairs()
    first, second = (df.title[ends].tolist() for ends in (pairs.ltable_id, pairs.rtable_id + 80))
    same_words = np.array([set(one.split()) == set(other.split()) for one, other in zip(first, second)])
    assert same_words.tolist() == labelled.same.tolist()
    np.testing.assert_allclose(labelled.scores['whole words'][same_words], 1, atol=1e-6)
    assert (labelled.scores['whole words'][~same_words] < .9).all()
    assert labelled.fitted.tolist() == (pairs.part != 'test').tolist()
    way = 'pair model, two kinds of trees'  # the default's leaves hold more than there are true pairs here
    rows = {row['way']: row for row in textsets.measured(labelled, 2, [way])}
    assert rows['whole words']['pair_f1'] == 100 and rows[way]['pair_f1'] > 90


def test_labels_of_test_pairs_are_counted_and_nothing_else():
    labelled, *_ = labelled_pairs()
    before = labelled.model_scores(textsets.MODELS['pair model'](0), 0)
    labelled.same[~labelled.fitted] ^= True
    np.testing.assert_array_equal(labelled.model_scores(textsets.MODELS['pair model'](0), 0), before)
    scores = labelled.scores['whole words']
    right, predicted, true = labelled.counts({'whole words': scores})
    assert right == 0 and true == labelled.same[~labelled.fitted].sum() > predicted > 0
