"""Slow weights: they follow what is loaded or written into the model, and nothing that is undone before
the next step."""
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.optimizer import ranger as fastai_ranger
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import Lookahead, adamw, ranger, ranger_adabelief, sgd
from fastmatch.optim.lookahead import Watch
from tests.optim.steps import flat, make_groups
from tests.optim.tiny import fit, make_learner, weights_of


def take_steps(learner, lr, n_steps=1):
    "`n` steps on the first training batch."
    learner.opt.set_hyper('lr', lr)
    for _ in range(n_steps):
        inputs, targets = next(iter(learner.dls.train))
        learner.loss_func(learner.model(inputs), targets).backward()
        learner.opt.step()
        learner.opt.zero_grad()


def lookahead_over_sgd(parameters, lr): return Lookahead(sgd(parameters, lr, .9))


@pytest.fixture(params=[ranger, lookahead_over_sgd], ids=['ranger', 'over-sgd'])
def trained(request, tmp_path):
    """A Learner two steps before its fast and slow weights meet, and other weights, which are saved
    beside it too."""
    learner = make_learner(request.param, tmp_path, wd=0.)
    torch.manual_seed(9)
    other_weights = {name: torch.rand_like(value) if value.is_floating_point() else value
                     for name, value in learner.model.state_dict().items()}
    (tmp_path/'models').mkdir()
    torch.save(other_weights, tmp_path/'models'/'other.pth')
    fit(learner, 'fit', 1, .05)
    for _ in range(4): take_steps(learner, .05)
    return learner, other_weights


def by_load(learner, other_weights): learner.load('other', with_opt=False)
def by_state_dict(learner, other_weights): learner.model.load_state_dict(other_weights)


def by_copy(learner, other_weights):
    for name, parameter in learner.model.named_parameters(): parameter.data.copy_(other_weights[name])


def by_swap(learner, other_weights):
    for name, parameter in learner.model.named_parameters(): parameter.data = other_weights[name].clone()


@pytest.mark.parametrize('overwrite', [by_load, by_state_dict, by_copy, by_swap])
def test_slow_weights_follow_other_weights(trained, overwrite):
    learner, other_weights = trained
    overwrite(learner, other_weights)
    # a momentum from before must not move them here
    learner.opt.opt.clear_state()
    take_steps(learner, 0., 7)
    for name, parameter in learner.model.named_parameters():
        assert torch.equal(parameter, other_weights[name]), name


def test_fastais_slow_weights_do_not(tmp_path):
    "What the test above would say of fastai's own ranger."
    learner = make_learner(fastai_ranger, tmp_path, wd=0.)
    fit(learner, 'fit', 1, .05)
    take_steps(learner, .05, 4)
    other_weights = {name: value + 1 if value.is_floating_point() else value
                     for name, value in learner.model.state_dict().items()}
    learner.model.load_state_dict(other_weights)
    learner.opt.opt.clear_state()
    take_steps(learner, 0., 7)
    assert max((parameter - other_weights[name]).abs().max()
               for name, parameter in learner.model.named_parameters()) > .4


def test_one_rewritten_weight_alone_starts_anew(trained):
    learner, _ = trained
    before = {parameter: slow.clone() for parameter, slow in learner.opt.slow.items()}
    rewritten = learner.model.head.weight
    with torch.no_grad(): rewritten.fill_(3.)
    take_steps(learner, 0.)
    for parameter, slow in learner.opt.slow.items():
        assert torch.equal(slow, torch.full_like(slow, 3.) if parameter is rewritten else before[parameter])


def test_best_model_reload(tmp_path):
    "The model goes on from the best weights, not halfway back to the last."
    best = {}

    class Worse(Callback):
        "The first epoch is the best: it changes the loss that the Recorder (order 50) has noted."
        order = 55
        def after_validate(self): self.recorder.log[-1] = float(self.epoch)

    class Keep(Callback):
        order = 90
        def after_epoch(self):
            if self.epoch == 0: best['weights'] = weights_of(self.learn)

    learner = make_learner(ranger, tmp_path, wd=0.)
    fit(learner, 'fit', 3, .05, cbs=[SaveModelCallback(comp=np.less, monitor='valid_loss'), Keep(), Worse()])
    saved = torch.load(tmp_path/'models'/'model.pth', weights_only=True)
    saved = torch.cat([saved[name].flatten() for name, _ in learner.model.named_parameters()])
    assert torch.equal(weights_of(learner), saved) and torch.equal(saved, best['weights'])
    learner.opt.opt.clear_state()
    take_steps(learner, 0., 7)
    assert torch.equal(weights_of(learner), saved)


@torch.no_grad()
def climb_and_fall(parameters):
    "What SAM does to the weights before a step."
    shifts = [torch.randn_like(parameter) * .3 for parameter in parameters]
    for parameter, shift in zip(parameters, shifts): parameter.add_(shift)
    for parameter, shift in zip(parameters, shifts): parameter.sub_(shift)


@torch.no_grad()
def swap_out_and_in(parameters):
    "What averaged weights do around a validation."
    kept = [parameter.clone() for parameter in parameters]
    for parameter in parameters: parameter.zero_()
    for parameter, earlier in zip(parameters, kept): parameter.copy_(earlier)


@pytest.mark.parametrize('make_optimizer', [ranger, ranger_adabelief])
def test_writes_that_are_undone_change_nothing(make_optimizer):
    "SAM's climb and fall before each step, and averages swapped in and out, leave slow weights alone."
    def train(with_writes):
        learner = make_learner(make_optimizer, wd=0.)
        learner.create_opt()
        n_changed = 0
        for step in range(30):
            if with_writes and step:
                parameters = list(learner.model.parameters())
                climb_and_fall(parameters)
                if step % 5 == 0: swap_out_and_in(parameters)
                n_changed += len(learner.opt.watch.changed())
            take_steps(learner, 1e-3)
        return weights_of(learner), n_changed
    with_writes, n_changed = train(True)
    assert n_changed == 0
    torch.testing.assert_close(with_writes, train(False)[0], rtol=1e-3, atol=1e-4)


def test_unfreeze_starts_slow_weights_from_the_model(tmp_path):
    learner = make_learner(ranger, tmp_path, wd=0.)
    learner.freeze()
    fit(learner, 'fit', 1, .05)
    take_steps(learner, .05, 2)
    learner.unfreeze()
    assert learner.opt.count == 0 and not learner.opt.slow
    before = [parameter.detach().clone() for parameter in learner.model.parameters()]
    take_steps(learner, 0.)
    assert len(learner.opt.slow) == 5
    for parameter, earlier in zip(learner.model.parameters(), before):
        assert torch.equal(learner.opt.slow[parameter], earlier)


def ids(parameters): return [id(parameter) for parameter in parameters]


def test_watch_tells_rounding_from_writing():
    single, double = nn.Parameter(torch.randn(40, 30)), nn.Parameter(torch.randn(3).double())
    watch = Watch([single, double])
    assert watch.changed() == []
    watch.remember()
    assert watch.watches([single, double]) and not watch.watches([single]) and watch.changed() == []
    with torch.no_grad(): single.mul_(1 + 1e-7)
    assert watch.changed() == []
    with torch.no_grad(): double.add_(1e-9)
    assert ids(watch.changed()) == [id(double)]
    watch.remember()
    double.data = double.data.clone()
    assert watch.changed() == []
    double.data = double.data + 1
    assert ids(watch.changed()) == [id(double)]


def test_another_order_in_memory_is_no_other_weight():
    "Slow weights go on where a model is made channels_last between two steps, and back."
    def train(formats):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Conv2d(20, 8, 1), nn.Conv2d(8, 2, 5)
        model = nn.Sequential(*layers)
        images = torch.randn(4, 3, 9, 9)
        optimizer = Lookahead(sgd(list(model.parameters()), .1, .9), k=5)
        for memory_format in formats:
            model.to(memory_format=memory_format)
            model(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    last, plain = torch.channels_last, torch.contiguous_format
    torch.testing.assert_close(train([plain] * 3 + [last] * 4 + [plain] * 5), train([plain] * 12))


@pytest.mark.parametrize('shape', [(), (1,), (40,), (3, 0), (40, 3), (6, 1, 3, 3), (2, 30, 3, 3), (5, 40)])
def test_watched_entries_are_of_the_weight_itself(shape):
    weight = nn.Parameter(torch.randn(shape))
    watch = Watch([weight])
    watch.remember()
    assert watch.changed() == []
    with torch.no_grad(): weight.add_(1.)
    assert ids(watch.changed()) == ([id(weight)] if weight.numel() else [])


def test_lookahead_over_a_torch_optimizer_is_scheduled():
    "fastai's sets hypers on a copy there: rates would never arrive."
    groups = make_groups()
    optimizer = Lookahead(sgd(groups, .5), k=3, alpha=.25)
    optimizer.set_hyper('lr', [.1, .2, .3])
    before = [parameter.detach().clone() for parameter in flat(groups)]
    for _ in range(3):
        for parameter in flat(groups): parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    rates = [.1] * 2 + [.2] * 3 + [.3] * 2
    for parameter, earlier, lr in zip(flat(groups), before, rates, strict=True):
        torch.testing.assert_close(parameter.detach(), earlier - .25 * 3 * lr)


@pytest.mark.parametrize('make_invalid, message', [
    (lambda: ranger(make_groups(), .1, k=0), 'k=0'),
    (lambda: ranger(make_groups(), .1, alpha=2), 'alpha=2'),
    (lambda: ranger(make_groups(), .1).load_state_dict(adamw(make_groups(), .1).state_dict()),
     'none of Lookahead'),
])
def test_bad_input_is_named(make_invalid, message):
    with pytest.raises(InputError, match=message): make_invalid()
