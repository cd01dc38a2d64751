"The classifier: views averaged in any order, heads weighed in evaluation, what is refused."
import numpy as np
import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.models import ClassifyNet


def test_views_are_averaged_and_their_order_is_no_matter():
    class Mean(nn.Module):
        n_out = 3
        def forward(self, images): return images.mean((2, 3))
    class Same(nn.Identity): n_out = 3
    model = ClassifyNet(4, Mean(), frames=3, p=0.)
    views = [torch.rand(5, 3, 8, 8) for _ in range(3)]
    mean = torch.stack([view.mean((2, 3)) for view in views]).mean(0)
    np.testing.assert_allclose(model.features(*views)['image'], mean, rtol=1e-5)
    model.eval()
    other_order = model(views[2], views[0], views[1])
    np.testing.assert_allclose(model(*views).detach(), other_order.detach(), rtol=1e-4, atol=1e-6)
    expected = model.heads['image'](model.necks['image'](mean))
    np.testing.assert_allclose(model(*views).detach(), expected.detach(), rtol=1e-5)
    with pytest.raises(InputError, match='reads 3 picture'): model(*views[:2])
    # a head each: what they say is weighed in evaluation, and told apart in training
    both = ClassifyNet(4, Mean(), Same(), p=0., weights={'image': .5})
    images, titles = torch.rand(5, 3, 8, 8), torch.rand(5, 3)
    outputs = both(images, titles)
    assert list(outputs) == ['image', 'title']
    both.eval()
    outputs = {}
    for name, feature in both.features(images, titles).items():
        outputs[name] = both.heads[name](both.necks[name](feature))
    expected = (.5 * outputs['image'] + outputs['title']) / 1.5
    np.testing.assert_allclose(both(images, titles).detach(), expected.detach(), rtol=1e-5)
    for bad in ({'text': 1.}, {'image': -1.}, {'image': 0., 'title': 0.}):
        with pytest.raises(InputError, match='weights'): ClassifyNet(4, Mean(), Same(), weights=bad)
    with pytest.raises(InputError, match='two at least'): ClassifyNet(1, Mean())
