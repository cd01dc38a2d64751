"Adversarial validation: AUC against scikit-learn's, intervals by repetition, planted differences found."
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from fastmatch.core import InputError
from fastmatch.data.item_statistics import item_statistics, picture_statistics, title_statistics
from fastmatch.data.shift import adversarial_validation, auc_interval, pairs_won

WORDS = 'red blue bag shoe lamp chair table small large leather wood cotton'.split()


def table(n=150, words=4, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({'title': [' '.join(rng.choice(WORDS, rng.poisson(words) + 1)) for _ in range(n)],
                         'price': rng.normal(10, 1, n)})


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    scores, is_positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < .4
    found = auc_interval(scores, is_positive, np.arange(40))[0]
    assert found == pytest.approx(roc_auc_score(is_positive, scores))
    folds = np.arange(40) % 3
    parts = [(roc_auc_score(is_positive[folds == fold], scores[folds == fold]),
              is_positive[folds == fold].sum() * (~is_positive[folds == fold]).sum()) for fold in range(3)]
    expected = sum(auc * pairs for auc, pairs in parts) / sum(pairs for _, pairs in parts)
    assert auc_interval(scores, is_positive, np.arange(40), folds)[0] == pytest.approx(expected)
    won, met = pairs_won(scores, is_positive)
    assert won[is_positive].sum() == won[~is_positive].sum() and (won <= met).all()


def test_intervals_hold_the_truth_as_often_as_they_say():
    # clusters of 4 alike: taken for single items they would promise too much
    rng = np.random.default_rng(0)
    n_hits, n_naive = 0, 0
    for _ in range(300):
        centers = rng.normal(size=40)
        is_positive = np.repeat(np.arange(40) % 2 == 1, 4)
        scores = np.repeat(centers, 4) + .3 * rng.normal(size=160)
        _, low, high = auc_interval(scores, is_positive, np.repeat(np.arange(40), 4))
        n_hits += low <= .5 <= high
        _, low, high = auc_interval(scores, is_positive, np.arange(160))
        n_naive += low <= .5 <= high
    assert 275 <= n_hits <= 295 and n_naive < 240


def test_nothing_to_find():
    found = adversarial_validation(table(), table(seed=1), numbers=['price'], image_col=None)
    assert found.low <= .5 <= found.high + .05 and 'Nothing' in found.sentence
    assert (found.n_train, found.n_test, len(found.probabilities)) == (150, 150, 300)


def test_what_was_changed_is_named_first():
    train, test = table(), table(words=8, seed=1)
    found = adversarial_validation(train, test, numbers=['price'], image_col=None)
    assert set(found.features.index[:2]) == {'title characters', 'title words'}
    longest = found.features.iloc[0]
    assert longest.low > .7 and longest.test > longest.train and found.low > .7
    assert found.features.worth.max() == max(found.features.worth['title words'],
                                             found.features.worth['title characters']) > .02
    assert found.sentence.startswith('Train and test can be told apart by title ')
    price = found.features.loc['price']
    assert price.low < .5 < price.high


def test_directions_of_embeddings():
    rng = np.random.default_rng(0)
    vectors = [{'image': rng.normal(size=(150, 8)) * [4, *[1] * 7] + shift}
               for shift in (0, np.eye(8)[0] * 6)]
    found = adversarial_validation(table(), table(seed=1), image_col=None, embeddings=vectors, directions=2)
    assert found.features.index[0] == 'image direction 1'
    assert abs(found.features.auc.iloc[0] - .5) > .3
    with pytest.raises(InputError, match="150 of 'image' for 100 rows of test"):
        adversarial_validation(table(), table(100), image_col=None, embeddings=vectors)


def test_items_of_a_group_are_held_out_together():
    # each group has a price of its own, and there is no other difference: a model that saw a group's other
    # items would know where it is from
    rng = np.random.default_rng(0)
    prices = rng.normal(size=60)
    both = pd.DataFrame({'title': 'bag', 'price': np.repeat(prices, 6),
                         'label_group': np.repeat(np.arange(60), 6)})
    train, test = both[both.label_group < 30], both[both.label_group >= 30]
    honest = adversarial_validation(train, test, image_col=None, numbers=['price'])
    leaking = adversarial_validation(train, test, image_col=None, numbers=['price'], group_col=None)
    assert honest.low < .5 and leaking.auc > .8 > honest.auc


def test_figures_of_titles_and_pictures(tmp_path):
    told = title_statistics(['Red BAG 12', None, 'café'])
    assert told['title characters'].tolist() == [10, 0, 4] and told['title words'].tolist() == [3, 0, 1]
    assert told['title digits'][0] == .2 and told['title capitals'][0] == .4
    assert told['title beyond ASCII'].isna().tolist() == [False, True, False]
    assert told['title beyond ASCII'][2] == .25
    Image.new('RGB', (20, 10), (255, 0, 0)).save(tmp_path/'red.png')
    (tmp_path/'broken.png').write_bytes(b'no picture')
    found = picture_statistics(['red.png', None, 'broken.png'], tmp_path)
    red = found.iloc[0].drop('picture bytes').tolist()
    assert red == pytest.approx([20, 10, 2, 1 / 3, 0, np.sqrt(2) / 3])
    assert found.iloc[1:].isna().all(axis=None)


def test_what_is_refused():
    with pytest.raises(InputError, match='test: 10 items, 20 at least'):
        adversarial_validation(table(), table(10), image_col=None)
    with pytest.raises(InputError, match='numbers: df lacks weight'):
        item_statistics(table(), numbers=['weight'], image_col=None)
    with pytest.raises(InputError, match='nothing to look at'):
        item_statistics(table(), title_col=None, image_col=None)
    assert len(adversarial_validation(table(), table(seed=1), image_col=None, most=40).probabilities) == 80
