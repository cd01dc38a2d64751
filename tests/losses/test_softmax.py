"Scaled softmax against its parts: the automatic scale, label smoothing, a margin of one's own."
import math

import pytest
import torch

from fastmatch.core import HeadOutput
from fastmatch.losses import (
    AdaCos,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    LargeMarginSoftmax,
    NormSoftmax,
    SphereFace,
    auto_scale,
)
from tests.losses.cases import labels, rand


def test_scale_follows_the_number_of_classes():
    cosines = rand(4, 1000)
    output = HeadOutput(cosines, cosines)
    by_rule = ArcFace(s=math.sqrt(2) * math.log(999))
    torch.testing.assert_close(ArcFace()(output, labels(4)), by_rule(output, labels(4)))
    assert auto_scale(2) == auto_scale(1) == 1. and math.isclose(auto_scale(601), 9.0465, rel_tol=1e-4)


@pytest.mark.parametrize('make_loss', [NormSoftmax, ArcFace, CosFace, CombinedMargin, SphereFace,
                                       LargeMarginSoftmax, AdaCos, CurricularFace])
def test_label_smoothing_is_a_blend_with_the_mean_of_all_classes(make_loss, output):
    "The share spread over all classes is paid at the logits with the margin in them."
    targets, plain_loss = labels(), make_loss(reduction='none')
    mean_loss = -plain_loss.logits(output, targets).log_softmax(1).mean(1)
    smoothed = make_loss(label_smoothing=.2, reduction='none')(output, targets)
    torch.testing.assert_close(smoothed, .8 * plain_loss(output, targets) + .2 * mean_loss)


def test_own_loss_is_one_method(output):
    class Own(NormSoftmax):
        def margin(self, cosines, targets): return cosines - .35
    torch.testing.assert_close(Own()(output, labels()), CosFace()(output, labels()))
