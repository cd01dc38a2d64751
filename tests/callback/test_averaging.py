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
from tests.callback.small import BS, N, Net, data, everything, fit, make_learner, net, weights


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
    plain = make_learner(opt_func=opt_func, cbs=Trace())
    fit(plain, 'fit', 3, .05)
    learner = make_learner(opt_func=opt_func, cbs=[EMA(.8), Trace()])
    start = floats(learner.model)
    fit(learner, 'fit', 3, .05)
    for expected, actual in zip(plain.trace.steps, learner.trace.steps, strict=True):
        assert torch.equal(expected, actual)
    average = start
    n_steps = 0
    for epoch in range(3):
        for live in learner.trace.steps[epoch * N // BS:(epoch + 1) * N // BS]:
            n_steps += 1
            decay = min(.8, (1 + n_steps) / (10 + n_steps))
            average = decay * average + (1 - decay) * live
        torch.testing.assert_close(learner.trace.valid[epoch], average, rtol=1e-5, atol=1e-6)
        if epoch: assert torch.equal(learner.trace.begun[epoch], learner.trace.steps[epoch * N // BS - 1])
    # and it stays, for export; what isn't floating point is the model's
    assert torch.equal(floats(learner.model), learner.trace.valid[-1])
    assert learner.model.body[1].num_batches_tracked == 3 * N // BS


def test_ema_without_memory_is_the_model():
    learner = make_learner(cbs=[EMA(0., warmup=False), Trace()])
    fit(learner, 'fit', 2, .05)
    torch.testing.assert_close(floats(learner.model), learner.trace.steps[-1], rtol=1e-6, atol=1e-7)


def test_ema_leaves_out_skipped_steps():
    class Skip(Callback):
        run_valid = False
        def before_step(self):
            if self.iter % 2: raise CancelStepException
    learner = make_learner(cbs=[EMA(.5, warmup=False), Skip(), Trace()])
    start = floats(learner.model)
    fit(learner, 'fit', 1, .05)
    average = start
    # a skipped step fires `after_step` all the same
    for live in learner.trace.steps[::2]: average = .5 * (average + live)
    assert len(learner.trace.steps) == N // BS and learner.ema._n_averaged == N // BS // 2
    torch.testing.assert_close(floats(learner.model), average, rtol=1e-5, atol=1e-6)


def test_the_next_fit_goes_on_from_the_live_weights():
    in_one_fit = make_learner(cbs=[EMA(.8), Trace()])
    fit(in_one_fit, 'fit', 4, .05)
    in_two_fits = make_learner(cbs=[EMA(.8), Trace()])
    fit(in_two_fits, 'fit', 2, .05)
    live = in_two_fits.trace.steps[-1]
    fit(in_two_fits, 'fit', 2, .05)
    assert torch.equal(in_two_fits.trace.begun[0], live)
    assert torch.equal(floats(in_one_fit.model), floats(in_two_fits.model))


def test_ema_starts_anew_from_loaded_weights(tmp_path):
    learner = make_learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    learner.save('start')
    fit(learner, 'fit', 2, .05)
    learner.load('start', with_opt=False)
    start = floats(learner.model)
    fit(learner, 'fit', 1, .05)
    assert torch.equal(learner.trace.begun[0], start) and learner.ema._n_averaged == N // BS


def test_lone_validation_and_lr_find_change_nothing(tmp_path):
    learner = make_learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    fit(learner, 'fit', 2, .05)
    before = everything(learner)
    set_aside = [tensor.clone() for tensor in learner.ema._set_aside]
    fit(learner, 'validate')
    fit(learner, 'lr_find', show_plot=False, num_it=8)
    assert torch.equal(everything(learner), before)
    assert all(map(torch.equal, learner.ema._set_aside, set_aside))
    assert learner.ema._n_averaged == 2 * N // BS
    score = fit(learner, 'validate')
    learner.remove_cb(EMA)
    assert score == fit(learner, 'validate')


def test_the_best_model_that_is_saved_is_the_average(tmp_path):
    learner = make_learner(cbs=[EMA(.8), Trace()], path=tmp_path)
    fit(learner, 'fit', 3, .05, cbs=SaveModelCallback('valid_loss'))
    best_epoch = int(np.argmin([row[1] for row in learner.recorder.values]))
    torch.testing.assert_close(floats(learner.model), learner.trace.valid[best_epoch], rtol=0, atol=0)


def test_what_is_exported_is_the_average(tmp_path):
    learner = make_learner(cbs=[EMA(.8), SAM(.1), Snapshots(), Guard()], path=tmp_path)
    fit(learner, 'fit', 2, .05)
    expected = everything(learner)
    learner.export('x.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert torch.equal(everything(load_learner(tmp_path/'x.pkl')), expected)


def test_torchs_own_loader():
    items = data()
    train_loader, valid_loader = (torch.utils.data.DataLoader(items, BS) for _ in range(2))
    dls = DataLoaders(train_loader, valid_loader, device='cpu')
    torch.manual_seed(0)
    learner = Learner(dls, Net(0.), CrossEntropyLossFlat(), opt_func=sgd, wd=0., cbs=[SWA(0.), Guard()])
    fit(learner, 'fit', 2, .05)
    plain_learner = make_learner(net(0.), cbs=SWA(0.))
    fit(plain_learner, 'fit', 2, .05)
    torch.testing.assert_close(everything(learner), everything(plain_learner))


def naive_statistics(learner, batches):
    "Mean over batches of BatchNorm's input statistics without dropout; unbiased variance, as BatchNorm's."
    statistics = []

    def note(module, args): statistics.append((args[0].mean((0, 2, 3)), args[0].var((0, 2, 3))))
    hook = learner.model.body[1].register_forward_pre_hook(note)
    learner.model.eval()
    with torch.no_grad():
        for inputs in batches: learner.model(*inputs)
    hook.remove()
    return [torch.stack(statistic).mean(0) for statistic in zip(*statistics)]


def test_swa_is_the_mean_of_the_last_epochs():
    plain = make_learner(cbs=Trace())
    fit(plain, 'fit', 4, .05)
    learner = make_learner(cbs=[SWA(.5), Trace()])
    fit(learner, 'fit', 4, .05)
    for expected, actual in zip(plain.trace.steps, learner.trace.steps, strict=True):
        assert torch.equal(expected, actual)
    n_weights = sum(weight.numel() for weight in learner.model.parameters())
    expected = torch.stack(learner.trace.done[2:]).mean(0)[:n_weights]
    torch.testing.assert_close(weights(learner).double(), expected, rtol=1e-5, atol=1e-6)
    # judged once, at the end, with statistics of its own
    assert torch.equal(learner.trace.valid[2], learner.trace.done[2])
    assert torch.equal(learner.trace.valid[3], floats(learner.model))
    images = torch.stack([image for image, _ in data()])
    mean, variance = naive_statistics(learner, [(batch,) for batch in images.split(BS)])
    torch.testing.assert_close(learner.model.body[1].running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(learner.model.body[1].running_var, variance, rtol=1e-5, atol=1e-6)


def test_swa_leaves_still_statistics_alone():
    learner = make_learner(cbs=[SWA(0.), Still()])
    learner.freeze()
    before = learner.model.body[1].running_mean.clone()
    fit(learner, 'fit', 2, .05)
    assert torch.equal(learner.model.body[1].running_mean, before) and learner.swa._n_averaged == 2


def test_options_are_checked():
    for make_callback in (lambda: EMA(1.), lambda: SWA(1.), lambda: SWA(-.1)):
        with pytest.raises(InputError): make_callback()
    assert net(0.).body[1].momentum == .1
