"Classifiers' losses against torch's weighted mean and the focal formula by hand."
import math

import torch
import torch.nn.functional as F

from fastmatch.losses import CrossEntropy, FocalLoss
from tests.losses.cases import WEIGHT, C, N, labels, rand


def test_weighted_mean_is_torchs():
    logits, targets, weight = 4 * rand(N, C), labels(), torch.tensor(WEIGHT, dtype=torch.float64)
    for smoothing in (0., .1):
        expected = F.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
        torch.testing.assert_close(CrossEntropy(WEIGHT, label_smoothing=smoothing)(logits, targets), expected)


def test_focal_weight_leaves_p_t_alone():
    logits, targets = torch.tensor([[0., 2.75]], dtype=torch.float64), torch.tensor([0])
    probability = 1 / (1 + math.exp(2.75))
    loss = float(FocalLoss(2., [10., 1.], reduction='none')(logits, targets))
    assert math.isclose(loss, 10 * (1 - probability)**2 * -math.log(probability), rel_tol=1e-12)
