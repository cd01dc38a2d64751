"Several objectives at once: what they share, their weights, and what is refused."
import copy

import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.pretrain import (
    ITC,
    ITM,
    MFM,
    MLM,
    OBJECTIVES,
    Objective,
    Objectives,
    PretrainNet,
    WeightedTerms,
    make_objectives,
)
from tests.pretrain.small import FUSIONS, Net, batch, gradients, tokenizer

each_fusion = pytest.mark.parametrize('fusion', FUSIONS)
ALL = {'mlm': .8, 'mfm': .33, 'itm': 1., 'itc': 1.}
SMALL_QUEUE = {'itc': {'queue': 6, 'dim': 8}}


def all_of(net, weights=ALL, **options):
    torch.manual_seed(0)
    options = {name: own for name, own in {**SMALL_QUEUE, **options}.items() if name in weights}
    return make_objectives(weights, net, tokenizer(), options)


def counted(net):
    "The batches that go through a net's fusion, in a list that grows."
    passed = []
    fuse = net.fuse
    net.fuse = lambda items: passed.append(items) or fuse(items)
    return passed


@each_fusion
@pytest.mark.parametrize('negatives', ['roll', 'hard'])
def test_one_pass_for_what_is_hidden_and_one_for_pairs(fusion, negatives):
    net = Net(fusion)
    objectives = all_of(net, itm={'negatives': negatives})
    passed = counted(net)
    items = batch()
    losses = objectives(net, items)
    assert list(losses) == list(ALL)
    assert all(loss.shape == () and loss.isfinite() and loss > 0 for loss in losses.values())
    hidden, pairs = passed
    # the matched batch, with some words and frames hidden
    assert hidden.ids.shape == items.ids.shape and not torch.equal(hidden.ids, items.ids)
    assert int((hidden.frames != items.frames).any(2).sum()) >= 1
    # pairs are of frames and texts as they are
    assert len(pairs) == (5 if negatives == 'roll' else 15)
    for row in pairs.ids: assert any(torch.equal(row, whole) for whole in items.ids)


def test_each_alone_gives_the_same():
    net = Net()
    items = batch()
    for name in ALL:
        objectives = all_of(net, {name: 1.})
        alone = copy.deepcopy(objectives.objectives[name])
        torch.manual_seed(3)
        together = objectives(net, items)[name]
        torch.manual_seed(3)
        torch.testing.assert_close(alone(net, items), together)


def test_a_weight_of_0_leaves_one_out():
    net = Net()
    objectives = all_of(net, {**ALL, 'mfm': 0, 'itc': 0})
    assert list(objectives.objectives) == ['mlm', 'itm'] and objectives.weights == {'mlm': .8, 'itm': 1.}
    assert list(objectives(net, batch())) == ['mlm', 'itm']


def test_options_reach_their_objective():
    objectives = all_of(Net(), itm={'negatives': 'hard'}, mlm={'max_ngram': 2}, mfm={'temperature': None})
    made = objectives.objectives
    assert made['itm'].negatives == 'hard' and made['itc'].queue.size == 6
    assert len(made['mlm'].ngrams.longer) == 2 and made['mfm'].temperature is None
    assert [type(each) for each in made.values()] == [MLM, MFM, ITM, ITC] == list(OBJECTIVES.values())


@pytest.mark.parametrize('weights, options, message', [
    ({'mml': 1.}, {}, 'mml=1.0: no option of objectives .did you mean mlm'), ({'mlm': -.1}, {}, 'mlm=-0.1'),
    ({'mlm': 'much'}, {}, "mlm='much'"), ({'mlm': True}, {}, 'mlm=True'), ({'mlm': None}, {}, 'mlm=None'),
    ({'mlm': float('nan')}, {}, 'mlm=nan'), ({'mlm': float('inf')}, {}, 'mlm=inf'),
    ({'mlm': 0, 'itm': 0.}, {}, 'all weights are 0'), ({}, {}, 'give a weight for each'),
    (['mlm'], {}, 'give a weight for each'), (None, {}, 'give a weight for each'),
    ({'mlm': 1.}, {'mlm': {'rates': .1}}, 'rates=0.1: no option of mlm .did you mean rate'),
    ({'mlm': 1.}, {'mlm': {'net': 1}}, 'net=1: no option of mlm'),
    ({'mlm': 1.}, {'mlm': .1}, 'options of mlm: 0.1'), ({'mlm': 1.}, ['mlm'], 'give a dict by objective'),
    ({'mlm': 1.}, {'itn': {}}, 'itn={}: no option of options .did you mean itm'),
    ({'mlm': 1.}, {'itc': {}}, "'itc', which has no weight"),
    ({'mlm': 1.}, {'mlm': {'rate': 2}}, 'rate=2'),
    ({'itm': 1.}, {'itm': {'negatives': 'hard'}}, "'itc' learns"),
    ({'itm': 1., 'itc': 0.}, {'itm': {'negatives': 'hard'}}, "'itc' learns")])
def test_refusals(weights, options, message):
    with pytest.raises(InputError, match=message): make_objectives(weights, Net(), tokenizer(), options)


def test_numbers_of_any_kind_are_weights():
    objectives = make_objectives({'mlm': np.float32(.5), 'mfm': 1}, Net(), tokenizer())
    assert objectives.weights == {'mlm': .5, 'mfm': 1.}


def test_one_of_ones_own():
    class FramesAreShort(Objective):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
        def forward(self, net, items): return net.frames_alone(items).square().mean() * self.scale
    net = Net()
    objectives = Objectives({'short': FramesAreShort(), 'itm': ITM(net)})
    assert objectives.weights == {'short': 1., 'itm': 1.}
    losses = objectives(net, batch())
    torch.testing.assert_close(losses['short'], net.frames_alone(batch()).square().mean())
    with pytest.raises(InputError, match='weights names'): Objectives({'itm': ITM(net)}, {'mlm': 1.})


def test_the_sum():
    loss = WeightedTerms({'mlm': .5, 'itm': 2.})
    terms = {'itm': torch.tensor(3., requires_grad=True), 'mlm': torch.tensor(4.)}
    total = loss(terms, torch.zeros(7))
    assert float(total) == 8
    total.backward()
    assert float(terms['itm'].grad) == 2
    with pytest.raises(InputError, match=r"returned \['itm'\]"): loss({'itm': torch.tensor(1.)})
    with pytest.raises(InputError, match='returned Tensor'): loss(torch.tensor(1.))
    with pytest.raises(InputError, match='all weights are 0'): WeightedTerms({'mlm': 0})


@each_fusion
def test_the_model_of_both(fusion):
    net = Net(fusion)
    model = PretrainNet(net, all_of(net))
    items = batch()
    losses = model(items.frames, items.has_frame.sum(1), items.ids)
    total = WeightedTerms(model.objectives.weights)(losses)
    moved = gradients(total, model)
    # each weight is in the model once, and the copies of `ITC` are not among them
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len({id(weight) for weight in model.parameters()})
    assert not any('copies' in name for name in names)
    # all but padding's position and such learn: every tensor of the net has a gradient
    idle = {name for name in names if name not in moved}
    assert all('key' in name and 'bias' in name for name in idle), idle


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@each_fusion
def test_mixed_precision(fusion, dtype):
    net = Net(fusion)
    objectives = all_of(net, itm={'negatives': 'hard'})
    torch.manual_seed(0)
    exact = objectives(net, batch())
    objectives = all_of(net, itm={'negatives': 'hard'})
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype): losses = objectives(net, batch())
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        # hard negatives may be other ones
        if name == 'itm': continue
        assert float(loss.detach()) == pytest.approx(float(exact[name].detach()), rel=.1), name
    sum(losses.values()).backward()
    assert all(weight.grad.isfinite().all() for weight in [*net.parameters(), *objectives.parameters()]
               if weight.grad is not None)


@each_fusion
@pytest.mark.parametrize('n_frames, lengths', [((0, 0, 0), (3, 4, 2)), ((2, 3, 1), (0, 0, 0)),
                                               ((2, 0, 1), (0, 3, 0))])
def test_batches_in_which_no_item_is_whole(fusion, n_frames, lengths):
    torch.manual_seed(0)
    net = Net(fusion)
    objectives = all_of(net, itm={'negatives': 'hard'})
    losses = objectives(net, batch(n_frames, lengths, more_padding=2))
    assert losses['itm'] == losses['itc'] == losses['mfm'] == 0
    assert (losses['mlm'] > 0) == any(lengths)
    sum(losses.values()).backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters() if weight.grad is not None)


def test_all_randomness_is_torch_s():
    import random
    net = Net()
    found = []
    for seed in range(2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(5)
        found.append(all_of(net, itm={'negatives': 'hard'})(net, batch()))
    assert found[0] == found[1]


def test_what_is_checked_before_training():
    objectives = all_of(Net())
    objectives.check(6)
    with pytest.raises(InputError, match='queue=6'): objectives.check(5)
