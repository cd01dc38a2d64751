"Mean teacher: a whole training against a plain loop, what is drawn, and what it can't go with."
import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.load import DataLoader

from fastmatch.callback.adversarial import FGM
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.mean_teacher import MeanTeacher, TwoViews, consistency, ramp_up
from fastmatch.callback.mix import MixUp
from fastmatch.callback.sharpness import SAM
from fastmatch.core import HeadOutput, InputError
from fastmatch.layers.heads import TrackedHead
from fastmatch.optim import sgd
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import amp, data, everything, fit, make_learner, net
from tests.learner.small import make as make_matcher
from tests.semi.small import make as make_classifier
from tests.semi.small import make_dls


def unlabelled(n_items=12, bs=4, seed=5): return DataLoader(data(n_items, seed), bs=bs)


def taught(*cbs, dl=None, model=None, decay=.7, **kwargs):
    options = {name: kwargs.pop(name) for name in ('weight', 'ramp', 'distance', 'bs') if name in kwargs}
    callbacks = [EMA(decay, warmup=False), MeanTeacher(unlabelled() if dl is None else dl, **options), *cbs]
    return make_learner(net(dropout=0.) if model is None else model, sgd, cbs=callbacks, **kwargs)


def test_the_distances():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(5, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    p, q = (np.exp(each.numpy()) / np.exp(each.numpy()).sum(1, keepdims=True) for each in (ours, theirs))
    expected = ((p - q)**2).sum(1).mean()
    assert float(consistency(ours, theirs, 'probabilities')) == pytest.approx(expected, 1e-5)
    assert float(consistency(ours, ours, 'probabilities')) == 0
    a, b = ours.numpy(), theirs.numpy()
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    heads = [{'one': HeadOutput(each.tanh(), each), 'two': HeadOutput(each.cos(), -each)}
             for each in (ours, theirs)]
    assert float(consistency(*heads, 'embeddings')) == pytest.approx((1 - cosines).mean(), 1e-5)
    scaled = [each.tanh() * math.sqrt(2) * math.log(6) for each in (ours, theirs)]
    one = [each['one'] for each in heads]
    expected = float(consistency(*scaled, 'probabilities'))
    assert float(consistency(*one, 'probabilities')) == pytest.approx(expected, 1e-5)
    with pytest.raises(InputError, match='the model returned Tensor, which has none'):
        consistency(ours, theirs, 'embeddings')


def test_the_ramp():
    assert ramp_up(0) == pytest.approx(math.exp(-5)) and ramp_up(.5) == pytest.approx(math.exp(-1.25))
    assert ramp_up(1) == ramp_up(3) == 1.


def reference(epochs, rate, weight, ramp, decay):
    "Student and teacher after a training by hand: two losses, one step of SGD, the average moved."
    student = net(dropout=0.).train()
    teacher = copy.deepcopy(student)
    labelled, others = data(24), data(12, 5)
    seen = []
    for epoch in range(epochs):
        for batch in range(6):
            number, place = divmod(batch, 3)
            order = np.random.default_rng([0, epoch, number]).permutation(12)[4 * place:4 * place + 4]
            pictures = torch.stack([others[row][0] for row in order])
            images, labels = map(torch.stack, zip(*labelled[4 * batch:4 * batch + 4]))
            loss = F.cross_entropy(student(images), labels)
            with torch.no_grad(): theirs = copy.deepcopy(teacher)(pictures).softmax(1)
            progress = (epoch * 6 + batch) / (epochs * 6) / ramp
            term = ((student(pictures).softmax(1) - theirs)**2).sum(1).mean()
            term = weight * math.exp(-5 * (1 - min(1., progress))**2) * term
            seen.append(float(term.detach()))
            gradients = torch.autograd.grad(loss + term, list(student.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(student.parameters(), gradients): parameter -= rate * gradient
                for ours, average in zip(student.state_dict().values(), teacher.state_dict().values()):
                    if average.is_floating_point(): average.mul_(decay).add_(ours, alpha=1 - decay)
    return student, teacher, seen


def test_a_whole_training_by_hand():
    "BatchNorm included: the teacher's statistics are the average of the student's alone."
    learner = taught(weight=4., ramp=.5)
    fit(learner, 'fit', 3, .1)
    student, teacher, seen = reference(3, .1, 4., .5, .7)
    for expected, trained in zip(student.parameters(), learner.ema._set_aside):
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)
    for name, value in learner.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, teacher.state_dict()[name], rtol=1e-4, atol=1e-6)
    # the term in the table, beside a loss that contains it
    assert list(learner.recorder.metric_names)[3] == 'consistency'
    shown = [row[2] for row in learner.recorder.values]
    np.testing.assert_allclose(shown, np.reshape(seen, (3, 6)).mean(1), rtol=1e-4)
    assert not len(learner.metrics)


def test_without_weight_nothing_changes():
    plain = make_learner(net(dropout=0., norm=False), sgd, cbs=EMA(.7, warmup=False))
    fit(plain, 'fit', 2, .1)
    weightless = taught(weight=0., model=net(dropout=0., norm=False))
    fit(weightless, 'fit', 2, .1)
    torch.testing.assert_close(everything(weightless), everything(plain), rtol=0, atol=0)


class BatchLosses(Callback):
    order, run_valid = 45, False
    def before_fit(self): self.seen = []
    def after_loss(self): self.seen.append((float(self.learn.loss), float(self.learn.loss_grad)))


def test_dropout_is_drawn_twice():
    "Before the first step student and teacher are the same weights: only the draws set them apart."
    for dropout, apart in ((0., False), (.5, True)):
        learner = taught(model=net(dropout=dropout, norm=False), ramp=0.)
        fit(learner, 'fit', 1, 0.)
        assert (learner.recorder.values[0][2] > 1e-4) == apart


def test_accumulation_scales_the_term_too():
    learner = taught(GradientAccumulation(8), BatchLosses(), ramp=0.)
    fit(learner, 'fit', 1, .1)
    np.testing.assert_allclose([gradient for _, gradient in learner.batch_losses.seen],
                               [loss / 2 for loss, _ in learner.batch_losses.seen], rtol=1e-5)


@pytest.mark.parametrize('mode', ['fp16', 'bf16'])
def test_half_precision_and_mixing(mode):
    learner = taught(amp(mode), MixUp(), ramp=0.)
    fit(learner, 'fit', 2, .05)
    assert np.isfinite(learner.recorder.values[-1]).all() and learner.recorder.values[-1][2] > 0


def test_both_views_are_of_the_same_items():
    items = [(torch.tensor([float(number)]), torch.tensor(0)) for number in range(10)]
    views = TwoViews(DataLoader(items, bs=3, shuffle=True, drop_last=True), 1)
    views.start_epoch(2)
    drawn = [views.next_batches(1, 'cpu') for _ in range(6)]
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in drawn)
    passes = [torch.cat([ours[0] for ours, _ in drawn[start:start + 3]]).flatten().tolist()
              for start in (0, 3)]
    assert all(len(set(each)) == 9 for each in passes) and passes[0] != passes[1]
    again = TwoViews(DataLoader(items, bs=3, shuffle=True, drop_last=True), 1)
    again.start_epoch(2)
    assert torch.equal(again.next_batches(1, 'cpu')[0][0], drawn[0][0][0])


class SecondLoader(Callback):
    "Notes what the second loader gives."
    order, run_valid = 3, False
    def before_train(self): self.pairs = self.learn.mean_teacher._views


def test_items_of_a_classifier():
    "By default all items but those of the validation, each augmented twice."
    dls = make_dls(sampler='weighted')
    learner = make_classifier(dls, cbs=[EMA(.9), MeanTeacher(ramp=0.), SecondLoader()])
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    items = learner.second_loader.pairs.loaders[0].items
    assert set(items.posting_id) == set(dls.train_df.posting_id) | set(dls.unlabelled.posting_id)
    assert np.isfinite(learner.recorder.values[0]).all()
    augmented = make_dls(batch_tfms=None, item_tfms=[make_resize()])
    learner = make_classifier(augmented, cbs=[EMA(.9), MeanTeacher(ramp=0.), SecondLoader()])
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    views = learner.second_loader.pairs
    views.start_epoch(0)
    ours, theirs = views.next_batches(1, 'cpu')
    assert ours[0].shape == theirs[0].shape and not torch.equal(ours[0], theirs[0])
    # the learner can be saved and used without it
    assert len(learner.predictions()) == len(augmented.valid_df)
    state = learner.mean_teacher.__getstate__()
    assert state['dl'] is state['_views'] is state['_average'] is None


def make_resize():
    from fastai.vision.augment import RandomResizedCrop
    return RandomResizedCrop(32, min_scale=.3)


def test_matching_compares_embeddings(listings, tmp_path):
    learner = make_matcher(listings, path=tmp_path, cbs=[EMA(.9), MeanTeacher(ramp=0.)])
    with learner.no_bar(), learner.no_logging():
        learner.lr_find(num_it=3, show_plot=False, suggest_funcs=())
        learner.fit(1, 1e-3)
    assert learner.mean_teacher._distance == 'embeddings'
    place = list(learner.recorder.metric_names).index('consistency') - 1
    assert 0 < learner.recorder.values[0][place] < 20


def test_what_it_cannot_go_with(listings, tmp_path):
    def refused(match, learner):
        with pytest.raises(InputError, match=match): fit(learner, 'fit', 1, .05)
    for second_pass in (SAM(.1), FGM(.5, 'body.0.weight')):
        refused('the second pass would leave the consistency out', taught(second_pass))
    refused(r'add EMA\(.99\)', make_learner(net(), cbs=MeanTeacher(unlabelled())))
    refused(r'add EMA\(.99\)', make_learner(net(), cbs=[SWA(), MeanTeacher(unlabelled())]))
    refused('two of MeanTeacher', taught(MeanTeacher(unlabelled())))
    refused('give the loader of the items', make_learner(net(), cbs=[EMA(), MeanTeacher()]))
    refused('3 items do not fill a batch of 4', taught(dl=unlabelled(3)))
    dls = make_dls()
    refused('dl holds .* items of the validation', make_classifier(dls, cbs=[EMA(), MeanTeacher(dls.valid)]))
    refused('the head reads the labels',
            make_matcher(listings, path=tmp_path, head_func=TrackedHead, cbs=[EMA(), MeanTeacher()]))
    twice = make_classifier(dls, cbs=[EMA(), MeanTeacher(), MeanTeacher()])
    refused('MeanTeacher: this learner has one already', twice)
    for options in ({'weight': -1}, {'ramp': 2.}, {'distance': 'far'}, {'bs': 1}):
        with pytest.raises(InputError, match=f'{next(iter(options))}='): MeanTeacher(unlabelled(), **options)
