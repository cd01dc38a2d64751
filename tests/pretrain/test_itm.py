"Matching: which pairs are made, their labels, the loss against a plain loop."
import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.models.fusion import StreamBatch
from fastmatch.pretrain import ITM
from fastmatch.pretrain.itm import draw_others, hard_pairs, rolled_pairs
from tests.pretrain.small import FUSIONS, Net, batch, float64, gradients
from tests.reference import pretrain as reference

each_fusion = pytest.mark.parametrize('fusion', FUSIONS)
PAIRS = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([0, 2, 2, 1, 4, 3])


@each_fusion
def test_equals_a_plain_loop(fusion):
    net, items = Net(fusion), batch()
    objective = ITM(net)
    logits, labels = [], []
    for text, frames in zip(*PAIRS):
        # each pair in a batch of its own, without the padding of others
        n_frames, n_tokens = int(items.has_frame[frames].sum()), int(items.is_token[text].sum())
        pair = StreamBatch(items.frames[None, frames, :n_frames], items.has_frame[None, frames, :n_frames],
                           items.ids[None, text, :n_tokens], items.is_token[None, text, :n_tokens])
        pooled = float64(net.fuse(pair).pooled)[0]
        logits.append(float64(objective.head.weight)[0] @ pooled + float64(objective.head.bias)[0])
        labels.append(text == frames)
    found = objective.pair_loss(net, items, *PAIRS)
    assert float(found.detach()) == pytest.approx(reference.binary(logits, labels), rel=1e-4)


@each_fusion
def test_the_order_of_items_and_what_is_not_there_change_nothing(fusion):
    net, items = Net(fusion), batch()
    objective = ITM(net)
    loss = objective.pair_loss(net, items, *PAIRS)
    order = torch.tensor([3, 0, 4, 1, 2])
    there = order.argsort()
    permuted = objective.pair_loss(net, items.of(order), there[PAIRS[0]], there[PAIRS[1]])
    torch.testing.assert_close(permuted, loss)
    wider = batch(more_frames=2, more_padding=3)
    torch.testing.assert_close(objective.pair_loss(net, wider, *PAIRS), loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('n_items', [2, 3, 4, 5, 7, 8])
def test_rolled_pairs(n_items):
    torch.manual_seed(0)
    changed = torch.zeros(n_items)
    for _ in range(500):
        texts, frames = rolled_pairs(n_items, 'cpu')
        assert sorted(texts.tolist()) == list(range(n_items))
        # what is said not to match really has other frames, and of an odd number too it is half
        is_other = texts != frames
        assert int(is_other.sum()) == n_items // 2
        changed[texts[is_other]] += 1
    np.testing.assert_allclose(changed / 500, n_items // 2 / n_items, atol=.12)


def test_hard_pairs():
    torch.manual_seed(0)
    texts, frames = hard_pairs(torch.randn(5, 5))
    own = list(range(5))
    assert texts[:10].tolist() == own * 2 and frames[:5].tolist() == own and frames[10:].tolist() == own
    assert (texts[5:] != frames[5:]).all()


def test_hard_negatives_follow_the_softmax():
    torch.manual_seed(0)
    logits = torch.randn(4, 4) * 2
    logits.fill_diagonal_(9.)
    n_draws = 20_000
    drawn = torch.stack([draw_others(logits) for _ in range(n_draws)])
    for row in range(4):
        counts = torch.bincount(drawn[:, row], minlength=4).double() / n_draws
        expected = logits[row].double().clone()
        expected[row] = -np.inf
        np.testing.assert_allclose(counts, expected.softmax(0), atol=.016)
    # which columns are texts and which are frames: the others of a text are in its row, those of frames in
    # their column
    sharp = torch.full((3, 3), -50.)
    sharp[0, 2] = sharp[1, 0] = sharp[2, 1] = 50.
    texts, frames = hard_pairs(sharp)
    assert frames[3:6].tolist() == [2, 0, 1] and texts[6:].tolist() == [1, 2, 0]


@pytest.mark.parametrize('logits', [
    torch.eye(6) * 1e4, torch.eye(6) * 1e4 - 5e3, torch.zeros(6, 6), torch.full((6, 6), -1e30),
    (torch.eye(6) * 6e4).half(), torch.eye(2) * 1e30])
def test_a_draw_is_never_from_nothing(logits):
    "A softmax that is 1 for the own column leaves 0 for all others: there is nothing to draw from by share."
    torch.manual_seed(0)
    for _ in range(200):
        drawn = draw_others(logits)
        assert (drawn != torch.arange(len(logits))).all() and drawn.max() < len(logits)


@each_fusion
def test_masks_go_with_what_they_belong_to(fusion):
    torch.manual_seed(0)
    net = Net(fusion)
    objective = ITM(net, negatives='hard')
    items = batch((1, 3, 2), (7, 2, 4))
    passed = []
    fuse = net.fuse
    net.fuse = lambda pairs: passed.append(pairs) or fuse(pairs)
    objective(net, items, torch.randn(3, 3))
    pairs, = passed
    assert len(pairs) == 9
    for row in range(9):
        text = next(i for i in range(3) if torch.equal(pairs.ids[row], items.ids[i]))
        frames = next(i for i in range(3) if torch.equal(pairs.frames[row], items.frames[i]))
        assert torch.equal(pairs.is_token[row], items.is_token[text])
        assert torch.equal(pairs.has_frame[row], items.has_frame[frames])
        assert (text == frames) == (row < 3)


@pytest.mark.parametrize('negatives', ['roll', 'hard'])
def test_items_that_lack_something_are_left_out(negatives):
    net = Net()
    objective = ITM(net, negatives=negatives)
    similarities = (torch.zeros(3, 3),) if negatives == 'hard' else ()
    whole = batch((2, 0, 1, 3, 3), (4, 3, 0, 2, 5))
    passed = []
    fuse = net.fuse
    net.fuse = lambda pairs: passed.append(pairs) or fuse(pairs)
    torch.manual_seed(1)
    loss = objective(net, whole, *similarities)
    assert passed[0].has_frame.any(1).all() and passed[0].is_token.any(1).all()
    torch.manual_seed(1)
    torch.testing.assert_close(objective(net, whole.of(torch.tensor([0, 3, 4])), *similarities), loss)
    for n_frames, lengths in (((0, 0), (3, 4)), ((2, 3), (0, 0)), ((2, 0), (3, 3))):
        nothing = objective(net, batch(n_frames, lengths, more_padding=2), torch.zeros(1, 1))
        assert float(nothing) == 0 and gradients(nothing, net, objective) == set()


def test_a_batch_of_one():
    net = Net()
    objective = ITM(net)
    with pytest.raises(InputError, match='itm: a batch of 1'): objective(net, batch((2,), (3,)))
    objective.eval()
    assert float(objective(net, batch((2,), (3,)))) == 0


@each_fusion
def test_what_learns(fusion):
    net = Net(fusion)
    objective = ITM(net)
    torch.manual_seed(0)
    moved = gradients(objective(net, batch()), net, objective)
    assert {'head.weight', 'fusion.frames.linear.weight',
            'encoders.title.body.embeddings.word_embeddings.weight'} <= moved


def test_no_gradient_goes_into_the_draw():
    net = Net()
    objective = ITM(net, negatives='hard')
    similarities = torch.randn(5, 5, requires_grad=True)
    objective(net, batch(), similarities).backward()
    assert similarities.grad is None


def test_refusals():
    with pytest.raises(InputError, match="negatives='soft'"): ITM(Net(), negatives='soft')
    objective = ITM(Net(), negatives='hard')
    with pytest.raises(InputError, match='drawn by similarities'): objective(Net(), batch())
