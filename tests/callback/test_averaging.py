"Averages against their own sums: EMA, SWA, snapshots, checkpoints and soups; what is in the model when."
import warnings

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelStepException
from fastai.callback.tracker import SaveModelCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat

from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.guard import Guard
from fastmatch.callback.sharpness import SAM
from fastmatch.callback.snapshots import Snapshots
from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import Still
from tests.callback.small import BS, N, Net, data, everything, fit, learner, net, weights


def floats(model):
    "Weights and floating-point buffers as one float64 vector."
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    return torch.cat([tensor.detach().flatten().double() for tensor in (*model.parameters(), *buffers)])


class Trace(Callback):
    "Weights and float buffers after each step, and what is in the model at each event that follows an epoch."
    order = 45  # after averages have swapped
    def before_fit(self):
        self.steps = []
        self.valid = []
        self.begun = []
        self.done = []

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
    for want, got in zip(plain.trace.steps, learn.trace.steps, strict=True): assert torch.equal(want, got)
    average = start
    t = 0
    for epoch in range(3):
        for live in learn.trace.steps[epoch * N // BS:(epoch + 1) * N // BS]:
            t += 1
            decay = min(.8, (1 + t) / (10 + t))
            average = decay * average + (1 - decay) * live
        torch.testing.assert_close(learn.trace.valid[epoch], average, rtol=1e-5, atol=1e-6)
        if epoch: assert torch.equal(learn.trace.begun[epoch], learn.trace.steps[epoch * N // BS - 1])
    # and it stays, for export; what isn't floating point is the model's
    assert torch.equal(floats(learn.model), learn.trace.valid[-1])
    assert learn.model.body[1].num_batches_tracked == 3 * N // BS


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
    average = start
    # a skipped step fires `after_step` all the same
    for live in learn.trace.steps[::2]: average = .5 * (average + live)
    assert len(learn.trace.steps) == N // BS and learn.ema._n_averaged == N // BS // 2
    torch.testing.assert_close(floats(learn.model), average, rtol=1e-5, atol=1e-6)


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
    before = everything(learn)
    aside = [tensor.clone() for tensor in learn.ema._set_aside]
    fit(learn, 'validate')
    fit(learn, 'lr_find', show_plot=False, num_it=8)
    assert torch.equal(everything(learn), before) and all(map(torch.equal, learn.ema._set_aside, aside))
    assert learn.ema._n_averaged == 2 * N // BS
    score = fit(learn, 'validate')
    learn.remove_cb(EMA)
    assert score == fit(learn, 'validate')


def test_the_best_model_that_is_saved_is_the_average(tmp_path):
    learn = learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    fit(learn, 'fit', 3, .05, cbs=SaveModelCallback('valid_loss'))
    best = int(np.argmin([row[1] for row in learn.recorder.values]))
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
    train, valid = (torch.utils.data.DataLoader(items, BS) for _ in range(2))
    dls = DataLoaders(train, valid, device='cpu')
    torch.manual_seed(0)
    learn = Learner(dls, Net(0.), CrossEntropyLossFlat(), opt_func=sgd, wd=0., cbs=[SWA(0.), Guard()])
    fit(learn, 'fit', 2, .05)
    same = learner(net(0.), cbs=SWA(0.))
    fit(same, 'fit', 2, .05)
    torch.testing.assert_close(everything(learn), everything(same))


def naive_statistics(learn, batches):
    "Mean over batches of BatchNorm's input statistics without dropout; unbiased variance, as BatchNorm's."
    seen = []

    def note(module, args): seen.append((args[0].mean((0, 2, 3)), args[0].var((0, 2, 3))))
    hook = learn.model.body[1].register_forward_pre_hook(note)
    learn.model.eval()
    with torch.no_grad():
        for inputs in batches: learn.model(*inputs)
    hook.remove()
    return [torch.stack(statistic).mean(0) for statistic in zip(*seen)]


def test_swa_is_the_mean_of_the_last_epochs():
    plain = learner(cbs=Trace())
    fit(plain, 'fit', 4, .05)
    learn = learner(cbs=[SWA(.5), Trace()])
    fit(learn, 'fit', 4, .05)
    for want, got in zip(plain.trace.steps, learn.trace.steps, strict=True): assert torch.equal(want, got)
    n = sum(weight.numel() for weight in learn.model.parameters())
    want = torch.stack(learn.trace.done[2:]).mean(0)[:n]
    torch.testing.assert_close(weights(learn).double(), want, rtol=1e-5, atol=1e-6)
    # judged once, at the end, with statistics of its own
    assert torch.equal(learn.trace.valid[2], learn.trace.done[2])
    assert torch.equal(learn.trace.valid[3], floats(learn.model))
    images = torch.stack([image for image, _ in data()])
    mean, var = naive_statistics(learn, [(batch,) for batch in images.split(BS)])
    torch.testing.assert_close(learn.model.body[1].running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(learn.model.body[1].running_var, var, rtol=1e-5, atol=1e-6)


def test_swa_leaves_still_statistics_alone():
    learn = learner(cbs=[SWA(0.), Still()])
    learn.freeze()
    before = learn.model.body[1].running_mean.clone()
    fit(learn, 'fit', 2, .05)
    assert torch.equal(learn.model.body[1].running_mean, before) and learn.swa._n_averaged == 2


def test_options_are_checked():
    for bad in (lambda: EMA(1.), lambda: SWA(1.), lambda: SWA(-.1)):
        with pytest.raises(InputError): bad()
    assert net(0.).body[1].momentum == .1
