"Accumulated steps against gradients of the whole, the largest batch against a real allocator, the noise scale against its definition."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelTrainException
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import GradientAccumulation
from tests.optim.tiny import BS, Items, N, Tiny, data, fit, learner, weights


class Plain(nn.Module):
    "No norm: the gradient of a batch is the mean of its items'."
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 3)
    def forward(self, x): return self.head(self.body(x))
    def param_groups(self): return {'image': [*self.body.parameters()], 'head': [*self.head.parameters()]}


def model(): return torch.manual_seed(0) and Plain()


def by_hand(cuts, epochs=1, lr=.1):
    "SGD on the mean gradient of items [a, b) for each cut."
    net, items = model(), data()
    for _ in range(epochs):
        for a, b in cuts:
            x, y = torch.stack([o[0] for o in items[a:b]]), torch.stack([o[1] for o in items[a:b]])
            grads = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), list(net.parameters()))
            with torch.no_grad():
                for p, g in zip(net.parameters(), grads): p -= lr * g
    return weights(net)


class Stepped(Callback):
    def before_fit(self): self.steps = []
    def after_step(self): self.steps.append((self.epoch, self.iter))


@pytest.mark.parametrize('n_acc, cuts', [(8, [(0, 8), (8, 16), (16, 24)]), (10, [(0, 12), (12, 24)]), (16, [(0, 16), (16, 24)]), (100, [(0, 24)])])
def test_accumulated_steps_are_of_the_whole(n_acc, cuts):
    learn = learner(sgd, model=model(), wd=0., cbs=[GradientAccumulation(n_acc), Stepped()])
    fit(learn, 'fit', 2, .1)
    torch.testing.assert_close(weights(learn), by_hand(cuts, 2), rtol=1e-5, atol=1e-6)
    assert learn.stepped.steps == [(e, b // BS - 1) for e in (0, 1) for _, b in cuts]


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
    assert torch.equal(weights(learn), before) and all(p.grad is None for p in learn.model.parameters())
    assert len(learn.cbs) == len(learner(ranger).cbs) and not learn.opt.slow
    assert learn.largest_bs(2, 6) == 6


def test_largest_batch_says_when_nothing_fits_and_passes_other_errors_on(tmp_path):
    with pytest.raises(InputError, match='not even 8'): learner(ranger, tmp_path, model=Wide(0)).largest_bs()
    class Broken(Plain):
        def forward(self, x): raise RuntimeError('size mismatch')
    with pytest.raises(RuntimeError, match='size mismatch'): learner(ranger, tmp_path, model=Broken()).largest_bs()
    with pytest.raises(InputError, match='start=0'): learner(ranger, tmp_path).largest_bs(0)


def test_sizing_leaves_a_trained_model_as_it_was(tmp_path):
    learn = learner(ranger, tmp_path, model=Tiny())
    fit(learn, 'fit', 1, .01)
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    step, random = learn.opt.state[learn.model.head.weight]['step'], torch.random.get_rng_state()
    assert learn.largest_bs(8, 64) == 64 and 0 < learn.noise_scale(4)
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert learn.opt.state[learn.model.head.weight]['step'] == step == 6 and torch.equal(torch.random.get_rng_state(), random)


def test_noise_scale_is_the_papers(tmp_path):
    "tr(cov) / |G|^2 of the items' gradients, from disjoint batches that together are all items."
    learn = learner(sgd, tmp_path, model=model())
    items = data()
    grads = []
    for x, y in items:
        g = torch.autograd.grad(nn.functional.cross_entropy(learn.model(x[None]), y[None]), list(learn.model.parameters()))
        grads.append(torch.cat([o.flatten() for o in g]).double().numpy())
    batches = np.stack(grads).reshape(N // BS, BS, -1).mean(1)
    # unbiased estimates over the six batches: the covariance of a batch's gradient is an item's by the batch size
    noise = BS * batches.var(0, ddof=1).sum()
    gradient = (batches.mean(0)**2).sum() - noise / N
    want = noise / gradient if gradient > 0 else np.inf
    assert np.isfinite(want)
    np.testing.assert_allclose(learn.noise_scale(N // BS), want, rtol=1e-4)
    with pytest.raises(InputError, match='n=1'): learn.noise_scale(1)
