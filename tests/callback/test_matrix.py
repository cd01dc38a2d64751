"Every callback under every condition against a plain loop: weights, statistics, averages, loss scales."
import math
from functools import partial

import numpy as np
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
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.guard import Guard
from fastmatch.callback.heads import LossTerms, MarginSchedule
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ASAM, ESAM, SAM, LookSAM
from fastmatch.callback.snapshots import Snapshots
from fastmatch.core import HeadOutput, InputError
from fastmatch.layers.heads import TrackedHead
from fastmatch.losses import CosFace, CrossEntropy, CurricularFace, FocalLoss, SumLoss
from fastmatch.losses.base import Loss
from fastmatch.optim import sgd
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, N, Net, amp, data, everything, fit, learner, net
from tests.callback.test_averaging import naive_statistics
from tests.callback.test_resume import Die
from tests.learner.small import make as make_matcher
from tests.reference.callbacks import Loop, copied

CONV = 'body.0.weight'
# the highest loss is 'best', so that the last epoch is not
WORST = dict(monitor='valid_loss', comp=np.greater)
# name -> (callback, what the plain loop knows of it)
ROWS = {
    'SAM': (lambda: SAM(.3), dict(rho=.3)),
    'ASAM': (lambda: ASAM(.8), dict(rho=.8)),
    'LookSAM': (lambda: LookSAM(.3, 2), dict(rho=.3, k=2)),
    'ESAM': (lambda: ESAM(.3, .6, .5), dict(rho=.3, beta=.6, gamma=.5)),
    'SAF': (lambda: SAF(3., back=1), dict(weight=3.)),
    'FGM': (lambda: FGM(.5, CONV), dict(name=CONV, eps=.5, alpha=.5, k=1)),
    'PGD': (lambda: PGD(.5, .3, 2, CONV), dict(name=CONV, eps=.5, alpha=.3, k=2)),
    'HardMining': (lambda: HardMining(.5), dict(share=.5)),
    'Guard': (Guard, {}),
    'EMA': (lambda: EMA(.7), {}),
    'SWA': (lambda: SWA(.5), {}),
    'Snapshots': (Snapshots, {}),
    'Resume': (Resume, {}),
    'CutMix': (CutMix, {}),
    'MarginSchedule': (lambda: MarginSchedule(SchedLin(.1, .4)), dict(s=4.)),
    'LossTerms': (LossTerms, dict(focal=.6)),
    'fit_to_best': (list, {}),
    'best model': (lambda: [SaveModelCallback(**WORST), EarlyStoppingCallback(**WORST, patience=1)], {}),
}
COLUMNS = ['lr_find', 'fit_flat_cos', 'fit_one_cycle', 'accumulation', 'clipping', 'fp16', 'inf in pass 1',
           'inf in pass 2', 'bf16', 'MixUp', 'EMA', 'frozen', 'resume']
TWICE = ('SAM', 'ASAM', 'LookSAM', 'ESAM', 'FGM', 'PGD')
# pairs that make no sense, and why; where a user could ask for one it is refused
NONE = {**{(row, 'inf in pass 2'): 'it has no second pass' for row in ROWS if row not in TWICE},
        ('SAF', 'MixUp'): 'a mixture is not the row that it was in an earlier epoch',
        ('EMA', 'EMA'): 'one average is enough',
        ('SWA', 'EMA'): 'two averages would be in the model at once',
        ('Resume', 'resume'): 'the row is the column',
        ('CutMix', 'MixUp'): 'a batch is mixed once',
        ('fit_to_best', 'lr_find'): 'it is no training with a best epoch'}
REFUSED = {('SAF', 'MixUp'): MixUp, ('EMA', 'EMA'): lambda: EMA(.7), ('SWA', 'EMA'): lambda: EMA(.7),
           ('CutMix', 'MixUp'): MixUp}
EPOCHS = 3
LR = .05
MOM = .9
SCALE = 256.
BLOWN = 4  # the batch of the fit with an infinite loss
PER_EPOCH = N // BS
CELLS = [(row, column) for row in ROWS for column in COLUMNS if (row, column) not in NONE]
HALF = ('fp16', 'inf in pass 1', 'inf in pass 2', 'bf16')


class Probe(Callback):
    "Rates stepped with, states at the ends of epochs, batches as the model gets them, loss scales."
    order, run_valid = 900, False
    def __init__(self): self.judged = []
    def before_validate(self): self.judged.append(state(self.learn.model))
    def before_fit(self):
        self.rates = []
        self.batches = []
        self.scales = []
        self.stepped = 0
        self.ends = []

    def before_batch(self):
        def plain(tensor): return tensor.as_subclass(torch.Tensor).clone()
        batch = {'x': plain(self.xb[0]), 'y': plain(self.yb[0])}
        for callback in self.learn.cbs:
            if not isinstance(callback, MixHandler): continue
            batch.update(y1=plain(callback.yb1[0]), lam=callback.lam.clone())
        self.batches.append(batch)
        hypers = self.opt.hypers[-1]
        self.rates.append((float(hypers['lr']), float(hypers['mom'])))

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

    def blow(self, module, args, output):
        self.n += module.training
        if not module.training or self.learn.train_iter != BLOWN or self.n != self.forward: return
        if not isinstance(self.learn.loss_func, Loss): return output * float('inf')
        # losses of this package end a training that is NaN: for theirs it is the gradient
        logits = output.cos if isinstance(output, HeadOutput) else output
        logits.register_hook(lambda gradient: gradient * float('inf'))

    def after_fit(self): self.hook.remove()


class Cosines(Net):
    "With a head as margins want it."
    def forward(self, x): return HeadOutput(torch.tanh(super().forward(x)), x)


def state(model):
    "Copies of a model's weights and buffers."
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def cos(start, end, progress): return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def schedule(column, i, n):
    "(Rate, momentum) of batch `i` of `n`."
    progress = i / n

    def one_cycle(start, middle, end):
        if progress < .25: return cos(start, middle, progress / .25)
        return cos(middle, end, (progress - .25) / .75)
    if column == 'fit_flat_cos':
        return (LR if progress < .75 else cos(LR, LR / 1e5, (progress - .75) / .25)), MOM
    if column == 'fit_one_cycle': return one_cycle(LR / 25, LR, LR / 1e5), one_cycle(.95, .85, .95)
    if column == 'lr_find': return 1e-4 * (.2 / 1e-4)**(i / 12), MOM
    return LR, MOM


def close(got, want, names=None, tol=1.):
    "Assert that two states are close; `tol` widens what is allowed."
    for name in names or want:
        torch.testing.assert_close(got[name].double(), want[name].double(), rtol=1e-4 * tol, atol=1e-5 * tol,
                                   msg=lambda message, name=name: f'{name}: {message}')


def condition(row, column, device):
    "The callbacks that a column stands for."
    fp16 = partial(amp, 'fp16', device, init_scale=SCALE)
    if column == 'accumulation': return [GradientAccumulation(4 if row == 'HardMining' else 8)]
    if column == 'clipping': return [GradientClip(.2)]
    if column == 'fp16': return [fp16()]
    if column == 'bf16': return [amp('bf16', device)]
    if column == 'MixUp': return [MixUp()]
    if column == 'EMA': return [EMA(.7)]
    if column == 'inf in pass 1': return [fp16(), Blow(1 if row == 'HardMining' else 0)]
    if column == 'inf in pass 2': return [fp16(), Blow(2 if row in ('ESAM', 'PGD') else 1)]
    return []


def make(row, column, path, extra=(), device='cpu'):
    "The learner of a cell, with callbacks that note what happens."
    model = net(0.)
    loss = None
    if row == 'LossTerms': loss = SumLoss({'ce': CrossEntropy(), 'focal': FocalLoss()}, {'focal': .6})
    if row == 'MarginSchedule':
        loss = CosFace(.2, s=4.)
        model.__class__ = Cosines
    cbs = [*L(ROWS[row][0]()), *condition(row, column, device), Starts(), Probe(), *extra]
    learn = learner(model, partial(sgd, mom=MOM), path, cbs=cbs, device=device, loss=loss)
    if column == 'frozen': learn.freeze()
    return learn


def train(learn, row, column):
    "Train the learner of a cell."
    how = column if column in ('fit_flat_cos', 'fit_one_cycle') else 'fit'
    if column == 'lr_find':
        fit(learn, 'lr_find', start_lr=1e-4, end_lr=.2, num_it=12, stop_div=False, show_plot=False,
            suggest_funcs=None)
    elif row == 'fit_to_best': learn.best = fit(learn, 'fit_to_best', EPOCHS, LR, fit=how, **WORST)
    else: fit(learn, how, EPOCHS, LR)


def half_precision(column):
    "The dtype of half precision in a column; None: float32."
    if column == 'bf16': return torch.bfloat16
    return torch.float16 if column == 'fp16' or 'inf' in column else None


def plain_loop(row, column, device):
    "The plain loop of a cell, before its first step."
    half = half_precision(column)
    names = ['body.0.weight', 'body.1.weight', 'body.1.bias', 'head.weight', 'head.bias']
    live = [name for name in names if (name, column) != (CONV, 'frozen')]
    scale = SCALE if half == torch.float16 else 1.
    clip = .2 if column == 'clipping' else None
    return Loop(net(0.).to(device), row, live, half, scale, clip, **ROWS[row][1])


class Averages:
    "An EMA beside the plain loop, in float64."
    def __init__(self, loop):
        self.values = {name: value.clone().double() for name, value in {**loop.w, **loop.b}.items()}
        self.t = 0

    def move(self, loop):
        self.t += 1
        decay = min(.7, (1 + self.t) / (10 + self.t))
        now = {**loop.w, **loop.b}
        for name, value in self.values.items():
            self.values[name] = decay * value + (1 - decay) * now[name].double()


def batch_for_loop(row, column, i, loop, probe, device):
    "Batch `i` as the plain loop takes it."
    items = data()
    at = i % PER_EPOCH * BS
    x, y = (torch.stack(tensors).to(device) for tensors in zip(*items[at:at + BS]))
    batch = {'x': x, 'y': y}
    if row == 'CutMix': was_cut(probe.batches[i], batch)
    if column == 'MixUp' or row == 'CutMix':
        mixed = probe.batches[i]
        batch = {**mixed, 'clean': batch} if row == 'HardMining' else mixed
    if row == 'MarginSchedule': batch['m'] = .1 + .3 * i / (EPOCHS * PER_EPOCH)
    if row == 'SAF' and column != 'lr_find':
        if i - PER_EPOCH in loop.outs: batch['old'] = loop.outs[i - PER_EPOCH]
        if 'inf' not in column or i != BLOWN:
            with torch.no_grad(): loop.outs[i] = loop.logits(loop.w, batch['x'], copied(loop.b))
    return batch


def expected(row, column, learn, device='cpu'):
    """The plain loop of a cell, with rates and batches that the learner had.

    (State at the start of each batch and at the end of each epoch, EMA at the same, steps taken, means of a
    sum's terms).
    """
    probe = learn.probe
    loop = plain_loop(row, column, device)
    averages = Averages(loop)
    starts = []
    ends = []
    averages_at_ends = []
    group = []
    taken = 0
    for i in range(len(probe.batches)):
        if column == 'lr_find' and i == 12: break
        # in the middle of an accumulated step the loop's statistics have not moved yet
        starts.append(None if group else {**loop.w, **copied(loop.b)})
        group.append(batch_for_loop(row, column, i, loop, probe, device))
        if column == 'accumulation' and len(group) < 2: continue
        blown = 'inf' in column and i == BLOWN
        lr_mom = schedule(column, i, EPOCHS * PER_EPOCH)
        where = f'rate and momentum at batch {i} of {len(probe.batches)}'
        np.testing.assert_allclose(probe.rates[i], lr_mom, rtol=1e-4, err_msg=where)
        loop.step(group, *lr_mom, i - len(group) + 1, blown)
        group = []
        taken += not blown
        if not blown: averages.move(loop)
        if i % PER_EPOCH == PER_EPOCH - 1:
            ends.append({**loop.w, **copied(loop.b)})
            values = averages.values
            averages_at_ends.append({name: values[name] for name in values if 'num_batches' not in name})
    return starts, ends, averages_at_ends, taken, np.array(loop.terms)


def was_cut(got, clean):
    "Each picture has one box from another, whose class is its second target; `lam` is its own share."
    x = clean['x']
    y = clean['y']
    box = (got['x'] != x).any(0)
    for own, mixed, partner_class in zip(x, got['x'], got['y1']):
        partners = [j for j in range(len(x)) if torch.equal(torch.where(box, x[j], own), mixed)]
        assert int(partner_class) in y[partners].tolist()
    assert torch.equal(got['y'], y)
    if box.any(): torch.testing.assert_close(got['lam'], 1 - box.float().mean(), rtol=0, atol=1e-6)
    rows = box[0].any(1)
    columns = box[0].any(0)
    assert torch.equal(box[0], rows[:, None] & columns) and got['lam'] >= .5


def valid_loss(w, device):
    "Of the plain loop's weights, on the validation rows."
    model = net(0.).to(device).eval()
    x, y = (torch.stack(column).to(device) for column in zip(*data(12, 1)))
    values = {**state(model), **{name: value.float() for name, value in w.items()}}
    return float(F.cross_entropy(functional_call(model, values, (x,)), y))


def third(i, j): return (i + j) % 3 == 0


@pytest.fixture(autouse=True)
def own_precision():
    "A cell that fails inside autocast must not pass it on."
    yield
    torch.set_autocast_enabled('cpu', False)


def on_cpu(row, column):
    "A cell as a test's parameters; two of three are slow."
    often = third(list(ROWS).index(row), COLUMNS.index(column))
    return pytest.param(row, column, 'cpu', id=f'{row}-{column}', marks=[] if often else [pytest.mark.slow])


def on_gpu(row, column):
    "A cell in half precision on the GPU, as a test's parameters."
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
    return pytest.param(row, column, 'cuda', id=f'{row}-{column}-cuda', marks=no_gpu)


def check_scores(row, learn, judged):
    "The recorded scores are those of what was judged; which epoch was best, and that training ended there."
    best = int(np.argmax(judged))
    # stopped after one epoch without a gain; trained again to the best and no further
    assert best == 0 and len(learn.probe.ends) == (2 if row == 'best model' else 1)
    assert row == 'best model' or learn.best == best
    return best


def check_swa(learn, final, ends, device, tol):
    "The final weights are the mean of the last two epochs', with statistics of their own."
    weights = [name for name in ends[0] if 'running' not in name and 'num' not in name]
    means = {name: (ends[1][name] + ends[2][name]) / 2 for name in weights}
    close(final, means, tol=tol)
    images = torch.stack([image for image, _ in data()])
    mean, var = naive_statistics(learn, [(batch.to(device),) for batch in images.split(BS)])
    statistics = {'body.1.running_mean': mean, 'body.1.running_var': var}
    close(final, statistics, tol=1. if device == 'cpu' else tol)


def check_resumed(row, column, device, tmp_path, monkeypatch):
    "A training that is killed in between ends as one that is not; its learner."
    runs = []
    killed_at = (1 if row == 'best model' else 2, 1)
    for i, die in enumerate(((-1, -1), killed_at, (-1, -1))):
        monkeypatch.setattr(resume, 'PROCESS', f'process {i}')
        extra = [*([] if row == 'Resume' else [Resume()]), Die(*die)]
        again = make(row, column, tmp_path/('whole' if i == 0 else 'killed'), extra, device)
        if die[0] < 0:
            train(again, row, column)
            runs.append(everything(again))
        else:
            with pytest.raises(KeyboardInterrupt): train(again, row, column)
    assert len(again.starts.states) == PER_EPOCH and (torch.equal(*runs) or device != 'cpu')
    return again


def tolerance(column):
    "How much wider than in float32 numbers may differ."
    if column == 'bf16': return 200.
    return 50. if half_precision(column) else 1.


@pytest.mark.parametrize('row, column, device', [
    *(on_cpu(row, column) for row, column in CELLS),
    *(on_gpu(row, column) for row, column in CELLS if column in HALF)])
def test_cell(row, column, device, tmp_path, monkeypatch):
    learn = make(row, column, tmp_path, device=device)
    before = everything(learn)
    train(learn, row, column)
    starts, ends, averages, taken, terms = expected(row, column, learn, device)
    probe = learn.probe
    tol = tolerance(column)
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
        assert taken == len(starts) - 1
        assert probe.scales == [SCALE] * BLOWN + [SCALE / 2] * (len(starts) - BLOWN)
    final, best = state(learn.model), -1
    if row in ('best model', 'fit_to_best'):
        want = [valid_loss(weights, device) for weights in (averages if column == 'EMA' else ends)]
        np.testing.assert_allclose([values[1] for values in learn.recorder.values], want, rtol=1e-4 * tol)
        judged = [valid_loss(weights, device) for weights in probe.judged[:EPOCHS]]
        best = check_scores(row, learn, want if row == 'best model' else judged)
    if 'EMA' in (row, column): close(final, averages[best], averages[best], tol)
    elif row == 'SWA': check_swa(learn, final, ends, device, tol)
    else: assert all(torch.equal(final[name], probe.ends[best][name]) for name in final)
    if row == 'LossTerms':
        # of a step that is blown the loop sees no loss: not in that epoch
        want = terms[PER_EPOCH - 1 if 'inf' in column else 0:].reshape(-1, PER_EPOCH, 2).mean(1)
        shown = [values[-2:] for values in learn.recorder.values][-len(want):]
        np.testing.assert_allclose(shown, want, rtol=1e-4 * tol)
    if row == 'Snapshots':
        assert len(learn.snapshots.files) == 1
        close(torch.load(learn.snapshots.files[0], weights_only=True), final, tol=1e-6)
    if row == 'Guard': assert learn.guard.bad == []
    if row == 'Resume' or column == 'resume':
        again = check_resumed(row, column, device, tmp_path, monkeypatch)
        close(state(again.model), final, tol=1e-6 if device == 'cpu' else tol)


@pytest.mark.parametrize('row, column', REFUSED)
def test_refused(row, column):
    with pytest.raises(InputError): fit(learner(cbs=[ROWS[row][0](), REFUSED[row, column]()]), 'fit', 2, LR)


def test_the_matrix_is_whole():
    assert {(row, column) for row in ROWS for column in COLUMNS} == {*CELLS, *NONE}
    assert not set(CELLS) & set(NONE) and all(NONE.values())
    cells = [(row, column) for i, row in enumerate(ROWS) for j, column in enumerate(COLUMNS) if third(i, j)]
    shown = [cell for cell in cells if cell in CELLS]
    assert {row for row, _ in shown} == set(ROWS) and {column for _, column in shown} == set(COLUMNS)
    assert len(shown) >= len(CELLS) * .3


def matched(listings, path, loss, cbs=(), how='fit_flat_cos', **kwargs):
    "A matching learner, trained."
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
    """Under heads that keep track of the training.

    Callbacks that only watch leave weights as they are to the bit; others move statistics as often as the
    base.
    """
    cb = ROWS[row][0]()
    if row == 'best model': cb = [SaveModelCallback('recall@1'), EarlyStoppingCallback('recall@1')]
    if row in ('FGM', 'PGD'): cb.names = ('conv_stem',)
    loss = CurricularFace if row != 'LossTerms' else lambda: SumLoss({'softmax': CurricularFace()})
    how = dict(how='fit_to_best', monitor='recall@1') if row == 'fit_to_best' else {}
    plain = matched(listings, tmp_path/'plain', loss)
    learn = matched(listings, tmp_path/'cb', loss, cb, **how)
    want = plain.ends.states[len(learn.ends.states) - 1]
    got = learn.ends.states[-1]
    same = all(torch.equal(want[name], got[name]) for name in want)
    watching = ('Guard', 'EMA', 'SWA', 'Snapshots', 'Resume', 'LossTerms', 'fit_to_best', 'best model')
    assert same == (row in watching)
    assert all(torch.isfinite(value).all() for value in got.values())
    counts = [name for name in want if name.endswith('num_batches_tracked')]
    assert counts and all(want[name] == got[name] > 0 for name in counts)
    embedded = learn.embeddings()
    assert np.isfinite(embedded['image']).all() and learn.trained_on.ids
