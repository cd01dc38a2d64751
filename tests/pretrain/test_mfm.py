"Masked frames: which are drawn and how often, the loss against a plain loop, what learns from it."
from dataclasses import replace

import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.models.fusion import DoubleStream
from fastmatch.pretrain import MFM
from tests.pretrain.small import FRAME_WIDTH, FUSIONS, Net, batch, float64, gradients
from tests.reference import pretrain as reference

each_fusion = pytest.mark.parametrize('fusion', FUSIONS)


def fixed_mask(items):
    "A third of the frames that are there."
    return items.has_frame & (torch.arange(items.has_frame.numel()).view_as(items.has_frame) % 3 == 1)


def loss_with(objective, net, items, chosen):
    hidden = replace(items, frames=items.frames.masked_fill(chosen.unsqueeze(-1), 0.))
    return objective.hidden_loss(net, net.fuse(hidden), items, chosen)


@pytest.mark.parametrize('temperature', [None, .07, .5])
@each_fusion
def test_equals_a_plain_loop(fusion, temperature):
    net, items = Net(fusion), batch()
    objective = MFM(net, temperature=temperature)
    chosen = fixed_mask(items)
    hidden = replace(items, frames=items.frames.masked_fill(chosen.unsqueeze(-1), 0.))
    assert int(chosen.sum()) >= 3
    expected = reference.masked_frames(
        float64(net.fuse(hidden).frames), float64(items.frames), items.has_frame.numpy(), chosen.numpy(),
        float64(objective.head.weight), float64(objective.head.bias), temperature)
    assert float(loss_with(objective, net, items, chosen)) == pytest.approx(expected, rel=1e-5)


@each_fusion
def test_the_order_of_items_and_what_is_not_there_change_nothing(fusion):
    net, items = Net(fusion), batch()
    objective = MFM(net)
    chosen = fixed_mask(items)
    loss = loss_with(objective, net, items, chosen)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(loss_with(objective, net, items.of(order), chosen[order]), loss)
    wider = batch(more_frames=2, more_padding=3)
    torch.testing.assert_close(loss_with(objective, net, wider, nn.functional.pad(chosen, (0, 2))), loss,
                               rtol=1e-5, atol=1e-5)


def test_targets_go_with_the_frames_that_were_fused():
    "In some public code frames were shuffled between items, and their targets stayed where they had been."
    torch.manual_seed(0)
    net, items = Net(), batch((3, 3, 3), (4, 4, 4))
    shuffled = items.with_frames_of(torch.tensor([2, 0, 1]))
    objective = MFM(net, temperature=.01)
    # a head that gives each frame its own features back finds them: the loss is that of the right targets
    hidden, chosen = objective.hide(shuffled)
    own = replace(net.fuse(hidden), frames=shuffled.frames)
    objective.head = nn.Linear(FRAME_WIDTH, FRAME_WIDTH)
    nn.init.eye_(objective.head.weight)
    nn.init.zeros_(objective.head.bias)
    assert float(objective.hidden_loss(net, own, shuffled, chosen)) < 1e-3
    assert float(objective.hidden_loss(net, own, items, chosen)) > 10


def test_shares_and_eligible_frames():
    torch.manual_seed(0)
    items = batch((4, 2, 0, 3), (3, 0, 4, 2))
    objective = MFM(Net())
    drawn = torch.stack([objective.choose(items) for _ in range(20_000)]).float().mean(0)
    eligible = items.has_frame & torch.tensor([True, False, True, True])[:, None]
    assert not drawn[~eligible].any()
    # each by itself, or the only one where none was
    expected = .15 + .85**7 / 7
    torch.testing.assert_close(drawn[eligible], torch.full((7,), expected), atol=.015, rtol=0)
    # where there are many, the one at least hardly counts
    many = batch((30,) * 40, (2,) * 40)
    share = torch.stack([objective.choose(many) for _ in range(50)]).float().mean()
    assert float(share) == pytest.approx(.15, abs=.005)


def test_nothing_else_is_changed():
    torch.manual_seed(0)
    items = batch()
    frames = items.frames.clone()
    hidden, chosen = MFM(Net()).hide(items)
    assert torch.equal(items.frames, frames)
    assert not hidden.frames[chosen].any() and torch.equal(hidden.frames[~chosen], frames[~chosen])
    assert hidden.ids is items.ids and hidden.has_frame is items.has_frame


@each_fusion
@pytest.mark.parametrize('n_frames, lengths', [((0, 0), (3, 4)), ((2, 3), (0, 0)), ((2, 0), (0, 3))])
def test_nothing_to_hide(fusion, n_frames, lengths):
    net = Net(fusion)
    objective = MFM(net)
    loss = objective(net, batch(n_frames, lengths, more_padding=2))
    assert float(loss) == 0
    assert gradients(loss, net, objective) == set()


def test_a_batch_of_one():
    torch.manual_seed(0)
    net = Net()
    objective = MFM(net)
    assert float(objective(net, batch((3,), (4,)))) > 0
    # a single frame in the batch is told from no other
    assert float(objective(net, batch((1,), (4,)))) == 0


class Pictures(nn.Module):
    "Features (n,d) of pictures (n,3,2,2)."
    n_out = FRAME_WIDTH
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, FRAME_WIDTH)
    def forward(self, pictures): return self.linear(pictures.flatten(1))


@each_fusion
def test_what_learns(fusion):
    net = Net(fusion, image=Pictures())
    objective = MFM(net)
    torch.manual_seed(0)
    pictures = [torch.randn(4, 3, 2, 2) for _ in range(3)]
    items = net.read(*pictures, torch.tensor([3, 2, 3, 1]), batch((1,) * 4, (3, 4, 2, 5)).ids)
    moved = gradients(objective(net, items), net, objective)
    assert {'head.weight', 'encoders.image.linear.weight', 'fusion.frames.linear.weight',
            'encoders.title.body.embeddings.word_embeddings.weight'} <= moved
    # through the targets alone nothing moves
    items = net.read(*pictures, torch.tensor([3, 2, 3, 1]), batch((1,) * 4, (3, 4, 2, 5)).ids)
    apart = replace(items, frames=items.frames.detach())
    moved = gradients(objective.hidden_loss(net, net.fuse(apart), items, items.has_frame), net, objective)
    assert not any(name.startswith('encoders.image') for name in moved)


def test_half_precision_does_not_overflow():
    net = Net()
    objective = MFM(net, temperature=None)
    items = batch()
    items.frames.mul_(1e4)
    with torch.autocast('cpu', torch.float16): loss = loss_with(objective, net, items, fixed_mask(items))
    assert loss.isfinite() and loss.dtype == torch.float32


def test_refusals():
    net = Net()
    net.fusion = DoubleStream(net.encoders['title'], FRAME_WIDTH, layers=1, queries='text')
    with pytest.raises(InputError, match="mfm: with queries='text'"): MFM(net)
    for options in ({'rate': 0}, {'rate': 1}, {'temperature': 0}, {'temperature': 'warm'}):
        with pytest.raises(InputError, match=next(iter(options))): MFM(Net(), **options)
