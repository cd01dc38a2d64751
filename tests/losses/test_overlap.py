"Losses on masks against overlaps counted by hand, and what an empty mask teaches."
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.losses import DiceBCE, Lovasz, MaskAndPresence, SoftDice


def test_masks_limits():
    masks = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
    sure_logits = 50. * (2 * masks[:, None] - 1)
    for loss in (SoftDice(), DiceBCE(), Lovasz()): assert float(loss(sure_logits, masks)) < 1e-6
    # all wrong: no overlap at all
    np.testing.assert_allclose(SoftDice(1e-6, reduction='none')(-sure_logits, masks), [1., 1.], rtol=1e-5)


def test_lovasz_on_decisions_is_1_minus_intersection_over_union():
    "For each class that the image has."
    found_masks, true_masks = torch.randint(3, (5, 4, 4)), torch.randint(3, (5, 4, 4))
    logits = 100. * F.one_hot(found_masks, 3).permute(0, 3, 1, 2)
    expected = []
    for found_mask, true_mask in zip(found_masks, true_masks):
        class_losses = []
        for label in range(3):
            found, true = found_mask == label, true_mask == label
            if true.any(): class_losses.append(1 - (found & true).sum() / (found | true).sum())
        expected.append(np.mean(class_losses))
    np.testing.assert_allclose(Lovasz(reduction='none')(logits, true_masks), expected, rtol=1e-5)


def test_an_empty_mask_teaches_by_cross_entropy():
    "Dice hardly tells right from wrong there."
    empty_mask, logits = torch.zeros(1, 8, 8), torch.full((1, 1, 8, 8), 2., requires_grad=True)
    dice_gradient, bce_gradient = (torch.autograd.grad(loss(logits, empty_mask), logits)[0].mean()
                                   for loss in (SoftDice(), DiceBCE()))
    assert bce_gradient > 20 * dice_gradient > 0


def test_masks_and_presence():
    torch.manual_seed(0)
    output = {'mask': torch.randn(3, 3, 4, 4).double(), 'presence': torch.randn(3, 2).double()}
    targets = torch.randint(0, 2, (3, 4, 4))
    is_there = torch.tensor([[float((mask == number).any()) for number in (1, 2)] for mask in targets])
    is_there = is_there.double()
    p = output['presence'].sigmoid()
    of_presence = -(is_there * p.log() + (1 - is_there) * (1 - p).log()).mean(1)
    expected = DiceBCE(reduction='none')(output['mask'], targets) + .3 * of_presence
    torch.testing.assert_close(MaskAndPresence(weight=.3, reduction='none')(output, targets), expected)
    torch.testing.assert_close(MaskAndPresence(weight=.3)(output, targets), expected.mean())
    with pytest.raises(InputError, match='SegmentNet.dual=True'): MaskAndPresence()(output['mask'], targets)
    with pytest.raises(InputError, match='weight=-1'): MaskAndPresence(weight=-1)
    output['mask'].requires_grad_()
    assert torch.autograd.gradcheck(lambda mask: MaskAndPresence()({**output, 'mask': mask}, targets),
                                    output['mask'])
