"What lies around a listing: ranks that equals share, radii against plain quantiles."
import numpy as np

from fastmatch.match import Candidates, pair_features
from fastmatch.match.pairs.surroundings import radii_of, tied_ranks
from tests.match.pairs.test_features import some_candidates


def test_ranks_of_equals():
    scores = np.array([[9, .5, .7, .5, .7, .1, 3]], np.float32)
    real = np.array([[False, True, True, True, True, True, False]])
    assert tied_ranks(scores, real)[0, 1:6].tolist() == [3, 1, 3, 1, 5]


def test_radii():
    found, _ = some_candidates(16, 3)
    got = radii_of(found)
    assert set(got) == {'image', 'tfidf'}
    real = [[float(score) for score in row[1:] if score > -np.inf] for row in found.scores['image']]
    best = [max(row) for row in real if row]
    np.testing.assert_allclose(got['image'], np.quantile(best, [.25, .5, .75]), atol=1e-6)
    np.testing.assert_array_equal(pair_features(found)[2], pair_features(found, radii=got)[2])
    lonely = Candidates(np.arange(3)[:, None], {'a': np.ones((3, 1), np.float32)})
    assert radii_of(lonely) == {'a': [0., 0., 0.]} and pair_features(lonely)[2].shape[0] == 0
