"Losses for several labels a row against torch's binary cross-entropy and scikit-learn's F-beta."
import math

import torch
import torch.nn.functional as F

from fastmatch.losses import AsymmetricLoss, MultiLabelFocalLoss, SoftFBeta
from tests.losses.cases import C, N, rand


def test_multi_label_limits():
    from sklearn.metrics import fbeta_score
    logits, targets = 3 * rand(N, C), (rand(N, C, seed=3) > 0).double()
    binary_loss = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(MultiLabelFocalLoss(0.)(logits, targets), binary_loss)
    torch.testing.assert_close(AsymmetricLoss(0., 0., 0.)(logits, targets), binary_loss)
    equal_gammas = AsymmetricLoss(2., 2., 0.)(logits, targets)
    torch.testing.assert_close(MultiLabelFocalLoss(2.)(logits, targets), equal_gammas)
    sure_logits = 100 * (2 * targets - 1)
    assert SoftFBeta()(sure_logits, targets) < 1e-6 < .999 < SoftFBeta()(-sure_logits, targets)
    # F1 of decisions, class by class, as scikit-learn counts it
    partly_wrong = torch.where(rand(N, C, seed=4) > .6, -sure_logits, sure_logits)
    expected = 1 - fbeta_score(targets.numpy(), (partly_wrong > 0).numpy(), beta=2, average='macro')
    assert math.isclose(float(SoftFBeta(2.)(partly_wrong, targets)), expected, abs_tol=1e-6)
