"Contrast: the loss against a plain loop, the temperature's bounds, slow copies, the queue and the ramp."
import copy

import pytest
import torch

from fastmatch.core import InputError
from fastmatch.pretrain import ITC
from fastmatch.pretrain.itc import Bounded, one_way
from fastmatch.pretrain.momentum import PairQueue
from tests.pretrain.small import FUSIONS, Net, batch, float64, gradients
from tests.reference import pretrain as reference

each_fusion = pytest.mark.parametrize('fusion', FUSIONS)


def objective_of(net, **options):
    torch.manual_seed(1)
    return ITC(net, **{'dim': 8, 'queue': 6, **options})


def in_batch(net, **options): return objective_of(net, momentum=None, queue=0, **options)


def vectors(objective, net, items): return [float64(each) for each in objective.encoders(net)(items)]


def moved_net(net):
    "Change the weights of a net, as a step does."
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in net.parameters(): weight.add_(torch.randn_like(weight) * .05)


@each_fusion
def test_in_batch_it_equals_a_plain_loop(fusion):
    net, items = Net(fusion), batch()
    objective = in_batch(net, temperature=.2)
    texts, frames = vectors(objective, net, items)
    expected = reference.contrast(texts, frames, texts, frames, [], [], .2, 0.)
    assert float(objective(net, items).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('alpha, rise', [(0., 1.), (.4, 0.), (.4, .3), (.4, 1.)])
@each_fusion
def test_with_momentum_it_equals_a_plain_loop(fusion, alpha, rise):
    net = Net(fusion)
    objective = objective_of(net, alpha=alpha, temperature=.2)
    objective.rise.fill_(rise)
    slow = copy.deepcopy(net)
    slow_objective = copy.deepcopy(objective)
    moved_net(net)
    old = [vectors(slow_objective, slow, batch(seed=seed)) for seed in (3, 4)]
    # 10 items went in, of which the last 6 are kept: those of the first batch's end and all of the second
    for seed in (3, 4): objective(net, batch(seed=seed))
    old_texts, old_frames = ([*old[1][side], old[0][side][-1]] for side in (0, 1))
    items = batch(seed=5)
    texts, frames = vectors(objective, net, items)
    text_keys, frame_keys = vectors(slow_objective, slow, items)
    expected = reference.contrast(texts, frames, text_keys, frame_keys, old_texts, old_frames, .2,
                                  alpha * rise)
    assert float(objective(net, items).detach()) == pytest.approx(expected, rel=1e-5)


@each_fusion
def test_the_order_of_items_and_what_is_not_there_change_nothing(fusion):
    net = Net(fusion)
    items = batch()
    for objective in (in_batch(net), objective_of(net)):
        loss, similarities = copy.deepcopy(objective).loss_and_similarities(net, items)
        order = torch.tensor([3, 0, 4, 1, 2])
        permuted, of_permuted = copy.deepcopy(objective).loss_and_similarities(net, items.of(order))
        torch.testing.assert_close(permuted, loss)
        torch.testing.assert_close(of_permuted, similarities[order][:, order], rtol=1e-4, atol=1e-4)
        wider = batch(more_frames=2, more_padding=3)
        torch.testing.assert_close(copy.deepcopy(objective)(net, wider), loss, rtol=1e-5, atol=1e-5)


def test_similarities_are_those_of_texts_and_frames():
    net, items = Net(), batch()
    objective = objective_of(net, temperature=.2)
    moved_net(net)
    similarities = objective.loss_and_similarities(net, items)[1]
    texts, frames = vectors(objective, net, items)
    expected = torch.tensor(texts @ frames.T / .2)
    torch.testing.assert_close(similarities.double(), expected, rtol=1e-4, atol=1e-4)
    assert not similarities.requires_grad


@each_fusion
def test_what_learns(fusion):
    net = Net(fusion)
    objective = objective_of(net)
    before = {name: buffer.clone() for name, buffer in objective.copies.named_buffers()}
    moved = gradients(objective(net, batch()), net, objective)
    assert {'temperature', 'text_projection.weight', 'frame_projection.weight', 'fusion.frames.linear.weight',
            'encoders.title.body.embeddings.word_embeddings.weight'} <= moved
    assert not any(name.startswith(('fusion.cross', 'fusion.summary')) for name in moved)
    # the copies are no weights, have no gradients, and a forward pass leaves them as they are
    assert list(objective.copies.parameters()) == []
    for name, buffer in objective.copies.named_buffers():
        assert not buffer.requires_grad and buffer.grad is None
        assert torch.equal(buffer, before[name])
    assert not objective.queue.texts.requires_grad


@each_fusion
def test_the_copies_are_of_the_weights_that_are_needed(fusion):
    net = Net(fusion)
    objective = objective_of(net)
    names = set(objective.encoders(net).slow_weights())
    # those that a gradient reaches, and no other
    torch.stack([each.sum() for each in objective.encoders(net)(batch())]).sum().backward()
    reached = {name for name, weight in objective.encoders(net).named_parameters() if weight.grad is not None}
    assert names == reached


def test_the_copies_follow_slowly():
    net = Net()
    objective = objective_of(net, momentum=.9)
    weight, copied = net.fusion.frames.linear.weight, 'net/fusion/frames/linear/weight'
    start = weight.detach().clone()
    expected = start.double()
    for _ in range(3):
        moved_net(net)
        objective.follow(net)
        expected = .9 * expected + .1 * weight.detach().double()
    torch.testing.assert_close(objective.copies.get_buffer(copied).double(), expected, rtol=1e-5, atol=1e-6)
    assert int(objective.copies.n_moves) == 3
    projection = objective.text_projection.weight
    torch.testing.assert_close(objective.copies.get_buffer('text_projection/weight'), projection.detach())
    # what has moved is kept when a training begins; what has not is copied anew
    objective.copies.start(objective.encoders(net))
    torch.testing.assert_close(objective.copies.get_buffer(copied).double(), expected, rtol=1e-5, atol=1e-6)
    fresh = objective_of(net)
    moved_net(net)
    fresh.copies.start(fresh.encoders(net))
    assert torch.equal(fresh.copies.get_buffer(copied), weight)


def test_the_copies_read_without_dropout_and_leave_modes_alone():
    net = Net(dropout=.5)
    net.train()
    net.encoders['title'].body.embeddings.eval()
    objective = objective_of(net)
    modes = {name: module.training for name, module in net.named_modules()}
    keys = [objective.copies(objective.encoders(net), batch()) for _ in range(2)]
    torch.testing.assert_close(keys[0], keys[1])
    assert modes == {name: module.training for name, module in net.named_modules()}
    assert len(set(modes.values())) == 2


@pytest.mark.parametrize('sizes', [[4, 4, 4, 4], [3, 5, 1, 2, 6, 4], [20, 3], [7], [7, 7], [1] * 9,
                                   [0, 3, 0, 9]])
def test_the_queue_is_a_list_of_the_last_items(sizes):
    "Of a length that is no multiple of the batch, and of one that is smaller than a batch."
    queue = PairQueue(7, 2)
    kept, number = [], 0
    for size in sizes:
        texts = torch.stack([torch.arange(number, number + size).float(), torch.zeros(size)], 1)
        queue.push(texts, -texts)
        kept = (kept + texts[:, 0].tolist())[-7:]
        number += size
        found, of_frames = queue.pairs()
        assert sorted(found[:, 0].tolist()) == sorted(kept)
        assert torch.equal(found, -of_frames)


def test_a_queue_of_none():
    queue = PairQueue(0, 3)
    queue.push(torch.ones(4, 3), torch.ones(4, 3))
    assert queue.pairs()[0].shape == (0, 3)
    net = Net()
    loss = objective_of(net, queue=0)(net, batch())
    assert loss.isfinite() and loss > 0


def test_the_queue_is_filled_in_training_only():
    net = Net()
    objective = objective_of(net)
    objective.eval()(net, batch())
    assert not objective.queue.n_pushed
    plain = in_batch(net).eval()
    for name, weight in plain.named_parameters(): weight.data.copy_(objective.get_parameter(name))
    objective.train()(net, batch())
    assert int(objective.queue.n_pushed) == 5
    # of unit length, whatever the encoders' scale is
    torch.testing.assert_close(objective.queue.pairs()[0].norm(dim=1), torch.ones(5))
    # in evaluation neither queue nor copies nor soft targets have a part
    objective.rise.fill_(1.)
    moved_net(net)
    torch.testing.assert_close(objective.eval()(net, batch(seed=2)), plain(net, batch(seed=2)))


def test_a_push_does_not_change_what_backward_reads():
    def gradients(together):
        net = Net()
        objective = objective_of(net)
        objective(net, batch(seed=1))
        first = objective(net, batch())
        # the second call pushes into the queue that the first one has read
        if not together: first.backward()
        second = objective(net, batch(seed=2))
        (first + second if together else second).backward()
        return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    torch.testing.assert_close(gradients(True), gradients(False))


def test_the_state_has_all_of_it():
    net = Net()
    objective = objective_of(net)
    for seed in range(3): objective(net, batch(seed=seed))
    moved_net(net)
    objective.follow(net)
    objective.raise_share(.5, 2)
    other = objective_of(Net(seed=3))
    other.load_state_dict(objective.state_dict())
    torch.testing.assert_close(other(net, batch(seed=9)), objective(net, batch(seed=9)))
    assert float(other.rise) == .5 and int(other.copies.n_moves) == 1
    assert torch.equal(other.queue.texts, objective.queue.texts)


@pytest.mark.parametrize('ramp, n_epoch, expected', [
    (None, 4, [0., .25, .5, .75, 1., 1.]), (.5, 4, [0., .125, .25, .375, .5, 1.]), (0, 4, [1.] * 6),
    (1, 2, [0., .125, .25, .375, .5, 1.])])
def test_the_ramp_rises(ramp, n_epoch, expected):
    "In some public code the share was multiplied by itself, and stayed 0."
    objective = objective_of(Net(), ramp=ramp)
    seen = []
    for epochs_done in (0., .25, .5, .75, 1., 2.):
        objective.raise_share(epochs_done, n_epoch)
        seen.append(float(objective.rise))
    assert seen == pytest.approx(expected)
    # what was reached stays when another fit begins
    objective.raise_share(0., n_epoch)
    assert float(objective.rise) == pytest.approx(expected[-1])


def test_soft_targets_matter_as_far_as_the_ramp_has_risen():
    net = Net()
    losses = []
    for rise in (0., .5, 1.):
        objective = objective_of(net, alpha=.8)
        objective.rise.fill_(rise)
        losses.append(float(objective(net, batch()).detach()))
    assert losses[0] - losses[1] == pytest.approx(losses[1] - losses[2], rel=1e-3)
    assert abs(losses[0] - losses[2]) > .01


def test_the_temperature_is_kept_within_bounds_and_comes_back():
    net = Net()
    objective = in_batch(net)
    optimizer = torch.optim.SGD([objective.temperature], lr=1.)
    for value, bound in ((.0002, .001), (-3., .001), (2., .5)):
        objective.temperature.data.fill_(value)
        queries = torch.eye(3)
        torch.testing.assert_close(objective.logits(queries, queries), queries / bound)
    # a step that leads back is taken from beyond a bound, one that leads on is not
    for value, gradient, after in ((.6, 1., -.4), (.6, -1., .6), (.0005, 1., .0005), (.0005, -1., 1.0005),
                                   (.3, 1., -.7), (.3, -1., 1.3), (.5, -1., .5), (.5, 1., -.5)):
        objective.temperature.data.fill_(value)
        optimizer.zero_grad()
        (Bounded.apply(objective.temperature, .001, .5) * gradient).backward()
        optimizer.step()
        assert float(objective.temperature.detach()) == pytest.approx(after, abs=1e-5)


def test_the_temperature_learns_what_it_would_anyway():
    value = torch.tensor(.07, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda number: Bounded.apply(number, .001, .5), value)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_keeps_digits_of_a_cold_temperature(dtype):
    net, items = Net(), batch()
    objective = objective_of(net, temperature=.001)
    exact = copy.deepcopy(objective)(net, items)
    with torch.autocast('cpu', dtype): loss = objective(net, items)
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters() if weight.grad is not None)
    assert objective.queue.texts.dtype == torch.float32
    vectors = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    with torch.autocast('cpu', dtype): found = objective.logits(vectors, vectors)
    torch.testing.assert_close(found, vectors @ vectors.T / .001)
    assert exact.isfinite()


@each_fusion
def test_items_that_lack_something_are_left_out(fusion):
    net = Net(fusion)
    whole = batch((2, 0, 1, 3, 3), (4, 3, 0, 2, 5))
    for objective in (in_batch(net), objective_of(net)):
        expected = copy.deepcopy(objective)(net, whole.of(torch.tensor([0, 3, 4])))
        torch.testing.assert_close(objective(net, whole), expected)
        for n_frames, lengths in (((0, 0), (3, 4)), ((2, 3), (0, 0)), ((2, 0), (0, 3))):
            lacking = batch(n_frames, lengths, more_padding=2)
            loss, similarities = objective.loss_and_similarities(net, lacking)
            assert float(loss.detach()) == 0 and similarities.shape == (0, 0)
            assert gradients(loss, net, objective) == set()
    assert int(objective.queue.n_pushed) == 3


def test_a_batch_of_one():
    net = Net()
    with pytest.raises(InputError, match='itc: a batch of 1'): in_batch(net)(net, batch((2,), (3,)))
    assert float(in_batch(net).eval()(net, batch((2,), (3,))).detach()) == 0
    # with a queue there is something to tell it from, but for the first
    objective = objective_of(net)
    assert float(objective(net, batch((2,), (3,))).detach()) == pytest.approx(0, abs=1e-6)
    assert float(objective(net, batch((2,), (3,), seed=1)).detach()) > 0


def test_one_way_by_hand():
    logits = torch.tensor([[2., 0., 1.], [0., 1., 0.]])
    expected = -(logits.log_softmax(1)[0, 0] + logits.log_softmax(1)[1, 1]) / 2
    torch.testing.assert_close(one_way(logits), expected)


def test_a_queue_wants_items_enough():
    objective = objective_of(Net(), queue=6)
    objective.check(6)
    with pytest.raises(InputError, match='queue=6: with 5 items'): objective.check(5)
    in_batch(Net()).check(1)


@pytest.mark.parametrize('options, message', [
    ({'dim': 0}, 'dim=0'), ({'temperature': .6}, 'temperature=0.6'), ({'temperature': 0}, 'temperature=0'),
    ({'momentum': 1.}, 'momentum=1.0'), ({'momentum': -.1}, 'momentum=-0.1'), ({'queue': -1}, 'queue=-1'),
    ({'queue': 2.5}, 'queue=2.5'), ({'momentum': None, 'queue': 8}, 'queue=8'), ({'alpha': 1.5}, 'alpha=1.5'),
    ({'ramp': 2}, 'ramp=2'), ({'ramp': -.1}, 'ramp=-0.1')])
def test_options_that_will_not_do(options, message):
    with pytest.raises(InputError, match=message): ITC(Net(), **options)


def test_defaults_are_those_of_the_paper():
    objective = ITC(Net())
    assert (objective.momentum, objective.queue.size, objective.alpha) == (.995, 4096, .4)
    assert ITC(Net(), momentum=None).queue.size == 0
