"Fifty steps of each optimizer against the papers' formulae in float64, state saved in the middle, groups frozen and thawed."
import copy

import numpy as np
import pytest
import torch
from fastai.optimizer import RAdam as FastaiRAdam
from fastai.optimizer import ranger as fastai_ranger
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import AdaBelief, Lookahead, RAdam, adamw, kernels, ranger, ranger_adabelief, rmsprop, sgd
from tests.reference import optim as ref

SHAPES = [[(6, 3, 3, 3), (6,)], [(6, 1, 3, 3), (6,), (5, 1)], [(4, 6), (4,)]]
# largest difference from float64, relative to the largest weight
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: .1}
OPTS = {
    'adamw': (adamw, {}),
    'adamw-l2': (lambda p, lr, **k: adamw(p, lr, decouple_wd=False, **k), dict(decouple=False)),
    'adamw-softplus': (lambda p, lr, **k: adamw(p, lr, beta=50., **k), dict(beta=50.)),
    'radam': (RAdam, dict(rectify=True)),
    'adabelief': (AdaBelief, dict(belief=True)),
    'adabelief-rectified': (lambda p, lr, **k: AdaBelief(p, lr, rectify=True, **k), dict(belief=True, rectify=True)),
    'ranger': (ranger, dict(rectify=True, centre=True, k=6)),
    'ranger-nogc': (lambda p, lr, **k: ranger(p, lr, gc=False, **k), dict(rectify=True, k=6)),
    'ranger_adabelief': (ranger_adabelief, dict(belief=True, rectify=True, centre=True, k=6)),
    'ranger_adabelief-nogc': (lambda p, lr, **k: ranger_adabelief(p, lr, gc=False, k=4, alpha=.3, **k), dict(belief=True, rectify=True, k=4, alpha=.3)),
}


def make(dtype=torch.float64, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return [[nn.Parameter(torch.randn(s, generator=gen, dtype=torch.float64).to(dtype)) for s in group] for group in SHAPES]


def grad_of(p, i, gen): return (torch.randn(p.shape, generator=gen, dtype=torch.float64) * .3 + .1 * (i % 7)).to(p.dtype)


def through_disk(sd, path):
    torch.save(sd, path)
    from fastcore.foundation import L
    with torch.serialization.safe_globals([L]): return torch.load(path, weights_only=True)


def scheduled(i, group):
    "Every hyper-parameter changes with the step, lr and wd with the group."
    return dict(lr=.02 * (group + 1) * (1 + i % 5), mom=.95 - .002 * (i % 40), sqr_mom=.99 - .0005 * (i % 20), eps=1e-6 * (1 + i % 3), wd=.1 + .05 * group)


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('name', OPTS)
def test_fifty_steps_equal_the_paper(name, dtype, tmp_path):
    make_opt, how = OPTS[name]
    groups = make(dtype)
    opt = make_opt(groups, .1)
    k, refs = how.get('k'), {}
    for g in groups:
        for p in g:
            wide = p.ndim > 1 and p.numel() > p.shape[0]
            refs[p] = ref.Reference(p.detach().double().numpy(), **{**how, 'centre': how.get('centre', False) and wide})
            if p.ndim == 1: opt.state[p]['do_wd'] = False
    gen = torch.Generator().manual_seed(1)
    for i in range(50):
        if i == 12: opt.freeze_to(1)
        if i == 30: opt.freeze_to(0)
        if i == 25:
            # saved, spoilt, loaded into a new optimizer of the same weights; the flags come along
            sd = through_disk(opt.state_dict(), tmp_path/'opt.pth')
            for p in refs:
                for v in opt.state[p].values():
                    if torch.is_tensor(v): v.fill_(7.)
            frozen, opt = [p.requires_grad for p in refs], make_opt(groups, .3)
            before = copy.deepcopy(sd)
            opt.load_state_dict(sd)
            assert [p.requires_grad for p in refs] == frozen and str(sd) == str(before)
        hypers = [scheduled(i, j) for j in range(3)]
        for key in hypers[0]: opt.set_hyper(key, [h[key] for h in hypers])
        for j, g in enumerate(groups):
            for p in g:
                grad = grad_of(p, i, gen)
                # one head goes without a gradient now and then
                p.grad = None if not p.requires_grad or (j == 2 and i % 11 == 3) else grad
                if p.grad is not None: refs[p].step(grad.double().numpy(), **{**hypers[j], 'wd': hypers[j]['wd'] * (p.ndim > 1)})
        opt.step()
        opt.zero_grad()
        for p, r in refs.items():
            assert p.grad is None
            if k and (i + 1) % k == 0 and p.requires_grad: r.meet()
            want = r.w
            assert np.abs(p.detach().double().numpy() - want).max() <= TOLERANCE[dtype] * max(1., np.abs(want).max()), (i, p.shape)


@pytest.mark.parametrize('name', ['ranger', 'ranger_adabelief', 'adamw', 'adabelief'])
def test_lists_are_the_loop(name, monkeypatch):
    "One parameter an optimizer, one optimizer for all, and lists cut at every tensor give the same weights to the bit."
    make_opt, runs = OPTS[name][0], []
    for way in ('lists', 'cut', 'loop'):
        monkeypatch.setattr(kernels, 'CHUNK', 1 if way == 'cut' else 2**18)
        groups = make(torch.float32)
        flat = [p for g in groups for p in g]
        opts = [make_opt([p], .01) for p in flat] if way == 'loop' else [make_opt(groups, .01)]
        gen = torch.Generator().manual_seed(1)
        for i in range(50):
            for p in flat: p.grad = grad_of(p, i, gen)
            for o in opts: o.step()
        runs.append(torch.cat([p.detach().flatten() for p in flat]))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


def run(make_opt, steps=50, seed=1, dtype=torch.float64, groups=None):
    groups = groups or make(dtype)
    opt = make_opt(groups)
    gen = torch.Generator().manual_seed(seed)
    for i in range(steps):
        for g in groups:
            for p in g: p.grad = grad_of(p, i, gen)
        opt.step()
    return torch.cat([p.detach().flatten() for g in groups for p in g])


@pytest.mark.parametrize('ours, other', [
    # torch and pytorch_optimizer add eps before the squares' bias is taken off: with next to no eps that is the same
    (lambda p: RAdam(p, .01, sqr_mom=.999, eps=1e-16), lambda p: torch.optim.RAdam([{'params': g} for g in p], .01, (.9, .999), 1e-16)),
    (lambda p: RAdam(p, .01, wd=.1), lambda p: FastaiRAdam(p, .01, wd=.1)),
    (lambda p: RAdam(p, .01, wd=.1, beta=20., decouple_wd=False), lambda p: FastaiRAdam(p, .01, wd=.1, beta=20., decouple_wd=False)),
    (lambda p: ranger(p, .01, gc=False), lambda p: fastai_ranger(p, .01)),
    (lambda p: ranger(p, slice(1e-4, 1e-2), .9, .1, 1e-5, 5, .3, gc=False, sqr_mom=.98),
     lambda p: fastai_ranger(p, slice(1e-4, 1e-2), .9, .1, 1e-5, 5, .3, sqr_mom=.98)),
    (lambda p: adamw(p, .01, sqr_mom=.999, eps=1e-8), lambda p: torch.optim.AdamW([{'params': g} for g in p], .01, weight_decay=.01)),
], ids=['torch-radam', 'fastai-radam', 'fastai-sadam-l2', 'fastai-ranger', 'fastai-ranger-arguments', 'torch-adamw'])
def test_the_same_algorithm_elsewhere(ours, other):
    torch.testing.assert_close(run(ours), run(other), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('rectify', [False, True])
def test_adabelief_of_pytorch_optimizer(rectify):
    other = pytest.importorskip('pytorch_optimizer')
    eps = 1e-16 if rectify else 1e-8
    def theirs(p):
        return other.AdaBelief([{'params': g} for g in p], .01, (.9, .999), .1, weight_decouple=True, fixed_decay=False, eps=eps, rectify=rectify,
                               degenerated_to_sgd=True)
    torch.testing.assert_close(run(lambda p: AdaBelief(p, .01, wd=.1, eps=eps, rectify=rectify)), run(theirs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_and_rmsprop_decay_apart(nesterov):
    groups, gen = make(), torch.Generator().manual_seed(1)
    flat = [p for g in groups for p in g]
    opts = {'sgd': sgd(groups, .01, .9, .1, nesterov), 'rms': rmsprop(copy.deepcopy(groups), .01, wd=.1)}
    twins = [p for g in opts['rms'].param_lists for p in g]
    w = [(p.detach().numpy().copy(), 0.) for p in flat]
    r = list(w)
    for i in range(50):
        for j, (p, q) in enumerate(zip(flat, twins)):
            p.grad = grad_of(p, i, gen)
            q.grad = p.grad.clone()
            w[j] = ref.sgd(w[j][0], p.grad.numpy(), w[j][1], .01, .9, .1, nesterov)
            r[j] = ref.rmsprop(r[j][0], p.grad.numpy(), r[j][1], .01, .99, 1e-8, .1)
        for o in opts.values(): o.step()
    for p, q, (a, _), (b, _) in zip(flat, twins, w, r):
        np.testing.assert_allclose(p.detach().numpy(), a, rtol=1e-11)
        np.testing.assert_allclose(q.detach().numpy(), b, rtol=1e-9)


@pytest.mark.parametrize('name', ['ranger', 'ranger_adabelief'])
def test_layouts_of_memory_do_not_matter(name):
    "Weights turned channels_last in mid-run, gradients of another layout, and weights that aren't dense."
    def go(twist):
        groups = make()
        if twist: groups[0][0] = nn.Parameter(torch.cat([groups[0][0], groups[0][0]], 3).detach()[..., :3])
        opt, gen = OPTS[name][0](groups, .01), torch.Generator().manual_seed(1)
        for i in range(20):
            if twist and i == 7: groups[1][0].data = groups[1][0].data.contiguous(memory_format=torch.channels_last)
            for g in groups:
                for p in g: p.grad = grad_of(p, i, gen)
            if twist and i > 10: groups[2][0].grad = groups[2][0].grad.t().contiguous().t()
            opt.step()
        return torch.cat([p.detach().flatten() for g in groups for p in g])
    torch.testing.assert_close(go(True), go(False), rtol=1e-12, atol=1e-12)


def test_lookahead_over_a_torch_optimizer_is_scheduled():
    "fastai's sets hypers on a copy there: rates would never arrive."
    groups = make()
    opt = Lookahead(sgd(groups, .5), k=3, alpha=.25)
    opt.set_hyper('lr', [.1, .2, .3])
    start = [p.detach().clone() for g in groups for p in g]
    for _ in range(3):
        for g in groups:
            for p in g: p.grad = torch.ones_like(p)
        opt.step()
    for p, w, lr in zip((p for g in groups for p in g), start, [.1] * 2 + [.2] * 3 + [.3] * 2): torch.testing.assert_close(p.detach(), w - .25 * 3 * lr)


def test_frozen_weights_stay_though_a_gradient_is_left():
    groups = make()
    opt = ranger(groups, .1, wd=.5)
    for i in range(9):
        for g in groups:
            for p in g: p.grad = torch.ones_like(p)
        if i == 4:
            opt.freeze_to(-1)
            before = [p.detach().clone() for g in groups[:2] for p in g]
        opt.step()
    for p, b in zip((p for g in groups[:2] for p in g), before): assert torch.equal(p, b)


@pytest.mark.parametrize('make_it, words', [
    (lambda: adamw(make(), .1, eps=0.), 'eps=0'), (lambda: adamw(make(), .1, mom=1.), 'mom=1'), (lambda: RAdam(make(), .1, sqr_mom=0.), 'sqr_mom=0'),
    (lambda: ranger(make(), .1, k=0), 'k=0'), (lambda: ranger(make(), .1, alpha=2), 'alpha=2'),
    (lambda: run(lambda p: ranger_adabelief(p, .1), 1, dtype=torch.float16), 'float16'),
    (lambda: ranger(make(), .1).load_state_dict(adamw(make(), .1).state_dict()), 'none of Lookahead'),
    (lambda: sgd(make(), .1).load_state_dict(adamw(make(), .1).state_dict()), 'none of torch'),
    (lambda: adamw(make(), .1).load_state_dict(adamw(make()[:2], .1).state_dict()), '2 groups and 5 parameters, this one 3 and 7'),
    (lambda: sgd(make(), .1, sqr_mom=.9), "sqr_mom=0.9: SGD has only"), (lambda: sgd(make(), .1).set_hyper('eps', 1.), "SGD has no 'eps'"),
])
def test_bad_input_is_named(make_it, words):
    with pytest.raises(InputError, match=words): make_it()


def test_sparse_gradients_are_refused():
    emb = nn.Embedding(5, 3, sparse=True)
    emb(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match='sparse=False'): ranger(list(emb.parameters()), .1).step()


def test_fastais_saved_ranger_goes_on():
    "A state saved by fastai's ranger continues in ours with the same numbers."
    def fill(groups, i):
        gen = torch.Generator().manual_seed(i)
        for g in groups:
            for p in g: p.grad = grad_of(p, i, gen)
    a, b = make(), make()
    theirs, ours = fastai_ranger(a, .01), ranger(b, .01, gc=False)
    for i in range(8):
        fill(a, i)
        theirs.step()
    with torch.no_grad():
        for g, h in zip(a, b):
            for p, q in zip(g, h): q.copy_(p)
    ours.load_state_dict(theirs.state_dict())
    for i in range(8, 20):
        fill(a, i), fill(b, i)
        theirs.step(), ours.step()
    for g, h in zip(a, b):
        for p, q in zip(g, h): torch.testing.assert_close(q, p, rtol=1e-12, atol=1e-12)
