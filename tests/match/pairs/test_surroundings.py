"What lies around a listing: ranks that equals share, radii against plain quantiles."
import numpy as np

from fastmatch.match import Candidates, pair_features
from fastmatch.match.pairs.surroundings import radii_of, tied_ranks
from tests.match.pairs.test_features import some_candidates


def test_ranks_of_equals():
    scores = np.array([[9, .5, .7, .5, .7, .1, 3]], np.float32)
    is_listed = np.array([[False, True, True, True, True, True, False]])
    assert tied_ranks(scores, is_listed)[0, 1:6].tolist() == [3, 1, 3, 1, 5]


def test_radii():
    scored_candidates, _ = some_candidates(16, 3)
    actual = radii_of(scored_candidates)
    assert set(actual) == {'image', 'tfidf'}
    listed_scores = [[float(score) for score in row_scores[1:] if score > -np.inf]
                     for row_scores in scored_candidates.scores['image']]
    nearest_scores = [max(row_scores) for row_scores in listed_scores if row_scores]
    np.testing.assert_allclose(actual['image'], np.quantile(nearest_scores, [.25, .5, .75]), atol=1e-6)
    with_those_radii = pair_features(scored_candidates, radii=actual)[2]
    np.testing.assert_array_equal(pair_features(scored_candidates)[2], with_those_radii)
    all_alone = Candidates(np.arange(3)[:, None], {'a': np.ones((3, 1), np.float32)})
    assert radii_of(all_alone) == {'a': [0., 0., 0.]} and pair_features(all_alone)[2].shape[0] == 0
