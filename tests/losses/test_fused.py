"The hand-written backward of margin losses against autograd, all rows at once or a few."
import pytest
import torch
import torch.nn.functional as F

from fastmatch import core
from fastmatch.losses import ArcFace, NormSoftmax, SphereFace, fused
from tests.losses.cases import CASES, C, HeadInputs, N, class_name, labels, with_reduction


class Mixed(ArcFace):
    "The cosines with other classes depend on the target too."
    def other_cosines(self, cosines, hard_cosines, output):
        return cosines - .2 * hard_cosines * cosines**2 + .01 * output.emb.sum(1, keepdim=True)


SOFTMAX_LOSSES = [*(case.loss for case in CASES if isinstance(case.loss, NormSoftmax)), Mixed(.3, 9.),
                  Mixed(.3, 9., label_smoothing=.1)]


@pytest.mark.parametrize('block_size', [core.BLOCK_SIZE, 5 * C], ids=['all rows', 'five rows'])
@pytest.mark.parametrize('loss', SOFTMAX_LOSSES, ids=class_name)
def test_the_hand_written_backward_is_autograds(loss, block_size, monkeypatch):
    """All rows or a few at a time: values and gradients, of mixed losses too, are those of cross-entropy
    over `logits`."""
    sizes = []
    row_blocks = core.row_blocks
    def recorded(n_rows, cosines):
        blocks = row_blocks(n_rows, cosines)
        sizes.append([len(cosines[block]) for block in blocks])
        return blocks
    monkeypatch.setattr(core, 'BLOCK_SIZE', block_size)
    monkeypatch.setattr(fused, 'row_blocks', recorded)
    share = torch.linspace(.5, 1, N, dtype=torch.float64)
    own_targets, partner_targets = labels(), labels().flip(0)

    def value_and_gradients(row_losses):
        leaves = [leaf.requires_grad_() for leaf in HeadInputs().leaves()]
        output = HeadInputs().build(*leaves)
        output.extra['norms'] = output.extra['norms'].clone().requires_grad_()
        if isinstance(loss, Mixed): output = output._replace(emb=output.emb.detach())
        own_losses, partner_losses = row_losses(output, own_targets), row_losses(output, partner_targets)
        value = (share * own_losses + (1 - share) * partner_losses).mean()
        return value, *torch.autograd.grad(value, [*leaves, output.extra['norms']], allow_unused=True)

    def by_autograd(output, targets):
        return F.cross_entropy(loss.logits(output, targets), targets, reduction='none',
                               label_smoothing=loss.label_smoothing)

    expected = value_and_gradients(by_autograd)
    assert not sizes
    for actual, wanted in zip(value_and_gradients(with_reduction(loss, 'none')), expected):
        torch.testing.assert_close(actual, wanted)
    # forward and backward, for both targets; a scale for each row is left to autograd
    one_pass = [N] if block_size == core.BLOCK_SIZE > N * C else [5, 5, 5, 5, 4]
    assert sizes == ([] if isinstance(loss, SphereFace) and loss.s is None else [one_pass] * 4)
