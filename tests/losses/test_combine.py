"Hard rows against the first rows of a sorted batch."
import torch
import torch.nn.functional as F

from fastmatch.losses import CrossEntropy, HardRows


def test_hard_rows_keep_at_least_one():
    "A filter by share of the total would keep nothing where the first loss is most of it."
    logits, targets = torch.tensor([[-50., 50.], [9., 0.], [9., 0.]]), torch.tensor([0, 0, 0])
    row_losses = F.cross_entropy(logits, targets, reduction='none')
    for share, n_kept in ((1e-9, 1), (1 / 3, 1), (.34, 2), (1., 3)):
        mean_loss = HardRows(CrossEntropy(), share)
        torch.testing.assert_close(mean_loss(logits, targets), row_losses[:n_kept].mean())
        summed_loss = HardRows(CrossEntropy(), share, reduction='sum')
        torch.testing.assert_close(summed_loss(logits, targets), row_losses[:n_kept].sum())
