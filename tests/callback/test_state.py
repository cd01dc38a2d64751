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
from tests.callback.small import BS, Items, Net, data, everything, fit, learner, net
from tests.callback.test_averaging import naive_statistics


class Pair(nn.Module):
    "Two inputs, and a norm that only training passes through."
    def __init__(self):
        super().__init__()
        self.body = Net(0.).body
        self.aux = nn.BatchNorm1d(36)
        self.head = nn.Linear(41, 3)

    def forward(self, image, features):
        x = self.body(image)
        return self.head(torch.cat([self.aux(x) if self.training else x, features], 1))

    def param_groups(self): return {'all': list(self.parameters())}


def test_bn_update_reads_every_input_and_leaves_no_trace():
    torch.manual_seed(0)
    items = Items([(x, torch.randn(5), y) for x, y in data()])
    dls = DataLoaders(DataLoader(items, bs=BS, shuffle=True), DataLoader(items, bs=BS), device='cpu')
    dls.n_inp = 2
    learn = Learner(dls, Pair(), CrossEntropyLossFlat(), opt_func=sgd, wd=0.)
    fit(learn, 'fit', 1, .05)
    learn.model.train()
    unused = learn.model.aux.running_mean.clone()
    random_state = torch.get_rng_state()
    shuffling = dls.train.rng.getstate()
    update_bn(learn)
    assert torch.equal(torch.get_rng_state(), random_state) and dls.train.rng.getstate() == shuffling
    assert torch.equal(learn.model.aux.running_mean, unused)
    assert learn.model.training and learn.model.body[1].momentum == .1
    mean = learn.model.body[1].running_mean.clone()
    want, _ = naive_statistics(learn, [(batch[0], batch[1]) for batch in dls.train.new(shuffle=False)])
    torch.testing.assert_close(mean, want, rtol=1e-5, atol=1e-6)


def draw(): return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_randomness_goes_on_as_if_nothing_had_been_drawn():
    for seed in (random.seed, np.random.seed, torch.manual_seed): seed(3)
    want = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed): seed(3)
    with preserved_randomness(): assert draw() == want
    assert draw() == want


def test_buffers_are_put_back_and_so_are_replaced_ones():
    model = net(0.)
    buffers = ModelBuffers(model)
    copies = buffers.copy()
    norm = model.body[1]
    own = norm.running_mean
    with torch.no_grad(): model.train()(torch.randn(4, 1, 8, 8))
    norm.running_mean = torch.ones(4)
    assert norm.num_batches_tracked == 1
    buffers.restore(copies)
    assert norm.running_mean is own and (own == 0).all() and norm.num_batches_tracked == 0


def test_rows_are_those_that_the_loader_drew():
    items = data()
    loader = DataLoader(items, bs=BS, shuffle=True)
    drawn = DrawnRows(loader)
    for number, (images, _) in enumerate(loader):
        assert torch.equal(images, torch.stack([items[row][0] for row in drawn.rows(number)]))
    drawn.close()
    assert 'get_idxs' not in loader.__dict__


def test_a_learner_put_back_trains_the_same_again():
    learn = learner(shuffle=True)
    fit(learn, 'fit', 1, .05)
    state = learner_state(learn)
    ends = []
    for _ in range(2):
        set_learner_state(learn, state)
        fit(learn, 'fit', 1, .05)
        ends.append(everything(learn))
    assert torch.equal(*ends)
