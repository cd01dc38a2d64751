"A pair model fitted to probabilities: of 0 and 1 as to labels, of others in between."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import PairModel


def fitted(fit, targets, features):
    model = PairModel(names=['one', 'other'], radii={}, use=[])
    getattr(model, fit)(features, targets)
    return model.probabilities(features)


def test_sure_probabilities_are_labels():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 2)).astype(np.float32)
    same = features[:, 0] + rng.normal(0, .3, 400) > 0
    # the same pairs, those that match first, as `fit_soft` puts them
    order = np.argsort(~same, kind='stable')
    np.testing.assert_allclose(fitted('fit_soft', same[order].astype(float), features[order]),
                               fitted('fit_pairs', same[order], features[order]), atol=1e-6)


def test_it_learns_the_teachers_probabilities():
    rng = np.random.default_rng(1)
    features = rng.uniform(-1, 1, (4000, 2)).astype(np.float32)
    teacher = np.where(features[:, 0] > 0, .8, .3)
    learned = fitted('fit_soft', teacher, features)
    assert np.abs(learned - teacher).mean() < .03


def test_other_numbers_are_refused():
    features = np.zeros((3, 2), np.float32)
    for wrong in ([0, 1], [0, 1, 2], [-.1, 0, 1]):
        with pytest.raises(InputError, match='probabilities'): fitted('fit_soft', np.array(wrong), features)
