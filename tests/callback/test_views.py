"Views of a classifier: the mean of its probabilities over pictures changed by hand."
import numpy as np
import pytest
import torch

from fastmatch.models import Views
from fastmatch.models.views import resized
from tests.learner.test_classify import make


@pytest.fixture(scope='module')
def learner(tmp_path_factory): return make(tmp_path_factory.mktemp('learner'))


def by_hand(learner, *changes):
    "The mean of the probabilities of validation pictures that were changed."
    learner.model.eval()
    found = []
    with torch.no_grad():
        for images, _ in learner.dls.valid:
            images = images.as_subclass(torch.Tensor)
            found.append(np.mean([learner.model(change(images)).softmax(1).numpy() for change in changes], 0))
    return np.concatenate(found)


def probabilities(table): return table[table.columns[3:]].to_numpy()


def test_mean_over_views(learner):
    plain = learner.predictions()
    assert plain.equals(learner.predictions(tta=False))
    def same(images): return images
    def larger(images): return resized(images, (48, 48))
    for tta, changes in ((True, [same, lambda images: images.flip(-1)]),
                         (Views(False, (1, 1.5)), [same, larger]), (Views(False, (1.5,)), [larger])):
        found = learner.predictions(tta=tta)
        np.testing.assert_allclose(probabilities(found), by_hand(learner, *changes), atol=1e-5)
        assert (found.prob == probabilities(found).max(1)).all()
        assert abs(probabilities(found) - probabilities(plain)).max() > 1e-4


def test_losses_are_those_of_the_mean(learner):
    found, targets, losses = learner._validated(True)
    np.testing.assert_allclose(losses, -np.log(found[np.arange(len(targets)), targets]), rtol=1e-4)


def test_frames_are_all_changed(tmp_path):
    learner = make(tmp_path, frames=2)
    mirrored = [each.flip(-1) if each.ndim == 4 else each for each in learner.dls.valid.one_batch()[:-1]]
    learner.model.eval()
    with torch.no_grad():
        plain = learner.model(*learner.dls.valid.one_batch()[:-1]).softmax(1)
        expected = (plain + learner.model(*mirrored).softmax(1)) / 2
    found = probabilities(learner.predictions(tta=True))[:len(expected)]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
