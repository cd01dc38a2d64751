"Hard rows against a sort by hand; batches that are never empty; statistics of all rows."
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.losses import CrossEntropyLossFlat
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import MixUp
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ESAM, SAM
from fastmatch.core import InputError
from fastmatch.losses import CrossEntropy, HardRows, SoftFBeta, SumLoss, Triplet
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, CpuAmp, N, Passes, Steps, data, everything, fit, make_learner, net

some_losses = st.lists(st.floats(0, 1e6), min_size=1, max_size=20)


@given(some_losses, st.floats(.01, 1), st.sampled_from(['rows', 'loss']), st.integers(1, 4))
def test_what_stays(losses, share, by, at_least):
    mining = HardMining(share, by, at_least)
    kept_rows = mining.rows_to_keep(torch.tensor(losses, dtype=torch.float64)).tolist()
    least = min(len(losses), at_least)
    assert kept_rows == sorted(set(kept_rows)) and len(kept_rows) >= least
    kept_losses = [losses[row] for row in kept_rows]
    left_out = [loss for row, loss in enumerate(losses) if row not in kept_rows]
    assert not left_out or min(kept_losses) >= max(left_out)
    if by == 'rows': assert len(kept_rows) == max(least, int(np.ceil(share * len(losses) - 1e-9)))
    elif len(kept_rows) > at_least: assert sum(sorted(kept_losses)[1:]) <= share * sum(losses) * (1 + 1e-9)
    if by == 'loss': assert sum(kept_losses) >= share * sum(losses) * (1 - 1e-9)


def test_one_row_with_all_the_loss_is_no_empty_batch():
    "Where rows are taken until the share is reached, and the first alone exceeds it."
    assert HardMining(.5, 'loss', 1).rows_to_keep(torch.tensor([0., 100., 1.])).tolist() == [1]
    assert HardMining(.5, 'loss').rows_to_keep(torch.tensor([0., 100., 1.])).tolist() == [1, 2]
    assert len(HardMining(.5, 'loss', 1).rows_to_keep(torch.zeros(3))) >= 1
    assert 1 in HardMining(.34).rows_to_keep(torch.tensor([0., float('nan'), 1.]))


def test_the_hardest_are_trained_on():
    learner = make_learner(net(0.), n_items=8, bs=8, cbs=[HardMining(.5), Steps()])
    passes = Passes(learner.model)
    images, targets = (torch.stack(tensors) for tensors in zip(*data(8)))
    reference = net(0.)
    hardest = F.cross_entropy(reference(images), targets, reduction='none').topk(4).indices.sort().values
    loss = F.cross_entropy(reference(images[hardest]), targets[hardest])
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    fit(learner, 'fit', 1, .05)
    assert [len(pass_images) for pass_images in passes.inputs] == [8, 4]
    assert torch.equal(passes.inputs[1], images[hardest])
    expected = torch.cat([gradient.flatten() for gradient in gradients])
    torch.testing.assert_close(learner.steps.gradients[0], expected, rtol=1e-5, atol=1e-7)


def test_statistics_are_those_of_all_rows_and_move_once():
    for momentum in (.1, None):
        norms = []
        for callbacks in ([], [HardMining(.3)], [HardMining(.3), SAM(.2)]):
            learner = make_learner(net(momentum=momentum), n_items=8, bs=8, cbs=callbacks)
            fit(learner, 'fit', 1, .05)
            norms.append(learner.model.body[1])
        for norm in norms[1:]:
            for statistic in ('running_mean', 'running_var', 'num_batches_tracked'):
                assert torch.equal(getattr(norm, statistic), getattr(norms[0], statistic))


def test_a_share_of_1_is_the_base():
    end_states = []
    for callbacks in ([], [HardMining(1.)], [HardMining(.2, start=2)]):
        learner = make_learner(cbs=callbacks)
        fit(learner, 'fit', 2, .05)
        end_states.append(everything(learner))
    assert torch.equal(end_states[0], end_states[1]) and torch.equal(end_states[0], end_states[2])


def test_with_mixing_and_accumulation():
    "Mixing draws partners among the rows that stay; accumulation counts those."
    learner = make_learner(cbs=[HardMining(.5), MixUp(), GradientAccumulation(4), Steps()])
    passes = Passes(learner.model)
    fit(learner, 'fit', 1, .05)
    assert [len(images) for images in passes.inputs] == [BS, 2] * (N // BS)
    assert learner.steps.n_steps == N // BS // 2


def test_in_half_precision():
    gradients = []
    for callbacks in ([], [CpuAmp('bf16')]):
        learner = make_learner(net(0.), n_items=8, bs=8, cbs=[HardMining(.5), Steps(), *callbacks])
        fit(learner, 'fit', 1, .05)
        gradients.append(learner.steps.gradients[0])
    assert (gradients[1] - gradients[0]).norm() < .1 * gradients[0].norm()


@pytest.mark.parametrize('loss, name', [
    (Triplet(), 'Triplet'),
    (SumLoss({'softmax': CrossEntropy(), 'pairs': Triplet()}), 'Triplet'),
    (HardRows(Triplet(), .5), 'Triplet'),
    (SoftFBeta(), 'SoftFBeta')], ids=['pairs', 'sum', 'hard rows', 'score of the batch'])
@pytest.mark.parametrize('make_callback', [lambda: HardMining(.5), lambda: HardMining(1., 'loss'), ESAM],
                         ids=['HardMining', 'HardMining by loss', 'ESAM'])
def test_losses_that_compare_rows_are_refused_before_training(loss, name, make_callback):
    "Rows that are picked one by one need not hold a pair."
    learner = make_learner(loss=loss, cbs=[make_callback(), MixUp()])
    before = everything(learner)
    with pytest.raises(InputError, match=f'some rows of each batch, and {name} compares the rows'):
        fit(learner, 'fit', 1)
    assert torch.equal(everything(learner), before)


@pytest.mark.parametrize('make_callback', [lambda: HardMining(1.), lambda: ESAM(gamma=1.)],
                         ids=['HardMining', 'ESAM'])
def test_losses_that_compare_rows_are_taken_where_all_rows_stay(make_callback):
    learner = make_learner(n_items=8, bs=8, loss=SumLoss({'a': CrossEntropy(), 'b': Triplet()}),
                           cbs=[make_callback(), Steps()])
    fit(learner, 'fit', 1, .05)
    assert learner.steps.n_steps == 1
    # rows that are picked after they were compared are another matter
    fit(make_learner(n_items=8, bs=8, loss=HardRows(Triplet(), .5)), 'fit', 1, .05)


def test_what_can_not_be():
    with pytest.raises(InputError, match='filter of rows'):
        fit(make_learner(cbs=[HardMining(.5), SAF(back=1)]), 'fit', 2)
    without_reduction = make_learner(loss=lambda output, targets: CrossEntropyLossFlat()(output, targets),
                                     cbs=HardMining())
    with pytest.raises(InputError, match='reduction'): fit(without_reduction, 'fit', 1)
    for make_callback in (lambda: HardMining(0.), lambda: HardMining(by='x'), lambda: HardMining(at_least=0)):
        with pytest.raises(InputError): make_callback()
