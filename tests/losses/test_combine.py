"Hard rows against the first rows of a sorted batch."
import torch
import torch.nn.functional as F

from fastmatch.losses import CenterLoss, CrossEntropy, HardRows, NormSoftmax, SumLoss
from tests.losses.cases import labels


def test_a_sum_knows_the_weight_of_a_part_that_is_named_none(output):
    "Squared distances are some hundred times as large as a softmax loss."
    targets, softmax, center = labels(), NormSoftmax(), CenterLoss()
    for given, weight in ((None, 1e-3), ({'softmax': 2.}, 1e-3), ({'center': .5}, .5)):
        sum_loss = SumLoss({'softmax': softmax, 'center': center}, given)
        softmax_loss = (given or {}).get('softmax', 1.) * softmax(output, targets)
        expected = softmax_loss + weight * center(output, targets)
        torch.testing.assert_close(sum_loss(output, targets), expected)


def test_hard_rows_keep_at_least_one():
    "A filter by share of the total would keep nothing where the first loss is most of it."
    logits, targets = torch.tensor([[-50., 50.], [9., 0.], [9., 0.]]), torch.tensor([0, 0, 0])
    row_losses = F.cross_entropy(logits, targets, reduction='none')
    for share, n_kept in ((1e-9, 1), (1 / 3, 1), (.34, 2), (1., 3)):
        mean_loss = HardRows(CrossEntropy(), share)
        torch.testing.assert_close(mean_loss(logits, targets), row_losses[:n_kept].mean())
        summed_loss = HardRows(CrossEntropy(), share, reduction='sum')
        torch.testing.assert_close(summed_loss(logits, targets), row_losses[:n_kept].sum())
