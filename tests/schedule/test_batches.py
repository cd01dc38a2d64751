"Accumulated steps against whole batches, the largest batch against an allocator, the noise scale as defined."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelTrainException
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import GradientAccumulation
from tests.schedule.small import BS, Items, N, SmallNet, data, fit, learner, weights


class Plain(nn.Module):
    "No norm: the gradient of a batch is the mean of its items'."
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 3)
    def forward(self, x): return self.head(self.body(x))
    def param_groups(self): return {'image': [*self.body.parameters()], 'head': [*self.head.parameters()]}


def model():
    "The same `Plain` each time."
    torch.manual_seed(0)
    return Plain()


def by_hand(ranges, epochs=1, lr=.1):
    "Weights after SGD on the mean gradient of items start..end-1 for each (start, end)."
    net = model()
    items = data()
    for _ in range(epochs):
        for start, end in ranges:
            inputs, targets = map(torch.stack, zip(*items[start:end]))
            loss = nn.functional.cross_entropy(net(inputs), targets)
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(net.parameters(), gradients): weight -= lr * gradient
    return weights(net)


class Stepped(Callback):
    "Notes after which batches steps were taken."
    def before_fit(self): self.steps = []
    def after_step(self): self.steps.append((self.epoch, self.iter))


@pytest.mark.parametrize('n_acc, ranges', [
    (8, [(0, 8), (8, 16), (16, 24)]), (10, [(0, 12), (12, 24)]), (16, [(0, 16), (16, 24)]), (100, [(0, 24)])])
def test_accumulated_steps_are_of_the_whole(n_acc, ranges):
    learn = learner(sgd, model=model(), wd=0., cbs=[GradientAccumulation(n_acc), Stepped()])
    fit(learn, 'fit', 2, .1)
    torch.testing.assert_close(weights(learn), by_hand(ranges, 2), rtol=1e-5, atol=1e-6)
    assert learn.stepped.steps == [(epoch, end // BS - 1) for epoch in (0, 1) for _, end in ranges]


def test_a_short_last_batch_counts_as_much_as_it_holds():
    learn = learner(sgd, model=model(), wd=0., cbs=GradientAccumulation(12))
    dl = learn.dls.train.new(dataset=Items(data()[:22]))
    learn.dls.loaders[0] = dl
    fit(learn, 'fit', 1, .1)
    torch.testing.assert_close(weights(learn), by_hand([(0, 12), (12, 22)]), rtol=1e-5, atol=1e-6)


def test_an_interrupted_epoch_leaves_nothing_over():
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.epoch == 0 and self.iter == 2: raise CancelTrainException
    learn = learner(sgd, model=model(), wd=0., cbs=[GradientAccumulation(8), Stop()])
    fit(learn, 'fit', 2, .1)
    net = learner(sgd, model=model(), wd=0., cbs=GradientAccumulation(8))
    net.dls.loaders[0] = net.dls.train.new(dataset=Items(data()[:8]))
    fit(net, 'fit', 1, .1)
    net.dls.loaders[0] = net.dls.train.new(dataset=Items(data()))
    fit(net, 'fit', 1, .1)
    torch.testing.assert_close(weights(learn), weights(net), rtol=1e-6, atol=1e-7)


class Wide(Plain):
    "Asks the real allocator for more than there is where a batch has more than `limit` items."
    def __init__(self, limit):
        super().__init__()
        self.limit = limit
    def forward(self, x):
        if self.training and len(x) > self.limit: torch.empty(2**46, dtype=torch.uint8)
        return super().forward(x)


@pytest.mark.parametrize('limit', [8, 24, 40, 100])
def test_largest_batch(limit, tmp_path):
    learn = learner(ranger, tmp_path, model=Wide(limit))
    before = weights(learn)
    with pytest.raises(RuntimeError): learn.model.train()(torch.zeros(limit + 1, 5))
    assert learn.largest_bs(8, 256) == limit // 8 * 8
    assert torch.equal(weights(learn), before)
    assert all(weight.grad is None for weight in learn.model.parameters())
    assert len(learn.cbs) == len(learner(ranger).cbs) and not learn.opt.slow
    assert learn.largest_bs(2, 6) == 6


def test_largest_batch_says_when_nothing_fits_and_passes_other_errors_on(tmp_path):
    with pytest.raises(InputError, match='not even 8'):
        learner(ranger, tmp_path, model=Wide(0)).largest_bs()
    class Broken(Plain):
        def forward(self, x): raise RuntimeError('size mismatch')
    with pytest.raises(RuntimeError, match='size mismatch'):
        learner(ranger, tmp_path, model=Broken()).largest_bs()
    with pytest.raises(InputError, match='start=0'): learner(ranger, tmp_path).largest_bs(0)


def test_sizing_leaves_a_trained_model_as_it_was(tmp_path):
    learn = learner(ranger, tmp_path, model=SmallNet())
    fit(learn, 'fit', 1, .01)
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    step = learn.opt.state[learn.model.head.weight]['step']
    random = torch.random.get_rng_state()
    assert learn.largest_bs(8, 64) == 64 and 0 < learn.noise_scale(4)
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())
    assert learn.opt.state[learn.model.head.weight]['step'] == step == 6
    assert torch.equal(torch.random.get_rng_state(), random)


def test_noise_scale_is_the_papers(tmp_path):
    "tr(cov) / |G|^2 of the items' gradients, from disjoint batches that together are all items."
    learn = learner(sgd, tmp_path, model=model())
    by_item = []
    for x, y in data():
        loss = nn.functional.cross_entropy(learn.model(x[None]), y[None])
        gradients = torch.autograd.grad(loss, list(learn.model.parameters()))
        by_item.append(torch.cat([gradient.flatten() for gradient in gradients]).double().numpy())
    batches = np.stack(by_item).reshape(N // BS, BS, -1).mean(1)
    # unbiased estimates over the six batches: the covariance of a batch's gradient is an item's / batch size
    noise = BS * batches.var(0, ddof=1).sum()
    gradient = (batches.mean(0)**2).sum() - noise / N
    want = noise / gradient if gradient > 0 else np.inf
    assert np.isfinite(want)
    np.testing.assert_allclose(learn.noise_scale(N // BS), want, rtol=1e-4)
    with pytest.raises(InputError, match='n=1'): learn.noise_scale(1)
