"Losses on masks against overlaps counted by hand, and what an empty mask teaches."
import numpy as np
import torch
import torch.nn.functional as F

from fastmatch.losses import DiceBCE, Lovasz, SoftDice


def test_masks_limits():
    masks = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
    sure = 50. * (2 * masks[:, None] - 1)
    for loss in (SoftDice(), DiceBCE(), Lovasz()): assert float(loss(sure, masks)) < 1e-6
    # all wrong: no overlap at all
    np.testing.assert_allclose(SoftDice(1e-6, reduction='none')(-sure, masks), [1., 1.], rtol=1e-5)


def test_lovasz_on_decisions_is_1_minus_intersection_over_union():
    "For each class that the image has."
    predicted, true = torch.randint(3, (5, 4, 4)), torch.randint(3, (5, 4, 4))
    logits = 100. * F.one_hot(predicted, 3).permute(0, 3, 1, 2)
    expected = []
    for ours, theirs in zip(predicted, true):
        losses = [1 - ((ours == k) & (theirs == k)).sum() / ((ours == k) | (theirs == k)).sum()
                  for k in range(3) if (theirs == k).any()]
        expected.append(np.mean(losses))
    np.testing.assert_allclose(Lovasz(reduction='none')(logits, true), expected, rtol=1e-5)


def test_an_empty_mask_teaches_by_cross_entropy():
    "Dice hardly tells right from wrong there."
    empty, logits = torch.zeros(1, 8, 8), torch.full((1, 1, 8, 8), 2., requires_grad=True)
    by_dice, by_bce = (torch.autograd.grad(loss(logits, empty), logits)[0].mean()
                       for loss in (SoftDice(), DiceBCE()))
    assert by_bce > 20 * by_dice > 0
