"Accumulated steps against whole batches, the largest batch against an allocator, the noise scale as defined."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelTrainException
from torch import nn

from fastmatch.core import InputError
from fastmatch.losses import Triplet
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import GradientAccumulation
from tests.optim.tiny import BATCH_SIZE, N_ITEMS, Items, TinyNet, fit, make_items, weights_of
from tests.schedule.small import make_learner


class Plain(nn.Module):
    "No norm: the gradient of a batch is the mean of its items'."
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 3)
    def forward(self, inputs): return self.head(self.body(inputs))
    def param_groups(self): return {'image': [*self.body.parameters()], 'head': [*self.head.parameters()]}


def make_plain():
    "The same `Plain` each time."
    torch.manual_seed(0)
    return Plain()


def trained_by_hand(ranges, epochs=1, lr=.1):
    "Weights after SGD on the mean gradient of items start..end-1 for each (start, end)."
    model = make_plain()
    items = make_items()
    for _ in range(epochs):
        for start, end in ranges:
            inputs, targets = map(torch.stack, zip(*items[start:end]))
            loss = nn.functional.cross_entropy(model(inputs), targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(model.parameters(), gradients): weight -= lr * gradient
    return weights_of(model)


class Stepped(Callback):
    "Notes after which batches steps were taken."
    def before_fit(self): self.steps = []
    def after_step(self): self.steps.append((self.epoch, self.iter))


@pytest.mark.parametrize('n_items, ranges', [
    (8, [(0, 8), (8, 16), (16, 24)]), (10, [(0, 12), (12, 24)]), (16, [(0, 16), (16, 24)]), (100, [(0, 24)])])
def test_accumulated_steps_are_of_the_whole(n_items, ranges):
    learner = make_learner(sgd, model=make_plain(), wd=0., cbs=[GradientAccumulation(n_items), Stepped()])
    fit(learner, 'fit', 2, .1)
    torch.testing.assert_close(weights_of(learner), trained_by_hand(ranges, 2), rtol=1e-5, atol=1e-6)
    assert learner.stepped.steps == [(epoch, end // BATCH_SIZE - 1) for epoch in (0, 1) for _, end in ranges]


def test_a_short_last_batch_counts_as_much_as_it_holds():
    learner = make_learner(sgd, model=make_plain(), wd=0., cbs=GradientAccumulation(12))
    learner.dls.loaders[0] = learner.dls.train.new(dataset=Items(make_items()[:22]))
    fit(learner, 'fit', 1, .1)
    expected = trained_by_hand([(0, 12), (12, 22)])
    torch.testing.assert_close(weights_of(learner), expected, rtol=1e-5, atol=1e-6)


def test_an_interrupted_epoch_leaves_nothing_over():
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.epoch == 0 and self.iter == 2: raise CancelTrainException
    interrupted = make_learner(sgd, model=make_plain(), wd=0., cbs=[GradientAccumulation(8), Stop()])
    fit(interrupted, 'fit', 2, .1)
    uninterrupted = make_learner(sgd, model=make_plain(), wd=0., cbs=GradientAccumulation(8))
    uninterrupted.dls.loaders[0] = uninterrupted.dls.train.new(dataset=Items(make_items()[:8]))
    fit(uninterrupted, 'fit', 1, .1)
    uninterrupted.dls.loaders[0] = uninterrupted.dls.train.new(dataset=Items(make_items()))
    fit(uninterrupted, 'fit', 1, .1)
    torch.testing.assert_close(weights_of(interrupted), weights_of(uninterrupted), rtol=1e-6, atol=1e-7)


class Wide(Plain):
    "Asks the real allocator for more than there is where a batch has more than `limit` items."
    def __init__(self, limit):
        super().__init__()
        self.limit = limit
    def forward(self, inputs):
        if self.training and len(inputs) > self.limit: torch.empty(2**46, dtype=torch.uint8)
        return super().forward(inputs)


@pytest.mark.parametrize('limit', [8, 24, 40, 100])
def test_largest_batch(limit, tmp_path):
    learner = make_learner(ranger, tmp_path, model=Wide(limit))
    before = weights_of(learner)
    with pytest.raises(RuntimeError): learner.model.train()(torch.zeros(limit + 1, 5))
    assert learner.largest_bs(8, 256) == limit // 8 * 8
    assert torch.equal(weights_of(learner), before)
    assert all(parameter.grad is None for parameter in learner.model.parameters())
    assert len(learner.cbs) == len(make_learner(ranger).cbs) and not learner.opt.slow
    assert learner.largest_bs(2, 6) == 6


def test_largest_batch_says_when_nothing_fits_and_passes_other_errors_on(tmp_path):
    with pytest.raises(InputError, match='not even 8'):
        make_learner(ranger, tmp_path, model=Wide(0)).largest_bs()
    class Broken(Plain):
        def forward(self, inputs): raise RuntimeError('size mismatch')
    with pytest.raises(RuntimeError, match='size mismatch'):
        make_learner(ranger, tmp_path, model=Broken()).largest_bs()
    with pytest.raises(InputError, match='start=0'): make_learner(ranger, tmp_path).largest_bs(0)


def test_a_few_rows_of_a_batch_still_hold_pairs(tmp_path):
    "Of batches with many rows of each class, as pair losses are given."
    learner = make_learner(sgd, tmp_path, model=Wide(8))
    learner.loss_func = Triplet()
    by_class = Items((inputs, torch.tensor(i // 8)) for i, (inputs, _) in enumerate(make_items()))
    learner.dls.loaders[0] = learner.dls.train.new(dataset=by_class, bs=24)
    assert learner.largest_bs(4, 64) == 8


def test_sizing_leaves_a_trained_model_as_it_was(tmp_path):
    learner = make_learner(ranger, tmp_path, model=TinyNet())
    fit(learner, 'fit', 1, .01)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    step = learner.opt.state[learner.model.head.weight]['step']
    random_state = torch.random.get_rng_state()
    assert learner.largest_bs(8, 64) == 64 and 0 < learner.noise_scale(4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())
    assert learner.opt.state[learner.model.head.weight]['step'] == step == 6
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_noise_scale_is_the_papers(tmp_path):
    "tr(cov) / |G|^2 of the items' gradients, from disjoint batches that together are all items."
    learner = make_learner(sgd, tmp_path, model=make_plain())
    by_item = []
    for inputs, target in make_items():
        loss = nn.functional.cross_entropy(learner.model(inputs[None]), target[None])
        gradients = torch.autograd.grad(loss, list(learner.model.parameters()))
        by_item.append(torch.cat([gradient.flatten() for gradient in gradients]).double().numpy())
    batches = np.stack(by_item).reshape(N_ITEMS // BATCH_SIZE, BATCH_SIZE, -1).mean(1)
    # unbiased estimates over the six batches: the covariance of a batch's gradient is an item's / batch size
    noise = BATCH_SIZE * batches.var(0, ddof=1).sum()
    gradient = (batches.mean(0)**2).sum() - noise / N_ITEMS
    expected = noise / gradient if gradient > 0 else np.inf
    assert np.isfinite(expected)
    np.testing.assert_allclose(learner.noise_scale(N_ITEMS // BATCH_SIZE), expected, rtol=1e-4)
    with pytest.raises(InputError, match='n=1'): learner.noise_scale(1)
