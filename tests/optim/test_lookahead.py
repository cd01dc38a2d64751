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
from tests.optim.tiny import fit, learner, weights


def take_steps(learn, lr, n=1):
    "`n` steps on the first training batch."
    learn.opt.set_hyper('lr', lr)
    for _ in range(n):
        inputs, targets = next(iter(learn.dls.train))
        learn.loss_func(learn.model(inputs), targets).backward()
        learn.opt.step()
        learn.opt.zero_grad()


def lookahead_over_sgd(params, lr): return Lookahead(sgd(params, lr, .9))


@pytest.fixture(params=[ranger, lookahead_over_sgd], ids=['ranger', 'over-sgd'])
def trained(request, tmp_path):
    """A Learner two steps before its fast and slow weights meet, and other weights, which are saved
    beside it too."""
    learn = learner(request.param, tmp_path, wd=0.)
    torch.manual_seed(9)
    other = {name: torch.rand_like(value) if value.is_floating_point() else value
             for name, value in learn.model.state_dict().items()}
    (tmp_path/'models').mkdir()
    torch.save(other, tmp_path/'models'/'other.pth')
    fit(learn, 'fit', 1, .05)
    for _ in range(4): take_steps(learn, .05)
    return learn, other


def by_load(learn, other): learn.load('other', with_opt=False)
def by_state_dict(learn, other): learn.model.load_state_dict(other)


def by_copy(learn, other):
    for name, param in learn.model.named_parameters(): param.data.copy_(other[name])


def by_swap(learn, other):
    for name, param in learn.model.named_parameters(): param.data = other[name].clone()


@pytest.mark.parametrize('write', [by_load, by_state_dict, by_copy, by_swap])
def test_slow_weights_follow_other_weights(trained, write):
    learn, other = trained
    write(learn, other)
    # a momentum from before must not move them here
    learn.opt.opt.clear_state()
    take_steps(learn, 0., 7)
    for name, param in learn.model.named_parameters(): assert torch.equal(param, other[name]), name


def test_fastais_slow_weights_do_not(tmp_path):
    "What the test above would say of fastai's own ranger."
    learn = learner(fastai_ranger, tmp_path, wd=0.)
    fit(learn, 'fit', 1, .05)
    take_steps(learn, .05, 4)
    other = {name: value + 1 if value.is_floating_point() else value
             for name, value in learn.model.state_dict().items()}
    learn.model.load_state_dict(other)
    learn.opt.opt.clear_state()
    take_steps(learn, 0., 7)
    assert max((param - other[name]).abs().max() for name, param in learn.model.named_parameters()) > .4


def test_one_rewritten_weight_alone_starts_anew(trained):
    learn, _ = trained
    before = {param: slow.clone() for param, slow in learn.opt.slow.items()}
    rewritten = learn.model.head.weight
    with torch.no_grad(): rewritten.fill_(3.)
    take_steps(learn, 0.)
    for param, slow in learn.opt.slow.items():
        assert torch.equal(slow, torch.full_like(slow, 3.) if param is rewritten else before[param])


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
            if self.epoch == 0: best['weights'] = weights(self.learn)

    learn = learner(ranger, tmp_path, wd=0.)
    fit(learn, 'fit', 3, .05, cbs=[SaveModelCallback(comp=np.less, monitor='valid_loss'), Keep(), Worse()])
    saved = torch.load(tmp_path/'models'/'model.pth', weights_only=True)
    saved = torch.cat([saved[name].flatten() for name, _ in learn.model.named_parameters()])
    assert torch.equal(weights(learn), saved) and torch.equal(saved, best['weights'])
    learn.opt.opt.clear_state()
    take_steps(learn, 0., 7)
    assert torch.equal(weights(learn), saved)


@torch.no_grad()
def climb_and_fall(params):
    "What SAM does to the weights before a step."
    shifts = [torch.randn_like(param) * .3 for param in params]
    for param, shift in zip(params, shifts): param.add_(shift)
    for param, shift in zip(params, shifts): param.sub_(shift)


@torch.no_grad()
def swap_out_and_in(params):
    "What averaged weights do around a validation."
    kept = [param.clone() for param in params]
    for param in params: param.zero_()
    for param, old in zip(params, kept): param.copy_(old)


@pytest.mark.parametrize('func', [ranger, ranger_adabelief])
def test_writes_that_are_undone_change_nothing(func):
    "SAM's climb and fall before each step, and averages swapped in and out, leave slow weights alone."
    def train(with_writes):
        learn = learner(func, wd=0.)
        learn.create_opt()
        n_changed = 0
        for step in range(30):
            if with_writes and step:
                params = list(learn.model.parameters())
                climb_and_fall(params)
                if step % 5 == 0: swap_out_and_in(params)
                n_changed += len(learn.opt.watch.changed())
            take_steps(learn, 1e-3)
        return weights(learn), n_changed
    with_writes, n_changed = train(True)
    assert n_changed == 0
    torch.testing.assert_close(with_writes, train(False)[0], rtol=1e-3, atol=1e-4)


def test_unfreeze_starts_slow_weights_from_the_model(tmp_path):
    learn = learner(ranger, tmp_path, wd=0.)
    learn.freeze()
    fit(learn, 'fit', 1, .05)
    take_steps(learn, .05, 2)
    learn.unfreeze()
    assert learn.opt.count == 0 and not learn.opt.slow
    before = [param.detach().clone() for param in learn.model.parameters()]
    take_steps(learn, 0.)
    assert len(learn.opt.slow) == 5
    for param, old in zip(learn.model.parameters(), before): assert torch.equal(learn.opt.slow[param], old)


def ids(params): return [id(param) for param in params]


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


def test_lookahead_over_a_torch_optimizer_is_scheduled():
    "fastai's sets hypers on a copy there: rates would never arrive."
    groups = make_groups()
    optimizer = Lookahead(sgd(groups, .5), k=3, alpha=.25)
    optimizer.set_hyper('lr', [.1, .2, .3])
    before = [param.detach().clone() for param in flat(groups)]
    for _ in range(3):
        for param in flat(groups): param.grad = torch.ones_like(param)
        optimizer.step()
    rates = [.1] * 2 + [.2] * 3 + [.3] * 2
    for param, old, lr in zip(flat(groups), before, rates, strict=True):
        torch.testing.assert_close(param.detach(), old - .25 * 3 * lr)


@pytest.mark.parametrize('make, words', [
    (lambda: ranger(make_groups(), .1, k=0), 'k=0'),
    (lambda: ranger(make_groups(), .1, alpha=2), 'alpha=2'),
    (lambda: ranger(make_groups(), .1).load_state_dict(adamw(make_groups(), .1).state_dict()),
     'none of Lookahead'),
])
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=words): make()
