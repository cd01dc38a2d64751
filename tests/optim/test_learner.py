"Every optimizer of the list in a Learner: schedules, freezing, saving, exporting; slow weights when somebody else writes to the model."
import math

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.optimizer import ranger as fastai_ranger
from torch import nn

from fastmatch.core import InputError
from fastmatch.layers.heads import CosineHead
from fastmatch.optim import Lookahead, Wrapped, adamw, list_opts, opt_func, optimizer_configs, ranger, ranger_adabelief, sgd
from fastmatch.optim.flags import uncentralized
from fastmatch.optim.lookahead import Watch
from tests.optim.tiny import Tiny, by_hand, fit, learner, weights

NAMES = [*optimizer_configs, 'lion', 'adan', 'lamb', 'adafactor', 'nadamw', 'lookahead_lion']
# what no schedule may give a momentum
NO_MOM = {'sgd', 'rmsprop', 'adafactor'}


def cos(a, b, x): return b + (a - b) * (1 + math.cos(math.pi * x)) / 2
def flat_cos(lr, x, pct=.75, div=1e5): return lr if x < pct else cos(lr, lr / div, (x - pct) / (1 - pct))
def one_cycle(a, b, c, x, pct=.25): return cos(a, b, x / pct) if x < pct else cos(b, c, (x - pct) / (1 - pct))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('cell', ['fit_flat_cos', 'fit_one_cycle', 'freeze', 'load', 'export'])
def test_matrix(name, cell, tmp_path):
    func = opt_func(name)
    learn = learner(func, tmp_path, wd=.1)
    if cell == 'fit_flat_cos':
        fit(learn, cell, 2, 1e-2)
        want = by_hand(func, [flat_cos(1e-2, i / 12) for i in range(12)], wd=.1)
        torch.testing.assert_close(weights(learn), want, rtol=1e-5, atol=1e-6)
    elif cell == 'fit_one_cycle':
        fit(learn, cell, 2, slice(1e-3, 1e-2))
        lrs = [[one_cycle(lr / 25, lr, lr / 1e5, i / 12) for lr in (1e-3, 1e-2)] for i in range(12)]
        moms = None if name in NO_MOM else [one_cycle(.95, .85, .95, i / 12) for i in range(12)]
        torch.testing.assert_close(weights(learn), by_hand(func, lrs, moms, .1), rtol=1e-5, atol=1e-6)
        assert abs(learn.opt.hypers[0]['mom'] - .95) < .01
    elif cell == 'freeze':
        fit(learn, 'fit', 1, 1e-2)
        learn.freeze()
        before = [p.detach().clone() for p in learn.model.parameters()]
        fit(learn, 'fit', 2, 1e-2)
        moved = [not torch.equal(p, b) for p, b in zip(learn.model.parameters(), before)]
        # the body's norm goes on (train_bn), its linear layer doesn't
        assert moved == [False, True, True, True, True]
        learn.unfreeze()
        fit(learn, 'fit', 1, 1e-2)
        assert not torch.equal(learn.model.body[0].weight, before[0])
    elif cell == 'load':
        fit(learn, 'fit', 1, 1e-2)
        learn.save('half')
        fit(learn, 'fit', 2, 1e-2)
        again = learner(func, tmp_path, seed=5, wd=.1).load('half')
        fit(again, 'fit', 2, 1e-2)
        assert torch.equal(weights(again), weights(learn))
        assert not torch.equal(weights(again), weights(learner(func, seed=5)))
    else:
        fit(learn, 'fit', 1, 1e-2)
        learn.export('learn.pkl')
        with pytest.warns(UserWarning): loaded = load_learner(tmp_path/'learn.pkl')
        assert torch.equal(weights(loaded), weights(learn))
        fit(learn, 'fit', 1, 1e-2)
        torch.testing.assert_close(weights(learn), by_hand(func, [1e-2] * 12, wd=.1), rtol=1e-5, atol=1e-6)


def test_every_name_of_timms_takes_a_schedule():
    "A group of matrices, one of a vector; rates by group, momentum, decay, state there and back."
    done, refused = [], {}
    for name in list_opts():
        # compiles itself for seconds
        if name.startswith('kron'): continue
        params = [nn.Parameter(torch.full(s, 1.)) for s in ((4, 3), (2, 4, 3, 3), (4,))]
        try: opt = opt_func(name)([params[:2], params[2:]], lr=slice(1e-3, 1e-2))
        except (InputError, ImportError) as e:
            refused[name] = str(e)
            continue
        gen = torch.Generator().manual_seed(0)
        for _ in range(3):
            for p in params: p.grad = torch.randn(p.shape, generator=gen)
            opt.set_hypers(lr=[1e-3, 1e-2], mom=.9, wd=.1)
            opt.step()
            opt.zero_grad()
        opt.load_state_dict(opt.state_dict())
        assert opt.hypers[1]['lr'] == 1e-2 and opt.hypers[0]['wd'] == .1 and 'mom' in opt.hypers[0], name
        assert all(torch.isfinite(p).all() and (p != 1).any() for p in params), name
        done.append(name)
    assert len(done) >= 80 and {'lion', 'muon', 'lars', 'adopt', 'ranger'} <= set(done)
    assert all(o.startswith(('bnb', 'fused', 'adahessian')) for o in refused) and 'second derivatives' in refused['adahessian']


def test_names_and_defaults():
    def eps(*args, **kwargs): return opt_func(*args, **kwargs)([nn.Parameter(torch.ones(2))], lr=1.).hypers[0]['eps']
    assert eps('rangeradabelief') == 1e-8 and eps('rangeradabelief', 'text') == 1e-16 and eps('rangeradabelief_nogc', 'text', amp=True) == 1e-8
    assert eps('ranger') == 1e-6 and eps('adamw') == 1e-5 and eps('adamw', 'text') == 1e-6 and eps('ranger', eps=1e-3) == 1e-3
    assert eps('lookahead_adamw', eps=1e-4) == 1e-4 and opt_func('lookahead_lion', k=3)([nn.Parameter(torch.ones(2))], lr=1.).k == 3
    assert optimizer_configs['ranger_nogc']([nn.Parameter(torch.ones(2))], lr=1.).gc is False
    with pytest.raises(InputError, match="no optimizer 'rangr'.*adamw"): opt_func('rangr')
    with pytest.raises(InputError, match='domain'): opt_func('adamw', 'sound')


@pytest.mark.parametrize('func', [ranger, adamw, sgd, opt_func('lion')])
def test_wd_bn_bias(func, tmp_path):
    "With gradients of zero only decay moves a weight."
    for wd_bn_bias in (False, True):
        learn = learner(func, tmp_path, wd=.5, wd_bn_bias=wd_bn_bias)
        learn.create_opt()
        learn.opt.set_hypers(lr=.1, wd=.5)
        before = [p.detach().clone() for p in learn.model.parameters()]
        for p in learn.model.parameters(): p.grad = torch.zeros_like(p)
        learn.opt.step()
        for p, b in zip(learn.model.parameters(), before): torch.testing.assert_close(p.detach(), b * (.95 if p.ndim > 1 or wd_bn_bias else 1.))


def test_embeddings_and_centres_are_not_centralised():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.body, self.scale, self.head = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Parameter(torch.ones(5, 1)), CosineHead(5, 3)
        def forward(self, x): return self.head(self.body(self.emb(x)) * self.scale[:, 0]).cos
        def param_groups(self): return {'all': list(self.parameters())}
    net = Net()
    assert {id(p) for p in uncentralized(net)} == {id(net.emb.weight), id(net.head.weight)}
    learn = learner(ranger, model=net)
    learn.create_opt()
    for p in net.parameters(): p.grad = torch.arange(p.numel()).float().view(p.shape) + 1
    learn.opt.step()
    mean = {k: p.grad.flatten(1).mean(1).abs().max().item() for k, p in net.named_parameters() if p.ndim > 1}
    # a gradient of one number a row would be gone altogether
    assert mean['body.weight'] < 1e-5 and min(mean['emb.weight'], mean['head.weight'], mean['scale']) > 1


@pytest.fixture(params=[ranger, lambda p, lr: Lookahead(sgd(p, lr, .9))], ids=['ranger', 'over-sgd'])
def trained(request, tmp_path):
    "A Learner two steps before its fast and slow weights meet, with other weights saved beside it."
    learn = learner(request.param, tmp_path, wd=0.)
    torch.manual_seed(9)
    other = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in learn.model.state_dict().items()}
    torch.save(other, tmp_path/'other.pth')
    (tmp_path/'models').mkdir()
    torch.save(other, tmp_path/'models'/'other.pth')
    fit(learn, 'fit', 1, .05)
    for _ in range(4): steps(learn, .05)
    return learn, other


def steps(learn, lr, n=1):
    learn.opt.set_hyper('lr', lr)
    for _ in range(n):
        x, y = next(iter(learn.dls.train))
        learn.loss_func(learn.model(x), y).backward()
        learn.opt.step()
        learn.opt.zero_grad()


def writes(learn, other):
    "Ways in which other weights get into a model."
    named = dict(learn.model.named_parameters())
    def data_copy():
        for k, p in named.items(): p.data.copy_(other[k])
    def data_swap():
        for k, p in named.items(): p.data = other[k].clone()
    return {'load': lambda: learn.load('other', with_opt=False), 'state_dict': lambda: learn.model.load_state_dict(other), 'copy': data_copy, 'swap': data_swap}


@pytest.mark.parametrize('way', ['load', 'state_dict', 'copy', 'swap'])
def test_slow_weights_follow_other_weights(trained, way):
    learn, other = trained
    writes(learn, other)[way]()
    # a momentum from before must not move them here
    learn.opt.opt.clear_state()
    steps(learn, 0., 7)
    for k, p in learn.model.named_parameters(): assert torch.equal(p, other[k]), k


def test_fastais_slow_weights_do_not(tmp_path):
    "What the test above would say of fastai's own ranger."
    learn = learner(fastai_ranger, tmp_path, wd=0.)
    fit(learn, 'fit', 1, .05)
    steps(learn, .05, 4)
    other = {k: v + 1 if v.is_floating_point() else v for k, v in learn.model.state_dict().items()}
    learn.model.load_state_dict(other)
    learn.opt.opt.clear_state()
    steps(learn, 0., 7)
    assert max((p - other[k]).abs().max() for k, p in learn.model.named_parameters()) > .4


def test_one_rewritten_weight_alone_starts_anew(trained):
    learn, _ = trained
    slow = {p: v.clone() for p, v in learn.opt.slow.items()}
    with torch.no_grad(): learn.model.head.weight.fill_(3.)
    steps(learn, 0.)
    for p, v in learn.opt.slow.items(): assert torch.equal(v, torch.full_like(v, 3.) if p is learn.model.head.weight else slow[p])


def test_best_model_reload(tmp_path):
    "The model goes on from the best weights, not halfway back to the last."
    class Worse(Callback):
        "The first epoch is the best."
        def after_validate(self): self.recorder.log[-1] = float(self.epoch)
    learn = learner(ranger, tmp_path, wd=0.)
    best = {}
    class Keep(Callback):
        order = 90
        def after_epoch(self):
            if self.epoch == 0: best['w'] = weights(self.learn)
    fit(learn, 'fit', 3, .05, cbs=[SaveModelCallback(comp=np.less, monitor='valid_loss'), Keep(), Worse()])
    saved = torch.load(tmp_path/'models'/'model.pth', weights_only=True)
    saved = torch.cat([saved[k].flatten() for k, _ in learn.model.named_parameters()])
    assert torch.equal(weights(learn), saved)
    learn.opt.opt.clear_state()
    steps(learn, 0., 7)
    assert torch.equal(weights(learn), saved)


@pytest.mark.parametrize('func', [ranger, ranger_adabelief])
def test_writes_that_are_undone_change_nothing(func):
    "SAM's climb and fall before each step, and averages swapped in and out, leave slow weights alone."
    def go(sam):
        learn = learner(func, wd=0.)
        learn.create_opt()
        resets = 0
        for i in range(30):
            if sam and i:
                params = list(learn.model.parameters())
                with torch.no_grad():
                    es = [torch.randn_like(p) * .3 for p in params]
                    for p, e in zip(params, es): p.add_(e)
                    for p, e in zip(params, es): p.sub_(e)
                    if i % 5 == 0:
                        kept = [p.clone() for p in params]
                        for p in params: p.zero_()
                        for p, o in zip(params, kept): p.copy_(o)
                resets += len(learn.opt.watch.changed())
            steps(learn, 1e-3)
        return weights(learn), resets
    (a, n), (b, _) = go(True), go(False)
    assert n == 0
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_unfreeze_starts_slow_weights_from_the_model(tmp_path):
    learn = learner(ranger, tmp_path, wd=0.)
    learn.freeze()
    fit(learn, 'fit', 1, .05)
    steps(learn, .05, 2)
    learn.unfreeze()
    assert learn.opt.count == 0 and not learn.opt.slow
    before = [p.detach().clone() for p in learn.model.parameters()]
    steps(learn, 0.)
    assert len(learn.opt.slow) == 5
    for p, b in zip(learn.model.parameters(), before): assert torch.equal(learn.opt.slow[p], b)


def test_watch_tells_rounding_from_writing():
    p, q = nn.Parameter(torch.randn(40, 30)), nn.Parameter(torch.randn(3).double())
    watch = Watch([p, q])
    assert watch.changed() == []
    watch.leave()
    assert watch.sees([p, q]) and not watch.sees([p]) and watch.changed() == []
    with torch.no_grad(): p.mul_(1 + 1e-7)
    assert watch.changed() == []
    with torch.no_grad(): q.add_(1e-9)
    assert [id(o) for o in watch.changed()] == [id(q)]
    watch.leave()
    q.data = q.data.clone()
    assert watch.changed() == []
    q.data = q.data + 1
    assert [id(o) for o in watch.changed()] == [id(q)]


def test_group_rates_reach_the_wrapped(tmp_path):
    "`set_hyper` with one rate a group, read back from `hypers`."
    for func in (ranger, sgd, opt_func('lion')):
        opt = func([[nn.Parameter(torch.ones(2))], [nn.Parameter(torch.ones(2))]], lr=1.)
        opt.set_hyper('lr', [.1, .2])
        opt.set_hyper('wd', [.3, .4])
        assert [(h['lr'], h['wd']) for h in opt.hypers] == [(.1, .3), (.2, .4)]
    assert isinstance(func([nn.Parameter(torch.ones(2))], lr=1.), Wrapped) and len(Tiny().param_groups()) == 2


@pytest.mark.parametrize('func', [ranger, opt_func('sgd_momentum')])
def test_match_learner_spreads_its_rates(func, tmp_path):
    "GroupRates sets rates before each step and puts them back; class centres keep their gradients' mean."
    import pandas as pd

    from fastmatch.data.sample import demo_path
    from tests.learner.test_match import Rates, make
    df = pd.read_csv(demo_path()/'listings.csv')
    df = df[df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:8]))].reset_index(drop=True)
    learn = make(df, path=tmp_path, opt_func=func, cbs=Rates())
    before = learn.model.heads['image'].weight.detach().clone()
    fit(learn, 'fit_flat_cos', 1, 1e-3, pct_start=1.)
    np.testing.assert_allclose(learn.rates.seen, [[.25e-3, 5e-3]] * len(learn.rates.seen))
    np.testing.assert_allclose(learn.rates.after, [[1e-3, 1e-3]] * len(learn.rates.after))
    assert learn.opt.state[learn.model.heads['image'].weight]['do_gc'] is False
    assert not torch.equal(learn.model.heads['image'].weight, before)
