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
from tests.callback.small import BS, N, Net, amp, data, everything, fit, make_learner, net
from tests.callback.test_averaging import naive_statistics
from tests.callback.test_resume import Die
from tests.learner.small import make as make_matcher
from tests.reference.callbacks import Loop, copied

CONV = 'body.0.weight'
# the highest loss is 'best', so that the last epoch is not
WORST = dict(monitor='valid_loss', comp=np.greater)
# name -> (callback, what the plain loop knows of it)
CALLBACKS = {
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
CONDITIONS = ['lr_find', 'fit_flat_cos', 'fit_one_cycle', 'accumulation', 'clipping', 'fp16', 'inf in pass 1',
              'inf in pass 2', 'bf16', 'inf in pass 3', 'MixUp', 'EMA', 'frozen', 'resume']
TWICE = ('SAM', 'ASAM', 'LookSAM', 'ESAM', 'FGM', 'PGD')
# pairs that make no sense, and why; where a user could ask for one it is refused
SENSELESS = {**{(name, 'inf in pass 2'): 'it has no second pass' for name in CALLBACKS if name not in TWICE},
             **{(name, 'inf in pass 3'): 'it has no third pass' for name in CALLBACKS if name != 'PGD'},
             ('SAF', 'MixUp'): 'a mixture is not the row that it was in an earlier epoch',
             ('EMA', 'EMA'): 'one average is enough',
             ('SWA', 'EMA'): 'two averages would be in the model at once',
             ('Resume', 'resume'): 'the callback is the condition',
             ('CutMix', 'MixUp'): 'a batch is mixed once',
             ('fit_to_best', 'lr_find'): 'it is no training with a best epoch'}
REFUSED = {('SAF', 'MixUp'): MixUp, ('EMA', 'EMA'): lambda: EMA(.7), ('SWA', 'EMA'): lambda: EMA(.7),
           ('CutMix', 'MixUp'): MixUp}
EPOCHS = 3
LR = .05
MOMENTUM = .9
SCALE = 256.
BLOWN = 4  # the batch of the fit with an infinite loss
PER_EPOCH = N // BS
CELLS = [(name, condition) for name in CALLBACKS for condition in CONDITIONS
         if (name, condition) not in SENSELESS]
HALF = ('fp16', 'inf in pass 1', 'inf in pass 2', 'inf in pass 3', 'bf16')


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
    def before_batch(self): self.n_passes = -1

    def blow(self, module, args, output):
        self.n_passes += module.training
        if not module.training or self.learn.train_iter != BLOWN or self.n_passes != self.forward: return
        if not isinstance(self.learn.loss_func, Loss): return output * float('inf')
        # losses of this package end a training that is NaN: for theirs it is the gradient
        logits = output.cos if isinstance(output, HeadOutput) else output
        logits.register_hook(lambda gradient: gradient * float('inf'))

    def after_fit(self): self.hook.remove()


class Cosines(Net):
    "With a head as margins want it."
    def forward(self, images): return HeadOutput(torch.tanh(super().forward(images)), images)


def state(model):
    "Copies of a model's weights and buffers."
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def cosine_between(start, end, progress): return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def schedule(condition, i, n):
    "(Rate, momentum) of batch `i` of `n`."
    progress = i / n

    def one_cycle(start, middle, end):
        if progress < .25: return cosine_between(start, middle, progress / .25)
        return cosine_between(middle, end, (progress - .25) / .75)
    if condition == 'fit_flat_cos':
        return (LR if progress < .75 else cosine_between(LR, LR / 1e5, (progress - .75) / .25)), MOMENTUM
    if condition == 'fit_one_cycle': return one_cycle(LR / 25, LR, LR / 1e5), one_cycle(.95, .85, .95)
    if condition == 'lr_find': return 1e-4 * (.2 / 1e-4)**(i / 12), MOMENTUM
    return LR, MOMENTUM


def assert_close(actual, expected, names=None, tolerance=1.):
    "Assert that two states are close; `tolerance` widens what is allowed."
    for name in names or expected:
        torch.testing.assert_close(actual[name].double(), expected[name].double(),
                                   rtol=1e-4 * tolerance, atol=1e-5 * tolerance,
                                   msg=lambda message, name=name: f'{name}: {message}')


def condition_callbacks(callback_name, condition, device):
    "The callbacks that a condition stands for."
    fp16 = partial(amp, 'fp16', device, init_scale=SCALE)
    if condition == 'accumulation': return [GradientAccumulation(4 if callback_name == 'HardMining' else 8)]
    if condition == 'clipping': return [GradientClip(.2)]
    if condition == 'fp16': return [fp16()]
    if condition == 'bf16': return [amp('bf16', device)]
    if condition == 'MixUp': return [MixUp()]
    if condition == 'EMA': return [EMA(.7)]
    if condition == 'inf in pass 1': return [fp16(), Blow(1 if callback_name == 'HardMining' else 0)]
    # the pass between, in which ESAM looks for the rows that are harmed, has no gradient
    if condition == 'inf in pass 2': return [fp16(), Blow(2 if callback_name == 'ESAM' else 1)]
    if condition == 'inf in pass 3': return [fp16(), Blow(2)]
    return []


def cell_learner(callback_name, condition, path, extra=(), device='cpu'):
    "The learner of a cell, with callbacks that note what happens."
    model = net(0.)
    loss = None
    if callback_name == 'LossTerms':
        loss = SumLoss({'ce': CrossEntropy(), 'focal': FocalLoss()}, {'focal': .6})
    if callback_name == 'MarginSchedule':
        loss = CosFace(.2, s=4.)
        model.__class__ = Cosines
    callbacks = [*L(CALLBACKS[callback_name][0]()), *condition_callbacks(callback_name, condition, device),
                 Starts(), Probe(), *extra]
    learner = make_learner(model, partial(sgd, mom=MOMENTUM), path, cbs=callbacks, device=device, loss=loss)
    if condition == 'frozen': learner.freeze()
    return learner


def train(learner, callback_name, condition):
    "Train the learner of a cell."
    method_name = condition if condition in ('fit_flat_cos', 'fit_one_cycle') else 'fit'
    if condition == 'lr_find':
        fit(learner, 'lr_find', start_lr=1e-4, end_lr=.2, num_it=12, stop_div=False, show_plot=False,
            suggest_funcs=None)
    elif callback_name == 'fit_to_best':
        learner.best = fit(learner, 'fit_to_best', EPOCHS, LR, fit=method_name, **WORST)
    else: fit(learner, method_name, EPOCHS, LR)


def half_precision(condition):
    "The dtype of half precision under a condition; None: float32."
    if condition == 'bf16': return torch.bfloat16
    return torch.float16 if condition == 'fp16' or 'inf' in condition else None


def make_plain_loop(callback_name, condition, device):
    "The plain loop of a cell, before its first step."
    half_dtype = half_precision(condition)
    names = ['body.0.weight', 'body.1.weight', 'body.1.bias', 'head.weight', 'head.bias']
    live_names = [name for name in names if (name, condition) != (CONV, 'frozen')]
    scale = SCALE if half_dtype == torch.float16 else 1.
    clip = .2 if condition == 'clipping' else None
    options = CALLBACKS[callback_name][1]
    return Loop(net(0.).to(device), callback_name, live_names, half_dtype, scale, clip, **options)


class Averages:
    "An EMA beside the plain loop, in float64."
    def __init__(self, loop):
        self.values = {name: value.clone().double() for name, value in {**loop.w, **loop.b}.items()}
        self.n_moves = 0

    def move(self, loop):
        self.n_moves += 1
        decay = min(.7, (1 + self.n_moves) / (10 + self.n_moves))
        now = {**loop.w, **loop.b}
        for name, value in self.values.items():
            self.values[name] = decay * value + (1 - decay) * now[name].double()


def batch_for_loop(callback_name, condition, i, loop, probe, device):
    "Batch `i` as the plain loop takes it."
    items = data()
    first_row = i % PER_EPOCH * BS
    images, targets = (torch.stack(tensors).to(device) for tensors in zip(*items[first_row:first_row + BS]))
    batch = {'x': images, 'y': targets}
    if callback_name == 'CutMix': was_cut(probe.batches[i], batch)
    if condition == 'MixUp' or callback_name == 'CutMix':
        mixed = probe.batches[i]
        batch = {**mixed, 'clean': batch} if callback_name == 'HardMining' else mixed
    if callback_name == 'MarginSchedule': batch['m'] = .1 + .3 * i / (EPOCHS * PER_EPOCH)
    if callback_name == 'SAF' and condition != 'lr_find':
        if i - PER_EPOCH in loop.outs: batch['old'] = loop.outs[i - PER_EPOCH]
        if 'inf' not in condition or i != BLOWN:
            with torch.no_grad(): loop.outs[i] = loop.logits(loop.w, batch['x'], copied(loop.b))
    return batch


def run_plain_loop(callback_name, condition, learner, device='cpu'):
    """The plain loop of a cell, with rates and batches that the learner had.

    (State at the start of each batch and at the end of each epoch, EMA at the same, steps taken, means of a
    sum's terms).
    """
    probe = learner.probe
    loop = make_plain_loop(callback_name, condition, device)
    averages = Averages(loop)
    starts = []
    ends = []
    averages_at_ends = []
    accumulated = []
    n_taken = 0
    for i in range(len(probe.batches)):
        if condition == 'lr_find' and i == 12: break
        # in the middle of an accumulated step the loop's statistics have not moved yet
        starts.append(None if accumulated else {**loop.w, **copied(loop.b)})
        accumulated.append(batch_for_loop(callback_name, condition, i, loop, probe, device))
        if condition == 'accumulation' and len(accumulated) < 2: continue
        blown = 'inf' in condition and i == BLOWN
        rate_and_momentum = schedule(condition, i, EPOCHS * PER_EPOCH)
        where = f'rate and momentum at batch {i} of {len(probe.batches)}'
        np.testing.assert_allclose(probe.rates[i], rate_and_momentum, rtol=1e-4, err_msg=where)
        loop.step(accumulated, *rate_and_momentum, i - len(accumulated) + 1, blown)
        accumulated = []
        n_taken += not blown
        if not blown: averages.move(loop)
        if i % PER_EPOCH == PER_EPOCH - 1:
            ends.append({**loop.w, **copied(loop.b)})
            averaged = averages.values
            averages_at_ends.append({name: averaged[name] for name in averaged if 'num_batches' not in name})
    return starts, ends, averages_at_ends, n_taken, np.array(loop.terms)


def was_cut(mixed_batch, clean_batch):
    "Each picture has one box from another, whose class is its second target; `lam` is its own share."
    images = clean_batch['x']
    targets = clean_batch['y']
    box = (mixed_batch['x'] != images).any(0)
    for image, mixed_image, partner_class in zip(images, mixed_batch['x'], mixed_batch['y1']):
        partners = [partner for partner in range(len(images))
                    if torch.equal(torch.where(box, images[partner], image), mixed_image)]
        assert int(partner_class) in targets[partners].tolist()
    assert torch.equal(mixed_batch['y'], targets)
    if box.any(): torch.testing.assert_close(mixed_batch['lam'], 1 - box.float().mean(), rtol=0, atol=1e-6)
    rows = box[0].any(1)
    columns = box[0].any(0)
    assert torch.equal(box[0], rows[:, None] & columns) and mixed_batch['lam'] >= .5


def valid_loss(weights, device):
    "Of the plain loop's weights, on the validation rows."
    model = net(0.).to(device).eval()
    images, targets = (torch.stack(tensors).to(device) for tensors in zip(*data(12, 1)))
    values = {**state(model), **{name: value.float() for name, value in weights.items()}}
    return float(F.cross_entropy(functional_call(model, values, (images,)), targets))


def third(i, j): return (i + j) % 3 == 0


@pytest.fixture(autouse=True)
def own_precision():
    "A cell that fails inside autocast must not pass it on."
    yield
    torch.set_autocast_enabled('cpu', False)


def on_cpu(callback_name, condition):
    "A cell (a callback under a condition) as a test's parameters; two of three are slow."
    is_quick = third(list(CALLBACKS).index(callback_name), CONDITIONS.index(condition))
    marks = [] if is_quick else [pytest.mark.slow]
    return pytest.param(callback_name, condition, 'cpu', id=f'{callback_name}-{condition}', marks=marks)


def on_gpu(callback_name, condition):
    "A cell in half precision on the GPU, as a test's parameters."
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
    name = f'{callback_name}-{condition}-cuda'
    return pytest.param(callback_name, condition, 'cuda', id=name, marks=no_gpu)


def check_scores(callback_name, learner, judged):
    "The recorded scores are those of what was judged; which epoch was best, and that training ended there."
    best_epoch = int(np.argmax(judged))
    # stopped after one epoch without a gain; trained again to the best and no further
    assert best_epoch == 0 and len(learner.probe.ends) == (2 if callback_name == 'best model' else 1)
    assert callback_name == 'best model' or learner.best == best_epoch
    return best_epoch


def check_swa(learner, final, ends, device, tolerance):
    "The final weights are the mean of the last two epochs', with statistics of their own."
    weight_names = [name for name in ends[0] if 'running' not in name and 'num' not in name]
    means = {name: (ends[1][name] + ends[2][name]) / 2 for name in weight_names}
    assert_close(final, means, tolerance=tolerance)
    images = torch.stack([image for image, _ in data()])
    mean, variance = naive_statistics(learner, [(batch.to(device),) for batch in images.split(BS)])
    statistics = {'body.1.running_mean': mean, 'body.1.running_var': variance}
    assert_close(final, statistics, tolerance=1. if device == 'cpu' else tolerance)


def check_resumed(callback_name, condition, device, tmp_path, monkeypatch):
    "A training that is killed in between ends as one that is not; its learner."
    end_states = []
    killed_at = (1 if callback_name == 'best model' else 2, 1)
    for run_number, die_at in enumerate(((-1, -1), killed_at, (-1, -1))):
        monkeypatch.setattr(resume, 'PROCESS', f'process {run_number}')
        extra = [*([] if callback_name == 'Resume' else [Resume()]), Die(*die_at)]
        folder = tmp_path/('whole' if run_number == 0 else 'killed')
        resumed = cell_learner(callback_name, condition, folder, extra, device)
        if die_at[0] < 0:
            train(resumed, callback_name, condition)
            end_states.append(everything(resumed))
        else:
            with pytest.raises(KeyboardInterrupt): train(resumed, callback_name, condition)
    assert len(resumed.starts.states) == PER_EPOCH and (torch.equal(*end_states) or device != 'cpu')
    return resumed


def tolerance_for(condition):
    "How much wider than in float32 numbers may differ."
    if condition == 'bf16': return 200.
    return 50. if half_precision(condition) else 1.


@pytest.mark.parametrize('callback_name, condition, device', [
    *(on_cpu(callback_name, condition) for callback_name, condition in CELLS),
    *(on_gpu(callback_name, condition) for callback_name, condition in CELLS if condition in HALF)])
def test_cell(callback_name, condition, device, tmp_path, monkeypatch):
    learner = cell_learner(callback_name, condition, tmp_path, device=device)
    before = everything(learner)
    train(learner, callback_name, condition)
    starts, ends, averages, n_taken, terms = run_plain_loop(callback_name, condition, learner, device)
    probe = learner.probe
    tolerance = tolerance_for(condition)
    # weights and statistics (their count too) at every batch
    for actual, expected in zip(learner.starts.states, starts):
        if expected is not None: assert_close(actual, expected, tolerance=tolerance)
    if condition == 'lr_find':
        assert torch.equal(everything(learner), before) and len(learner.recorder.lrs) == 12
        assert callback_name != 'EMA' or '_set_aside' not in learner.ema.__dict__
        files = list(tmp_path.glob(f'models/{callback_name.lower()}*'))
        assert callback_name not in ('Snapshots', 'Resume') or not files
        return
    for actual, expected in zip(probe.ends, ends, strict=True):
        assert_close(actual, expected, tolerance=tolerance)
    if condition != 'accumulation': assert probe.stepped == n_taken
    if 'inf' in condition:
        assert n_taken == len(starts) - 1
        assert probe.scales == [SCALE] * BLOWN + [SCALE / 2] * (len(starts) - BLOWN)
    final_state, best_epoch = state(learner.model), -1
    if callback_name in ('best model', 'fit_to_best'):
        judged_by_loop = averages if condition == 'EMA' else ends
        expected = [valid_loss(epoch_weights, device) for epoch_weights in judged_by_loop]
        recorded = [epoch_values[1] for epoch_values in learner.recorder.values]
        np.testing.assert_allclose(recorded, expected, rtol=1e-4 * tolerance)
        judged = [valid_loss(epoch_weights, device) for epoch_weights in probe.judged[:EPOCHS]]
        if callback_name == 'best model': judged = expected
        best_epoch = check_scores(callback_name, learner, judged)
    if 'EMA' in (callback_name, condition):
        assert_close(final_state, averages[best_epoch], averages[best_epoch], tolerance)
    elif callback_name == 'SWA': check_swa(learner, final_state, ends, device, tolerance)
    else: assert all(torch.equal(final_state[name], probe.ends[best_epoch][name]) for name in final_state)
    if callback_name == 'LossTerms':
        # of a step that is blown the loop sees no loss: not in that epoch
        expected = terms[PER_EPOCH - 1 if 'inf' in condition else 0:].reshape(-1, PER_EPOCH, 2).mean(1)
        shown = [epoch_values[-2:] for epoch_values in learner.recorder.values][-len(expected):]
        np.testing.assert_allclose(shown, expected, rtol=1e-4 * tolerance)
    if callback_name == 'Snapshots':
        assert len(learner.snapshots.files) == 1
        assert_close(torch.load(learner.snapshots.files[0], weights_only=True), final_state, tolerance=1e-6)
    if callback_name == 'Guard': assert learner.guard.bad == []
    if callback_name == 'Resume' or condition == 'resume':
        resumed = check_resumed(callback_name, condition, device, tmp_path, monkeypatch)
        assert_close(state(resumed.model), final_state, tolerance=1e-6 if device == 'cpu' else tolerance)


@pytest.mark.parametrize('callback_name, condition', REFUSED)
def test_refused(callback_name, condition):
    callbacks = [CALLBACKS[callback_name][0](), REFUSED[callback_name, condition]()]
    with pytest.raises(InputError): fit(make_learner(cbs=callbacks), 'fit', 2, LR)


def test_the_matrix_is_whole():
    assert {(name, condition) for name in CALLBACKS for condition in CONDITIONS} == {*CELLS, *SENSELESS}
    assert not set(CELLS) & set(SENSELESS) and all(SENSELESS.values())
    cells = [(name, condition) for i, name in enumerate(CALLBACKS) for j, condition in enumerate(CONDITIONS)
             if third(i, j)]
    shown = [cell for cell in cells if cell in CELLS]
    assert {name for name, _ in shown} == set(CALLBACKS)
    assert {condition for _, condition in shown} == set(CONDITIONS)
    assert len(shown) >= len(CELLS) * .3


def matched(listings, path, loss, callbacks=(), method_name='fit_flat_cos', **kwargs):
    "A matching learner, trained."
    learner = make_matcher(listings, path=path, cbs=[*L(callbacks), Ends()], head_func=TrackedHead,
                           loss_func=loss())
    fit(learner, method_name, 2, 1e-3, **kwargs)
    return learner


class Ends(Callback):
    "The live weights and all buffers at the ends of epochs."
    order = 30
    def before_fit(self): self.states = []
    def after_train(self): self.states.append(state(self.learn.model))


@pytest.mark.parametrize('callback_name', CALLBACKS)
def test_with_match_learner(callback_name, listings, tmp_path):
    """Under heads that keep track of the training.

    Callbacks that only watch leave weights as they are to the bit; others move statistics as often as the
    base.
    """
    callback = CALLBACKS[callback_name][0]()
    if callback_name == 'best model':
        callback = [SaveModelCallback('recall@1'), EarlyStoppingCallback('recall@1')]
    if callback_name in ('FGM', 'PGD'): callback.names = ('conv_stem',)
    loss = CurricularFace if callback_name != 'LossTerms' else lambda: SumLoss({'softmax': CurricularFace()})
    fit_options = {}
    if callback_name == 'fit_to_best': fit_options = dict(method_name='fit_to_best', monitor='recall@1')
    plain = matched(listings, tmp_path/'plain', loss)
    learner = matched(listings, tmp_path/'cb', loss, callback, **fit_options)
    expected = plain.ends.states[len(learner.ends.states) - 1]
    actual = learner.ends.states[-1]
    unchanged = all(torch.equal(expected[name], actual[name]) for name in expected)
    watching = ('Guard', 'EMA', 'SWA', 'Snapshots', 'Resume', 'LossTerms', 'fit_to_best', 'best model')
    assert unchanged == (callback_name in watching)
    assert all(torch.isfinite(value).all() for value in actual.values())
    count_names = [name for name in expected if name.endswith('num_batches_tracked')]
    assert count_names and all(expected[name] == actual[name] > 0 for name in count_names)
    embedded = learner.embeddings()
    assert np.isfinite(embedded['image']).all() and learner.trained_on.ids
