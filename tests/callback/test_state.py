"State that is taken down and put back: random numbers, buffers, loaders; BatchNorm's statistics made anew."
import random

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from fastmatch.callback.state import (
    DrawnRows,
    ModelBuffers,
    learner_state,
    preserved_randomness,
    set_learner_state,
    update_bn,
)
from fastmatch.optim import sgd
from tests.callback.small import BS, Items, Net, data, everything, fit, make_learner, net
from tests.callback.test_averaging import naive_statistics


class Pair(nn.Module):
    "Two inputs, and a norm that only training passes through."
    def __init__(self):
        super().__init__()
        self.body = Net(0.).body
        self.aux = nn.BatchNorm1d(36)
        self.head = nn.Linear(41, 3)

    def forward(self, image, features):
        hidden = self.body(image)
        return self.head(torch.cat([self.aux(hidden) if self.training else hidden, features], 1))

    def param_groups(self): return {'all': list(self.parameters())}


def test_bn_update_reads_every_input_and_leaves_no_trace():
    torch.manual_seed(0)
    items = Items([(image, torch.randn(5), target) for image, target in data()])
    dls = DataLoaders(DataLoader(items, bs=BS, shuffle=True), DataLoader(items, bs=BS), device='cpu')
    dls.n_inp = 2
    learner = Learner(dls, Pair(), CrossEntropyLossFlat(), opt_func=sgd, wd=0.)
    fit(learner, 'fit', 1, .05)
    learner.model.train()
    unused = learner.model.aux.running_mean.clone()
    random_state = torch.get_rng_state()
    shuffling = dls.train.rng.getstate()
    update_bn(learner)
    assert torch.equal(torch.get_rng_state(), random_state) and dls.train.rng.getstate() == shuffling
    assert torch.equal(learner.model.aux.running_mean, unused)
    assert learner.model.training and learner.model.body[1].momentum == .1
    mean = learner.model.body[1].running_mean.clone()
    expected, _ = naive_statistics(learner, [(batch[0], batch[1]) for batch in dls.train.new(shuffle=False)])
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)


def draw(): return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_randomness_goes_on_as_if_nothing_had_been_drawn():
    for set_seed in (random.seed, np.random.seed, torch.manual_seed): set_seed(3)
    expected = draw()
    for set_seed in (random.seed, np.random.seed, torch.manual_seed): set_seed(3)
    with preserved_randomness(): assert draw() == expected
    assert draw() == expected


def test_buffers_are_put_back_and_so_are_replaced_ones():
    model = net(0.)
    buffers = ModelBuffers(model)
    copies = buffers.copy()
    norm = model.body[1]
    own_mean = norm.running_mean
    with torch.no_grad(): model.train()(torch.randn(4, 1, 8, 8))
    norm.running_mean = torch.ones(4)
    assert norm.num_batches_tracked == 1
    buffers.restore(copies)
    assert norm.running_mean is own_mean and (own_mean == 0).all() and norm.num_batches_tracked == 0


def test_rows_are_those_that_the_loader_drew():
    items = data()
    loader = DataLoader(items, bs=BS, shuffle=True)
    drawn_rows = DrawnRows(loader)
    for batch_number, (images, _) in enumerate(loader):
        assert torch.equal(images, torch.stack([items[row][0] for row in drawn_rows.rows(batch_number)]))
    drawn_rows.close()
    assert 'get_idxs' not in loader.__dict__


def test_a_learner_put_back_trains_the_same_again():
    learner = make_learner(shuffle=True)
    fit(learner, 'fit', 1, .05)
    start_state = learner_state(learner)
    end_states = []
    for _ in range(2):
        set_learner_state(learner, start_state)
        fit(learner, 'fit', 1, .05)
        end_states.append(everything(learner))
    assert torch.equal(*end_states)
