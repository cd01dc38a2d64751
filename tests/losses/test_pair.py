"Pair losses where rows have no pair, are equal, turned or stretched; means against the naive twins."
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput, InputError
from fastmatch.losses import Contrastive, MultiSimilarity, NTXent, SupCon, Triplet
from fastmatch.losses.pair import distances
from tests.losses.cases import PairInputs, class_name, rand
from tests.reference import losses as reference


def test_supcon_and_ntxent_meet_with_one_positive():
    embeddings, targets = rand(10, 4), torch.arange(10) // 2
    torch.testing.assert_close(SupCon(.3)(embeddings, targets), NTXent(.3)(embeddings, targets))
    # two views, as SimCLR has them: cross-entropy over all others with the partner as target
    logits = F.normalize(embeddings) @ F.normalize(embeddings).t() / .3
    expected = F.cross_entropy(logits.fill_diagonal_(-torch.inf), torch.arange(10) ^ 1)
    torch.testing.assert_close(NTXent(.3)(embeddings, targets), expected)


PAIR_LOSSES = [Triplet(), Triplet(mine='semihard'), Contrastive(), SupCon(), NTXent(), MultiSimilarity()]


@pytest.mark.parametrize('loss', [*PAIR_LOSSES, Triplet(None)], ids=class_name)
@pytest.mark.parametrize('targets', [[0], [0, 0, 0], [0, 1, 2]], ids=['one row', 'one class', 'no pair'])
def test_batches_without_pairs(loss, targets):
    """Training is told what is missing; where values aren't looked at (most batches on a GPU, a short
    last one in validation) such batches cost a finite amount."""
    embeddings, targets = rand(len(targets), 4).requires_grad_(), torch.tensor(targets)
    needed = {Contrastive: len(targets) > 1, SupCon: len(targets.unique()) < len(targets)}
    is_enough = needed.get(type(loss), False)
    if not is_enough:
        n_classes = len(targets.unique())
        message = f'{class_name(loss)} .* {len(targets)} rows and {n_classes} classes.*needs 2 .*pk'
        with pytest.raises(InputError, match=message): loss(embeddings, targets)
    with torch.no_grad(): in_validation = loss(embeddings, targets)
    loss.check_values = lambda output, targets: None
    unchecked = loss(embeddings, targets)
    del loss.check_values
    unchecked.backward()
    assert torch.isfinite(in_validation) and in_validation == unchecked
    assert torch.isfinite(embeddings.grad).all()
    if len(targets) == 1 or isinstance(loss, Triplet | MultiSimilarity): assert in_validation == 0


@pytest.mark.parametrize('loss', [Triplet(.2, normalize=False), Triplet(.2, 'semihard', normalize=False),
                                  Contrastive(6., normalize=False)], ids=class_name)
def test_equal_rows_have_distance_zero_and_a_gradient(loss):
    "The same picture twice: the root's slope at 0 is infinite."
    embeddings = torch.tensor([[3., 4.], [3., 4.], [3., 4.], [0., 1.], [0., 1.]], requires_grad=True)
    loss(embeddings, torch.tensor([0, 0, 1, 1, 2])).backward()
    assert torch.isfinite(embeddings.grad).all() and embeddings.grad.abs().sum() > 0
    repeated = F.normalize(rand(50, 300).float()).repeat(2, 1)
    found_distances = distances(repeated)
    assert (found_distances.diagonal() == 0).all(), 'rounding is no distance'
    assert (found_distances[:50, 50:].diagonal() == 0).all(), 'rounding is no distance'
    expected = torch.cdist(repeated.double(), repeated.double()).float()
    torch.testing.assert_close(found_distances, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('loss', PAIR_LOSSES, ids=class_name)
def test_pair_losses_look_at_directions(loss):
    (embeddings,), (targets,) = PairInputs().leaves(), PairInputs().targets()
    rotation = torch.linalg.qr(rand(5, 5, seed=9)).Q
    torch.testing.assert_close(loss(7 * embeddings @ rotation, targets), loss(embeddings, targets))
    of_head = loss(HeadOutput(embeddings[:, :2], embeddings), targets)
    torch.testing.assert_close(of_head, loss(embeddings, targets))


def test_the_mean_is_over_rows_with_pairs():
    (embeddings,), (targets,) = PairInputs().leaves(), PairInputs().targets()
    unit_vectors = reference.unit(embeddings)
    row_losses = reference.supcon(unit_vectors, targets, .1)
    assert (row_losses == 0).sum() == 1
    np.testing.assert_allclose(SupCon()(embeddings, targets), row_losses[row_losses != 0].mean())
    row_losses = reference.batch_hard(unit_vectors, targets, .2)
    np.testing.assert_allclose(Triplet()(embeddings, targets), row_losses.sum() / (len(targets) - 1))
    row_losses = reference.multi_similarity(unit_vectors, targets, 2., 50., .5, .1)
    np.testing.assert_allclose(MultiSimilarity()(embeddings, targets), row_losses.mean())
