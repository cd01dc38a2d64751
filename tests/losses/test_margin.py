"Margins on the cosine against each other and the formula: where they meet, jump, rise and fall."
import math

import numpy as np
import pytest
import torch

from fastmatch.core import HeadOutput, InputError
from fastmatch.losses import (
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    SphereFace,
    class_margins,
)
from tests.losses.cases import N, labels


def test_combined_is_arcface_up_to_pi(output):
    loss, targets = ArcFace(.3, 9., reduction='none'), labels()
    is_near = output.cos[torch.arange(N), targets] > math.cos(math.pi - .3)
    assert is_near.sum() > N / 2
    combined = CombinedMargin(1., .3, 0., s=9., reduction='none')
    torch.testing.assert_close(combined(output, targets)[is_near], loss(output, targets)[is_near])


def test_curricular_at_the_start(output):
    "At t = 0 hard negatives count by their square, easy ones as they are."
    targets, cosines = labels(), output.cos
    own_cosines = cosines[torch.arange(N), targets]
    is_near = own_cosines > math.cos(math.pi - .3)
    hard_cosines = torch.cos(own_cosines.acos() + .3)[:, None]
    harder_cosines = torch.where(cosines > hard_cosines, cosines**2, cosines)
    harder_cosines = harder_cosines.scatter(1, targets[:, None], own_cosines[:, None])
    loss = CurricularFace(.3, 9., reduction='none')
    at_start = loss(output._replace(extra={'t': torch.zeros(())}), targets)
    expected = ArcFace(.3, 9., reduction='none')(HeadOutput(harder_cosines, output.emb), targets)
    torch.testing.assert_close(at_start[is_near], expected[is_near])


@pytest.mark.parametrize('loss', [ArcFace(m=.8), ArcFace(m=.1), CosFace(), SphereFace(4), SphereFace(1.35),
                                  CombinedMargin(1.4, .5, .1), ArcFace(m=.5, easy_margin=True)])
def test_harder_and_monotone(loss):
    cosines = torch.linspace(-.9999, .9999, 20001, dtype=torch.float64)
    hard_cosines = loss.margin(cosines, None)
    assert (hard_cosines <= cosines).all()
    is_rising = (hard_cosines.diff() > 0).all()
    # the easy margin falls off where the angle passes 90 degrees: one reason why it is off
    assert is_rising == (not getattr(loss, 'easy_margin', False))


def test_the_jumps_that_are_and_are_not():
    "ArcFace steps down once, at pi - m; the others are smooth; the easy margin takes .48 away at 90 degrees."
    cosines = torch.linspace(-.9999, .9999, 200001, dtype=torch.float64)
    def jump(loss): return float(loss.margin(cosines, None).diff().abs().max())
    assert jump(SphereFace(4)) < 2e-4
    assert jump(CombinedMargin(1.4, .5, .1)) < 2e-2
    assert jump(CosFace()) < 2e-5
    assert .47 < jump(ArcFace(.5, easy_margin=True)) < .49
    edge = math.cos(math.pi - .8)
    below, above = torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64)[:, None]
    assert ArcFace(.8).margin(above, None).item() > ArcFace(.8).margin(below, None).item() > -1.28


def test_cosines_past_one_are_taken():
    "A float32 cosine of a vector with itself can be 1.00000036."
    cosines = torch.tensor([[1.00000036, .1], [-1.00000036, .2]], requires_grad=True)
    for loss in (ArcFace(), SphereFace(s=9.), CombinedMargin(), CosFace()):
        loss_value = loss(HeadOutput(cosines, cosines), torch.tensor([0, 0]))
        assert torch.isfinite(torch.autograd.grad(loss_value, cosines)[0]).all()
        assert torch.isfinite(loss_value)


def test_class_margins_fall_as_a_power():
    np.testing.assert_allclose(class_margins([4, 2, 32], .5, .2), [.5 * 2**-.2, .5, .5 * 16**-.2])


@pytest.mark.parametrize('option', ['m', 's', 'label_smoothing'])
@pytest.mark.parametrize('given', ['.5', [None], {}])
def test_an_option_that_is_no_number(option, given):
    with pytest.raises(InputError, match=f'^{option}='): ArcFace(**{option: given})
