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
from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, CpuAmp, N, Passes, Steps, data, everything, fit, learner, net

some_losses = st.lists(st.floats(0, 1e6), min_size=1, max_size=20)


@given(some_losses, st.floats(.01, 1), st.sampled_from(['rows', 'loss']), st.integers(1, 4))
def test_what_stays(losses, share, by, at_least):
    rows = HardMining(share, by, at_least).rows_to_keep(torch.tensor(losses, dtype=torch.float64)).tolist()
    least = min(len(losses), at_least)
    assert rows == sorted(set(rows)) and len(rows) >= least
    kept = [losses[i] for i in rows]
    left_out = [loss for i, loss in enumerate(losses) if i not in rows]
    assert not left_out or min(kept) >= max(left_out)
    if by == 'rows': assert len(rows) == max(least, int(np.ceil(share * len(losses) - 1e-9)))
    elif len(rows) > at_least: assert sum(sorted(kept)[1:]) <= share * sum(losses) * (1 + 1e-9)
    if by == 'loss': assert sum(kept) >= share * sum(losses) * (1 - 1e-9)


def test_one_row_with_all_the_loss_is_no_empty_batch():
    "Where rows are taken until the share is reached, and the first alone exceeds it."
    assert HardMining(.5, 'loss', 1).rows_to_keep(torch.tensor([0., 100., 1.])).tolist() == [1]
    assert HardMining(.5, 'loss').rows_to_keep(torch.tensor([0., 100., 1.])).tolist() == [1, 2]
    assert len(HardMining(.5, 'loss', 1).rows_to_keep(torch.zeros(3))) >= 1
    assert 1 in HardMining(.34).rows_to_keep(torch.tensor([0., float('nan'), 1.]))


def test_the_hardest_are_trained_on():
    learn = learner(net(0.), n=8, bs=8, cbs=[HardMining(.5), Steps()])
    seen = Passes(learn.model)
    x, y = (torch.stack(column) for column in zip(*data(8)))
    reference = net(0.)
    top = F.cross_entropy(reference(x), y, reduction='none').topk(4).indices.sort().values
    loss = F.cross_entropy(reference(x[top]), y[top])
    gradients = torch.autograd.grad(loss, list(reference.parameters()))
    fit(learn, 'fit', 1, .05)
    assert [len(images) for images in seen.inputs] == [8, 4] and torch.equal(seen.inputs[1], x[top])
    want = torch.cat([gradient.flatten() for gradient in gradients])
    torch.testing.assert_close(learn.steps.grads[0], want, rtol=1e-5, atol=1e-7)


def test_statistics_are_those_of_all_rows_and_move_once():
    for momentum in (.1, None):
        norms = []
        for cbs in ([], [HardMining(.3)], [HardMining(.3), SAM(.2)]):
            learn = learner(net(momentum=momentum), n=8, bs=8, cbs=cbs)
            fit(learn, 'fit', 1, .05)
            norms.append(learn.model.body[1])
        for norm in norms[1:]:
            for statistic in ('running_mean', 'running_var', 'num_batches_tracked'):
                assert torch.equal(getattr(norm, statistic), getattr(norms[0], statistic))


def test_a_share_of_1_is_the_base():
    runs = []
    for cbs in ([], [HardMining(1.)], [HardMining(.2, start=2)]):
        learn = learner(cbs=cbs)
        fit(learn, 'fit', 2, .05)
        runs.append(everything(learn))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def test_with_mixing_and_accumulation():
    "Mixing draws partners among the rows that stay; accumulation counts those."
    learn = learner(cbs=[HardMining(.5), MixUp(), GradientAccumulation(4), Steps()])
    seen = Passes(learn.model)
    fit(learn, 'fit', 1, .05)
    assert [len(images) for images in seen.inputs] == [BS, 2] * (N // BS)
    assert learn.steps.n_steps == N // BS // 2


def test_in_half_precision():
    runs = []
    for cbs in ([], [CpuAmp('bf16')]):
        learn = learner(net(0.), n=8, bs=8, cbs=[HardMining(.5), Steps(), *cbs])
        fit(learn, 'fit', 1, .05)
        runs.append(learn.steps.grads[0])
    assert (runs[1] - runs[0]).norm() < .1 * runs[0].norm()


def test_what_can_not_be():
    with pytest.raises(InputError, match='filter of rows'):
        fit(learner(cbs=[HardMining(.5), SAF(back=1)]), 'fit', 2)
    without_reduction = learner(loss=lambda pred, y: CrossEntropyLossFlat()(pred, y), cbs=HardMining())
    with pytest.raises(InputError, match='reduction'): fit(without_reduction, 'fit', 1)
    for bad in (lambda: HardMining(0.), lambda: HardMining(by='x'), lambda: HardMining(at_least=0)):
        with pytest.raises(InputError): bad()
