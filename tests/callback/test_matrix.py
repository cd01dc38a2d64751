"Every callback under every condition, against a plain loop: weights at each step, statistics, averages, skipped steps and loss scales."
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixHandler
from fastai.callback.schedule import SchedLin
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback
from fastai.callback.training import GradientClip
from fastcore.foundation import L
from torch.func import functional_call
from torch.nn import functional as F

from fastmatch.callback import resume
from fastmatch.callback.adversarial import FGM, PGD
from fastmatch.callback.averaging import EMA, SWA, Snapshots
from fastmatch.callback.guard import Guard
from fastmatch.callback.heads import LossTerms, MarginSchedule
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.sharpness import ASAM, ESAM, SAF, SAM, LookSAM
from fastmatch.core import HeadOutput, InputError
from fastmatch.data.sample import demo_path
from fastmatch.layers.heads import TrackedHead
from fastmatch.losses import CosFace, CrossEntropy, CurricularFace, FocalLoss, SumLoss
from fastmatch.losses.base import Loss
from fastmatch.optim import sgd
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, N, Net, amp, data, everything, fit, learner, net
from tests.callback.test_averaging import naive_statistics
from tests.callback.test_resume import Die
from tests.learner.test_match import make as make_matcher
from tests.reference.callbacks import Loop

CONV = 'body.0.weight'
# the highest loss is 'best', so that the last epoch is not
WORST = dict(monitor='valid_loss', comp=np.greater)
# name -> (callback, what the plain loop knows of it)
ROWS = {'SAM': (lambda: SAM(.3), dict(rho=.3)), 'ASAM': (lambda: ASAM(.8), dict(rho=.8)), 'LookSAM': (lambda: LookSAM(.3, 2), dict(rho=.3, k=2)),
        'ESAM': (lambda: ESAM(.3, .6, .5), dict(rho=.3, beta=.6, gamma=.5)), 'SAF': (lambda: SAF(3., back=1), dict(weight=3.)),
        'FGM': (lambda: FGM(.5, CONV), dict(name=CONV, eps=.5, alpha=.5, k=1)), 'PGD': (lambda: PGD(.5, .3, 2, CONV), dict(name=CONV, eps=.5, alpha=.3, k=2)),
        'HardMining': (lambda: HardMining(.5), dict(share=.5)), 'Guard': (Guard, {}), 'EMA': (lambda: EMA(.7), {}), 'SWA': (lambda: SWA(.5), {}),
        'Snapshots': (Snapshots, {}), 'Resume': (Resume, {}), 'CutMix': (CutMix, {}), 'MarginSchedule': (lambda: MarginSchedule(SchedLin(.1, .4)), dict(s=4.)),
        'LossTerms': (LossTerms, dict(focal=.6)), 'fit_to_best': (list, {}),
        'best model': (lambda: [SaveModelCallback(**WORST), EarlyStoppingCallback(**WORST, patience=1)], {})}
COLUMNS = ['lr_find', 'fit_flat_cos', 'fit_one_cycle', 'accumulation', 'clipping', 'fp16', 'inf in pass 1', 'inf in pass 2', 'bf16', 'MixUp', 'EMA', 'frozen',
           'resume']
TWICE = ('SAM', 'ASAM', 'LookSAM', 'ESAM', 'FGM', 'PGD')
# pairs that make no sense, and why; where a user could ask for one it is refused
NONE = {**{(k, 'inf in pass 2'): 'it has no second pass' for k in ROWS if k not in TWICE},
        ('SAF', 'MixUp'): 'a mixture is not the row that it was in an earlier epoch', ('EMA', 'EMA'): 'one average is enough',
        ('SWA', 'EMA'): 'two averages would be in the model at once', ('Resume', 'resume'): 'the row is the column',
        ('CutMix', 'MixUp'): 'a batch is mixed once', ('fit_to_best', 'lr_find'): 'it is no training with a best epoch'}
REFUSED = {('SAF', 'MixUp'): MixUp, ('EMA', 'EMA'): lambda: EMA(.7), ('SWA', 'EMA'): lambda: EMA(.7), ('CutMix', 'MixUp'): MixUp}
EPOCHS, LR, MOM, SCALE, BLOWN = 3, .05, .9, 256., 4
CELLS = [(r, c) for r in ROWS for c in COLUMNS if (r, c) not in NONE]
HALF = ('fp16', 'inf in pass 1', 'inf in pass 2', 'bf16')


class Probe(Callback):
    "The rates stepped with, state at the ends of epochs, mixed batches as the model gets them, and the scaler's scales; what was judged in any fit."
    order, run_valid = 900, False
    def __init__(self): self.judged = []
    def before_validate(self): self.judged.append(state(self.learn.model))
    def before_fit(self): self.rates, self.batches, self.scales, self.stepped, self.ends = [], [], [], 0, []
    def before_batch(self):
        h, mix = self.opt.hypers[-1], next((o for o in self.learn.cbs if isinstance(o, MixHandler)), None)
        batch = {'x': self.xb[0].as_subclass(torch.Tensor).clone(), 'y': self.yb[0].as_subclass(torch.Tensor).clone()}
        if mix is not None: batch.update(y1=mix.yb1[0].as_subclass(torch.Tensor).clone(), lam=mix.lam.clone())
        self.batches.append(batch)
        self.rates.append((float(h['lr']), float(h['mom'])))
    def before_step(self): self.stepped += 1
    def after_batch(self):
        if getattr(self.learn, 'scaler', None) is not None: self.scales.append(self.learn.scaler.get_scale())
    def after_train(self): self.ends.append(state(self.learn.model))


class Starts(Callback):
    "Weights and buffers before each batch."
    run_valid, order = False, -9
    def before_fit(self): self.states = []
    def before_batch(self): self.states.append(state(self.learn.model))


class Blow(Callback):
    "An infinite output at one forward pass of batch `BLOWN` of the fit."
    run_valid, order = False, -8
    def __init__(self, forward): self.forward = forward
    def before_fit(self): self.hook = self.learn.model.register_forward_hook(self.blow)
    def before_batch(self): self.n = -1
    def blow(self, module, args, out):
        self.n += module.training
        if not module.training or self.learn.train_iter != BLOWN or self.n != self.forward: return
        # losses of this package end a training that is NaN: for theirs it is the gradient
        if isinstance(self.learn.loss_func, Loss): (out.cos if isinstance(out, HeadOutput) else out).register_hook(lambda g: g * float('inf'))
        else: return out * float('inf')
    def after_fit(self): self.hook.remove()


class Cosines(Net):
    "With a head as margins want it."
    def forward(self, x): return HeadOutput(torch.tanh(super().forward(x)), x)


def state(model): return {k: v.detach().clone() for k, v in model.state_dict().items()}


def cos(a, b, x): return b + (a - b) * (1 + math.cos(math.pi * x)) / 2


def schedule(column, i, n):
    x = i / n
    if column == 'fit_flat_cos': return (LR if x < .75 else cos(LR, LR / 1e5, (x - .75) / .25)), MOM
    if column == 'fit_one_cycle':
        one = lambda a, b, c: cos(a, b, x / .25) if x < .25 else cos(b, c, (x - .25) / .75)
        return one(LR / 25, LR, LR / 1e5), one(.95, .85, .95)
    if column == 'lr_find': return 1e-4 * (.2 / 1e-4)**(i / 12), MOM
    return LR, MOM


def close(got, want, names=None, tol=1.):
    for k in names or want: torch.testing.assert_close(got[k].double(), want[k].double(), rtol=1e-4 * tol, atol=1e-5 * tol, msg=lambda m, k=k: f'{k}: {m}')


def make(row, column, path, extra=(), device='cpu'):
    fp16 = partial(amp, 'fp16', device, init_scale=SCALE)
    cbs = [*L(ROWS[row][0]())] + {'accumulation': lambda: [GradientAccumulation(4 if row == 'HardMining' else 8)], 'clipping': lambda: [GradientClip(.2)],
                              'fp16': lambda: [fp16()], 'bf16': lambda: [amp('bf16', device)], 'MixUp': lambda: [MixUp()], 'EMA': lambda: [EMA(.7)],
                              'inf in pass 1': lambda: [fp16(), Blow(1 if row == 'HardMining' else 0)],
                              'inf in pass 2': lambda: [fp16(), Blow(2 if row in ('ESAM', 'PGD') else 1)]}.get(column, list)()
    model, loss = net(0.), {'MarginSchedule': CosFace(.2, s=4.), 'LossTerms': SumLoss({'ce': CrossEntropy(), 'focal': FocalLoss()}, {'focal': .6})}.get(row)
    if row == 'MarginSchedule': model.__class__ = Cosines
    learn = learner(model, partial(sgd, mom=MOM), path, cbs=[*cbs, Starts(), Probe(), *extra], device=device, loss=loss)
    if column == 'frozen': learn.freeze()
    return learn


def train(learn, row, column):
    how = column if column in ('fit_flat_cos', 'fit_one_cycle') else 'fit'
    if column == 'lr_find': fit(learn, 'lr_find', start_lr=1e-4, end_lr=.2, num_it=12, stop_div=False, show_plot=False, suggest_funcs=None)
    elif row == 'fit_to_best': learn.best = fit(learn, 'fit_to_best', EPOCHS, LR, fit=how, **WORST)
    else: fit(learn, how, EPOCHS, LR)


def expected(row, column, learn, device='cpu'):
    "The plain loop beside it: state at the start of each batch and at the end of each epoch, EMA at the same, steps taken, the means of a sum's terms."
    probe, items, per = learn.probe, data(), N // BS
    half = {'bf16': torch.bfloat16}.get(column, torch.float16 if column == 'fp16' or 'inf' in column else None)
    loop = Loop(net(0.).to(device), row, [k for k in ('body.0.weight', 'body.1.weight', 'body.1.bias', 'head.weight', 'head.bias') if (k, column) != (CONV, 'frozen')],
                half, SCALE if half == torch.float16 else 1., .2 if column == 'clipping' else None, **ROWS[row][1])
    avg, t = {k: v.clone().double() for k, v in {**loop.w, **loop.b}.items()}, 0
    starts, ends, avgs, group, taken = [], [], [], [], 0
    for i in range(len(probe.batches)):
        if column == 'lr_find' and i == 12: break
        # in the middle of an accumulated step the loop's statistics have not moved yet
        starts.append(None if group else {**loop.w, **{k: v.clone() for k, v in loop.b.items()}})
        at = i % per * BS
        batch = {k: torch.stack([o[j] for o in items[at:at + BS]]).to(device) for j, k in enumerate('xy')}
        if row == 'CutMix': was_cut(probe.batches[i], batch)
        if column == 'MixUp' or row == 'CutMix': batch = {**probe.batches[i], 'clean': batch} if row == 'HardMining' else probe.batches[i]
        if row == 'MarginSchedule': batch['m'] = .1 + .3 * i / (EPOCHS * per)
        if row == 'SAF' and column != 'lr_find':
            if i - per in loop.outs: batch['old'] = loop.outs[i - per]
            if 'inf' not in column or i != BLOWN:
                with torch.no_grad(): loop.outs[i] = loop.logits(loop.w, batch['x'], {k: v.clone() for k, v in loop.b.items()})
        group.append(batch)
        if column == 'accumulation' and len(group) < 2: continue
        blown = 'inf' in column and i == BLOWN
        n, lr_mom = len(probe.batches), schedule(column, i, EPOCHS * per)
        np.testing.assert_allclose(probe.rates[i], lr_mom, rtol=1e-4, err_msg=f'rate and momentum at batch {i} of {n}')
        loop.step(group, *lr_mom, i - len(group) + 1, blown)
        group = []
        taken += not blown
        if not blown:
            t += 1
            d = min(.7, (1 + t) / (10 + t))
            avg = {k: d * v + (1 - d) * {**loop.w, **loop.b}[k].double() for k, v in avg.items()}
        if i % per == per - 1:
            ends.append({**loop.w, **{k: v.clone() for k, v in loop.b.items()}})
            avgs.append({k: v for k, v in avg.items() if 'num_batches' not in k})
    return starts, ends, avgs, taken, np.array(loop.terms)


def was_cut(got, clean):
    "Each picture has one and the same box from another of the batch, whose class is its second target; `lam` is what is its own."
    x, y = clean['x'], clean['y']
    box = (got['x'] != x).any(0)
    mates = [[j for j in range(len(x)) if torch.equal(torch.where(box, x[j], x[i]), o)] for i, o in enumerate(got['x'])]
    assert all(int(y1) in y[m].tolist() for y1, m in zip(got['y1'], mates)) and torch.equal(got['y'], y)
    if box.any(): torch.testing.assert_close(got['lam'], 1 - box.float().mean(), rtol=0, atol=1e-6)
    rows, cols = box[0].any(1), box[0].any(0)
    assert torch.equal(box[0], rows[:, None] & cols) and got['lam'] >= .5


def valid_loss(w, device):
    "Of the plain loop's weights, on the validation rows."
    model, items = net(0.).to(device).eval(), data(12, 1)
    x, y = (torch.stack([o[j] for o in items]).to(device) for j in (0, 1))
    return float(F.cross_entropy(functional_call(model, {**state(model), **{k: v.float() for k, v in w.items()}}, (x,)), y))


def third(i, j): return (i + j) % 3 == 0


@pytest.fixture(autouse=True)
def own_precision():
    "A cell that fails inside autocast must not pass it on."
    yield
    torch.set_autocast_enabled('cpu', False)


@pytest.mark.parametrize('row, column, device', [
    *(pytest.param(r, c, 'cpu', id=f'{r}-{c}', marks=[] if third(list(ROWS).index(r), COLUMNS.index(c)) else [pytest.mark.slow]) for r, c in CELLS),
    *(pytest.param(r, c, 'cuda', id=f'{r}-{c}-cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')) for r, c in CELLS if c in HALF)])
def test_cell(row, column, device, tmp_path, monkeypatch):
    learn = make(row, column, tmp_path, device=device)
    before = everything(learn)
    train(learn, row, column)
    starts, ends, avgs, taken, terms = expected(row, column, learn, device)
    probe, tol = learn.probe, 200. if column == 'bf16' else 50. if column == 'fp16' or 'inf' in column else 1.
    # weights and statistics (their count too) at every batch
    for got, want in zip(learn.starts.states, starts):
        if want is not None: close(got, want, tol=tol)
    if column == 'lr_find':
        assert torch.equal(everything(learn), before) and len(learn.recorder.lrs) == 12
        assert row != 'EMA' or '_set_aside' not in learn.ema.__dict__
        assert row not in ('Snapshots', 'Resume') or not list(tmp_path.glob(f'models/{row.lower()}*'))
        return
    for got, want in zip(probe.ends, ends, strict=True): close(got, want, tol=tol)
    if column != 'accumulation': assert probe.stepped == taken
    if 'inf' in column:
        assert taken == len(starts) - 1 and probe.scales == [SCALE] * BLOWN + [SCALE / 2] * (len(starts) - BLOWN)
    final, best = state(learn.model), -1
    if row in ('best model', 'fit_to_best'):
        want = [valid_loss(o, device) for o in (avgs if column == 'EMA' else ends)]
        np.testing.assert_allclose([o[1] for o in learn.recorder.values], want, rtol=1e-4 * tol)
        best = int(np.argmax(want if row == 'best model' else [valid_loss(o, device) for o in probe.judged[:EPOCHS]]))
        # stopped after one epoch without a gain; trained again to the best and no further
        assert best == 0 and len(ends) == (2 if row == 'best model' else 1) and (row == 'best model' or learn.best == best)
    if 'EMA' in (row, column): close(final, avgs[best], avgs[best], tol)
    elif row == 'SWA':
        close(final, {k: (ends[1][k] + ends[2][k]) / 2 for k in ends[0] if 'running' not in k and 'num' not in k}, tol=tol)
        items = data()
        mean, var = naive_statistics(learn, [(torch.stack([x for x, _ in items[i:i + BS]]).to(device),) for i in range(0, N, BS)])
        close(final, {'body.1.running_mean': mean, 'body.1.running_var': var}, tol=1. if device == 'cpu' else tol)
    else: assert all(torch.equal(final[k], probe.ends[best][k]) for k in final)
    if row == 'LossTerms':
        # of a step that is blown the loop sees no loss: not in that epoch
        want = terms[N // BS - 1 if 'inf' in column else 0:].reshape(-1, N // BS, 2).mean(1)
        np.testing.assert_allclose([o[-2:] for o in learn.recorder.values][-len(want):], want, rtol=1e-4 * tol)
    if row == 'Snapshots':
        assert len(learn.snapshots.files) == 1
        close(torch.load(learn.snapshots.files[0], weights_only=True), final, tol=1e-6)
    if row == 'Guard': assert learn.guard.bad == []
    if row == 'Resume' or column == 'resume':
        runs = []
        for i, die in enumerate(((-1, -1), (1 if row == 'best model' else 2, 1), (-1, -1))):
            monkeypatch.setattr(resume, 'PROCESS', f'process {i}')
            again = make(row, column, tmp_path/('whole' if i == 0 else 'killed'), [*([] if row == 'Resume' else [Resume()]), Die(*die)], device)
            if die[0] < 0:
                train(again, row, column)
                runs.append(everything(again))
            else:
                with pytest.raises(KeyboardInterrupt): train(again, row, column)
        assert len(again.starts.states) == N // BS and (torch.equal(*runs) or device != 'cpu')
        close(state(again.model), final, tol=1e-6 if device == 'cpu' else tol)


@pytest.mark.parametrize('row, column', REFUSED)
def test_refused(row, column):
    with pytest.raises(InputError): fit(learner(cbs=[ROWS[row][0](), REFUSED[row, column]()]), 'fit', 2, LR)


def test_the_matrix_is_whole():
    assert {(r, c) for r in ROWS for c in COLUMNS} == {*CELLS, *NONE} and not set(CELLS) & set(NONE) and all(NONE.values())
    shown = [(r, c) for i, r in enumerate(ROWS) for j, c in enumerate(COLUMNS) if (r, c) in CELLS and third(i, j)]
    assert {r for r, _ in shown} == set(ROWS) and {c for _, c in shown} == set(COLUMNS) and len(shown) >= len(CELLS) * .3


@pytest.fixture(scope='module')
def listings():
    df = pd.read_csv(demo_path()/'listings.csv')
    return df[df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:8]))].reset_index(drop=True)


def matched(listings, path, loss, cbs=(), how='fit_flat_cos', **kwargs):
    learn = make_matcher(listings, path=path, cbs=[*L(cbs), Ends()], head_func=TrackedHead, loss_func=loss())
    fit(learn, how, 2, 1e-3, **kwargs)
    return learn


class Ends(Callback):
    "The live weights and all buffers at the ends of epochs."
    order = 30
    def before_fit(self): self.states = []
    def after_train(self): self.states.append(state(self.learn.model))


@pytest.mark.parametrize('row', ROWS)
def test_with_match_learner(row, listings, tmp_path):
    "Heads of class centres that keep track: callbacks that only watch leave weights as they are to the bit; others move statistics as often as the base."
    cb = ROWS[row][0]() if row != 'best model' else [SaveModelCallback('recall@1'), EarlyStoppingCallback('recall@1')]
    if row in ('FGM', 'PGD'): cb.names = ('conv_stem',)
    loss = CurricularFace if row != 'LossTerms' else lambda: SumLoss({'softmax': CurricularFace()})
    how = dict(how='fit_to_best', monitor='recall@1') if row == 'fit_to_best' else {}
    plain, learn = matched(listings, tmp_path/'plain', loss), matched(listings, tmp_path/'cb', loss, cb, **how)
    b = learn.ends.states
    a, b = plain.ends.states[len(b) - 1], b[-1]
    same = all(torch.equal(a[k], b[k]) for k in a)
    assert same == (row in ('Guard', 'EMA', 'SWA', 'Snapshots', 'Resume', 'LossTerms', 'fit_to_best', 'best model'))
    assert all(torch.isfinite(v).all() for v in b.values())
    counts = [k for k in a if k.endswith('num_batches_tracked')]
    assert counts and all(a[k] == b[k] > 0 for k in counts)
    embedded = learn.embeddings()
    assert np.isfinite(embedded['image']).all() and learn.trained_on.ids
