"Averages against their own sums: EMA, SWA, snapshots, checkpoints and soups; what is in the model when."
import warnings

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from torch import nn

from fastmatch.callback.averaging import EMA, SWA, Snapshots, update_bn
from fastmatch.callback.guard import Guard
from fastmatch.callback.resume import Resume
from fastmatch.callback.sharpness import SAF, SAM
from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import Still
from tests.callback.small import BS, Items, N, Net, data, everything, fit, learner, net, weights


def floats(model): return torch.cat([v.detach().flatten().double() for v in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point()))])


class Trace(Callback):
    "Weights and float buffers after each step, and what is in the model at each event that follows an epoch."
    order = 45  # after averages have swapped
    def before_fit(self): self.steps, self.valid, self.begun, self.done = [], [], [], []
    def after_step(self): self.steps.append(floats(self.learn.model))
    def before_train(self): self.begun.append(floats(self.learn.model))
    def after_train(self): self.done.append(floats(self.learn.model))
    def before_validate(self): self.valid.append(floats(self.learn.model))


@pytest.mark.parametrize('opt_func', [sgd, ranger])
def test_ema_is_the_average_and_the_training_is_not_touched(opt_func):
    plain = learner(opt_func=opt_func, cbs=Trace())
    fit(plain, 'fit', 3, .05)
    learn = learner(opt_func=opt_func, cbs=[EMA(.8), Trace()])
    start = floats(learn.model)
    fit(learn, 'fit', 3, .05)
    for a, b in zip(plain.trace.steps, learn.trace.steps, strict=True): assert torch.equal(a, b)
    avg, t = start, 0
    for epoch in range(3):
        for w in learn.trace.steps[epoch * N // BS:(epoch + 1) * N // BS]:
            t += 1
            d = min(.8, (1 + t) / (10 + t))
            avg = d * avg + (1 - d) * w
        torch.testing.assert_close(learn.trace.valid[epoch], avg, rtol=1e-5, atol=1e-6)
        if epoch: torch.testing.assert_close(learn.trace.begun[epoch], learn.trace.steps[epoch * N // BS - 1], rtol=0, atol=0)
    # and it stays, for export; what isn't floating point is the model's
    assert torch.equal(floats(learn.model), learn.trace.valid[-1]) and learn.model.body[1].num_batches_tracked == 3 * N // BS


def test_ema_without_memory_is_the_model():
    learn = learner(cbs=[EMA(0., warmup=False), Trace()])
    fit(learn, 'fit', 2, .05)
    torch.testing.assert_close(floats(learn.model), learn.trace.steps[-1], rtol=1e-6, atol=1e-7)


def test_ema_leaves_out_skipped_steps():
    class Skip(Callback):
        run_valid = False
        def before_step(self):
            if self.iter % 2: raise CancelStepException
    learn = learner(cbs=[EMA(.5, warmup=False), Skip(), Trace()])
    start = floats(learn.model)
    fit(learn, 'fit', 1, .05)
    avg = start
    # a skipped step fires `after_step` all the same
    for w in learn.trace.steps[::2]: avg = .5 * (avg + w)
    assert len(learn.trace.steps) == N // BS and learn.ema._n_averaged == N // BS // 2
    torch.testing.assert_close(floats(learn.model), avg, rtol=1e-5, atol=1e-6)


def test_the_next_fit_goes_on_from_the_live_weights():
    one = learner(cbs=[EMA(.8), Trace()])
    fit(one, 'fit', 4, .05)
    two = learner(cbs=[EMA(.8), Trace()])
    fit(two, 'fit', 2, .05)
    live = two.trace.steps[-1]
    fit(two, 'fit', 2, .05)
    assert torch.equal(two.trace.begun[0], live)
    assert torch.equal(floats(one.model), floats(two.model))


def test_ema_starts_anew_from_loaded_weights(tmp_path):
    learn = learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    learn.save('start')
    fit(learn, 'fit', 2, .05)
    learn.load('start', with_opt=False)
    start = floats(learn.model)
    fit(learn, 'fit', 1, .05)
    assert torch.equal(learn.trace.begun[0], start) and learn.ema._n_averaged == N // BS


def test_lone_validation_and_lr_find_change_nothing(tmp_path):
    learn = learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    fit(learn, 'fit', 2, .05)
    before, other = everything(learn), [o.clone() for o in learn.ema._set_aside]
    fit(learn, 'validate')
    fit(learn, 'lr_find', show_plot=False, num_it=8)
    assert torch.equal(everything(learn), before) and all(torch.equal(a, b) for a, b in zip(learn.ema._set_aside, other)) and learn.ema._n_averaged == 2 * N // BS
    score = fit(learn, 'validate')
    learn.remove_cb(EMA)
    assert score == fit(learn, 'validate')


@pytest.mark.parametrize('make', [EMA, SWA, Snapshots, Resume, lambda: SAF(back=1)], ids=['EMA', 'SWA', 'Snapshots', 'Resume', 'SAF'])
def test_what_sits_out_lr_find_is_back_though_that_broke_off(make, tmp_path):
    class Break(Callback):
        order, run_valid = 999, False
        def __init__(self, cb): self.cb, self.seen, self.broken = cb, [], False
        def before_fit(self):
            self.seen.append(self.cb.run)
            if not self.broken:
                self.broken = True
                raise KeyboardInterrupt
        def before_batch(self): self.seen.append(self.cb.run)
    cb = make()
    stop = Break(cb)
    learn = learner(path=tmp_path, cbs=[cb, stop])
    with pytest.raises(KeyboardInterrupt): fit(learn, 'lr_find', show_plot=False, num_it=4)
    fit(learn, 'fit', 2, .01)
    assert stop.seen == [False] + [True] * (1 + 2 * N // BS)


def test_the_best_model_that_is_saved_is_the_average(tmp_path):
    learn = learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    fit(learn, 'fit', 3, .05, cbs=SaveModelCallback('valid_loss'))
    best = int(np.argmin([o[1] for o in learn.recorder.values]))
    torch.testing.assert_close(floats(learn.model), learn.trace.valid[best], rtol=0, atol=0)


def test_what_is_exported_is_the_average(tmp_path):
    learn = learner(cbs=[EMA(.8), SAM(.1), Snapshots(), Guard()], path=tmp_path)
    fit(learn, 'fit', 2, .05)
    want = everything(learn)
    learn.export('x.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert torch.equal(everything(load_learner(tmp_path/'x.pkl')), want)


def test_torchs_own_loader():
    items = data()
    dls = DataLoaders(torch.utils.data.DataLoader(items, BS), torch.utils.data.DataLoader(items, BS), device='cpu')
    torch.manual_seed(0)
    learn = Learner(dls, Net(0.), CrossEntropyLossFlat(), opt_func=sgd, wd=0., cbs=[SWA(0.), Guard()])
    fit(learn, 'fit', 2, .05)
    same = learner(net(0.), cbs=SWA(0.))
    fit(same, 'fit', 2, .05)
    torch.testing.assert_close(everything(learn), everything(same))


def naive_statistics(learn, batches):
    "Mean over batches of each BatchNorm's input statistics, dropout off; unbiased variance, as BatchNorm keeps it."
    m, seen = learn.model.body[1], []
    hook = m.register_forward_pre_hook(lambda m, args: seen.append((args[0].mean((0, 2, 3)), args[0].var((0, 2, 3)))))
    learn.model.eval()
    with torch.no_grad():
        for xb in batches: learn.model(*xb)
    hook.remove()
    return [torch.stack(o).mean(0) for o in zip(*seen)]


def test_swa_is_the_mean_of_the_last_epochs():
    plain = learner(cbs=Trace())
    fit(plain, 'fit', 4, .05)
    learn = learner(cbs=[SWA(.5), Trace()])
    fit(learn, 'fit', 4, .05)
    for a, b in zip(plain.trace.steps, learn.trace.steps, strict=True): assert torch.equal(a, b)
    n = sum(p.numel() for p in learn.model.parameters())
    want = torch.stack(learn.trace.done[2:]).mean(0)[:n]
    torch.testing.assert_close(weights(learn).double(), want, rtol=1e-5, atol=1e-6)
    # judged once, at the end, with statistics of its own
    assert torch.equal(learn.trace.valid[2], learn.trace.done[2]) and torch.equal(learn.trace.valid[3], floats(learn.model))
    items = data()
    mean, var = naive_statistics(learn, [(torch.stack([x for x, _ in items[i:i + BS]]),) for i in range(0, N, BS)])
    torch.testing.assert_close(learn.model.body[1].running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(learn.model.body[1].running_var, var, rtol=1e-5, atol=1e-6)


class Pair(nn.Module):
    "Two inputs, and a norm that only training passes through."
    def __init__(self):
        super().__init__()
        self.body, self.aux = Net(0.).body, nn.BatchNorm1d(36)
        self.head = nn.Linear(41, 3)
    def forward(self, x, t):
        x = self.body(x)
        return self.head(torch.cat([self.aux(x) if self.training else x, t], 1))
    def param_groups(self): return {'all': list(self.parameters())}


def test_bn_update_reads_every_input_and_leaves_no_trace():
    torch.manual_seed(0)
    items = Items([(x, torch.randn(5), y) for x, y in data()])
    dls = DataLoaders(DataLoader(items, bs=BS, shuffle=True), DataLoader(items, bs=BS), device='cpu')
    dls.n_inp = 2
    learn = Learner(dls, Pair(), CrossEntropyLossFlat(), opt_func=sgd, wd=0.)
    fit(learn, 'fit', 1, .05)
    learn.model.train()
    aux, rng, shuffled = learn.model.aux.running_mean.clone(), torch.get_rng_state(), dls.train.rng.getstate()
    update_bn(learn)
    assert torch.equal(torch.get_rng_state(), rng) and dls.train.rng.getstate() == shuffled
    assert torch.equal(learn.model.aux.running_mean, aux) and learn.model.training and learn.model.body[1].momentum == .1
    mean = learn.model.body[1].running_mean.clone()
    torch.testing.assert_close(mean, naive_statistics(learn, [(b[0], b[1]) for b in dls.train.new(shuffle=False)])[0], rtol=1e-5, atol=1e-6)


def test_swa_leaves_still_statistics_alone():
    learn = learner(cbs=[SWA(0.), Still()])
    learn.freeze()
    before = learn.model.body[1].running_mean.clone()
    fit(learn, 'fit', 2, .05)
    assert torch.equal(learn.model.body[1].running_mean, before) and learn.swa._n_averaged == 2


def test_snapshots_at_the_ends_of_cycles(tmp_path):
    learn = learner(cbs=[Snapshots(), Trace()], path=tmp_path)
    fit(learn, 'fit_cycles', 3, 1, .05, warmup=1)
    files = learn.snapshots.files
    assert [o.name for o in files] == ['snapshot_0.pth', 'snapshot_1.pth', 'snapshot_2.pth']
    own = everything(learn)
    for i, o in enumerate(learn.each_weights(files)): torch.testing.assert_close(floats(o.model), learn.trace.done[i + 1], rtol=0, atol=0)
    assert torch.equal(everything(learn), own)
    # a warm-up and one fall are one cycle
    fit(learn, 'fit_flat_cos', 2, .05, warmup=.5)
    assert len(learn.snapshots.files) == 1


@pytest.mark.parametrize('make', [lambda: EMA(.7), lambda: SWA(.5)], ids=['EMA', 'SWA'])
def test_snapshots_beside_an_average(make, tmp_path):
    "The live weights at the ends of cycles, the average in the last file."
    learn = learner(cbs=[make(), Snapshots(), Trace()], path=tmp_path)
    fit(learn, 'fit_cycles', 3, 1, .05)
    *files, last = [floats(o.model) for o in learn.each_weights(learn.snapshots.files)]
    assert len(files) == 2 and all(map(torch.equal, files, learn.trace.done)) and torch.equal(last, floats(learn.model)) and not torch.equal(last, learn.trace.done[2])


def test_average_of_checkpoints_and_a_greedy_soup(tmp_path):
    learn = learner(path=tmp_path)
    files, flat = [], []
    for i in range(3):
        fit(learn, 'fit', 1, .05)
        files.append(learn.save(f'c{i}', with_opt=i == 1))
        flat.append(weights(learn).double())
    # one that spoils every mean it is in
    with torch.no_grad():
        for p in learn.model.parameters(): p.copy_(torch.randn_like(p) * 3)
    bad = learn.save('bad', with_opt=False)
    learn.average_weights(files)
    torch.testing.assert_close(weights(learn).double(), torch.stack(flat).mean(0), rtol=1e-6, atol=1e-7)
    kept, score = fit(learn, 'greedy_soup', [bad, *files])
    assert bad not in kept and kept and abs(float(fit(learn, 'validate')[0]) - score) < 1e-6
    alone = []
    for _ in learn.each_weights([bad, *files]): alone.append(float(fit(learn, 'validate')[0]))
    assert [bad, *files][int(np.argmin(alone))] == kept[0]
    # nor do weights that are not finite, wherever they stand
    with torch.no_grad(): learn.model.head.bias.fill_(float('nan'))
    lost = learn.save('lost', with_opt=False)
    for i in range(4): assert fit(learn, 'greedy_soup', [*files[:i], lost, *files[i:]]) == fit(learn, 'greedy_soup', files)
    with pytest.raises(InputError, match='valid_loss is NaN with each of 2 files'): fit(learn, 'greedy_soup', [lost, lost])
    with pytest.raises(InputError, match='records'): fit(learn, 'greedy_soup', files, monitor='recall')
    with pytest.raises(InputError, match='no files'): learn.average_weights([])


def test_options_are_checked():
    for bad in (lambda: EMA(1.), lambda: SWA(1.), lambda: SWA(-.1)):
        with pytest.raises(InputError): bad()
    assert net(0.).body[1].momentum == .1
