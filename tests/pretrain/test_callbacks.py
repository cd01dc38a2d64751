"Whole trainings: a column for each objective, copies that move with the steps, SAM, accumulation, resuming."
import contextlib

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException, CancelStepException
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import SGD, Adam

from fastmatch.callback.averaging import EMA
from fastmatch.callback.second_pass import SecondPass
from fastmatch.callback.sharpness import SAM
from fastmatch.callback.state import learner_state, set_learner_state
from fastmatch.core import InputError
from fastmatch.pretrain import PretrainNet, WeightedTerms, make_objectives
from fastmatch.pretrain.callbacks import MomentumUpdate, ObjectiveTerms
from fastmatch.schedule.batches import GradientAccumulation
from tests.callback.small import amp
from tests.pretrain.small import Net, batch, tokenizer

WEIGHTS = {'mlm': .8, 'mfm': .33, 'itm': 1., 'itc': 1.}


class Items(list):
    "A list that `export` can empty."
    def new_empty(self): return Items()


def items(n_items, seed):
    generator = torch.Generator().manual_seed(seed)
    n_frames = torch.randint(0, 4, (n_items,), generator=generator).tolist()
    n_frames[0] = 3
    lengths = torch.randint(0, 8, (n_items,), generator=generator).tolist()
    lengths[0] = 7
    whole = batch(n_frames, lengths, seed)
    return Items(zip(whole.frames, whole.has_frame.sum(1), whole.ids, torch.zeros(n_items)))


def learner(weights=WEIGHTS, options=None, bs=6, n_items=24, dropout=.1, lr=.01, negatives='roll', seed=0):
    net = Net(dropout=dropout, seed=seed)
    options = {'itc': {'queue': 10, 'dim': 8}, **({} if options is None else options)}
    if 'itm' in weights: options['itm'] = {'negatives': negatives}
    options = {name: own for name, own in options.items() if name in weights}
    objectives = make_objectives(weights, net, tokenizer(), options)
    loaders = [(items(n_items, 0), bs), (items(10, 1), 4)]
    dls = DataLoaders(*(DataLoader(some, bs=size, num_workers=0) for some, size in loaders), device='cpu')
    dls.n_inp = 3
    loss = WeightedTerms(objectives.weights)
    return Learner(dls, PretrainNet(net, objectives), loss, opt_func=SGD, lr=lr)


def fit(learn, n_epoch=1, cbs=()):
    torch.manual_seed(0)
    with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(None):
        learn.fit(n_epoch, cbs=list(cbs))
    return learn


class Batches(Callback):
    "Notes each batch's size, losses and weighted sum, by whether it is one of the training."
    order = 48
    def before_fit(self): self.seen = {True: [], False: []}
    def before_epoch(self): self.seen = {True: [], False: []}
    def after_loss(self):
        losses = {name: float(loss.detach()) for name, loss in self.pred.items()}
        self.seen[self.training].append((len(self.yb[0]), losses, float(self.loss.detach())))


def weights_of(learn): return torch.cat([weight.detach().flatten() for weight in learn.model.parameters()])


def test_each_loss_has_a_column_for_training_and_validation():
    learn = learner(bs=7)
    batches = Batches()
    fit(learn, 2, [batches, ObjectiveTerms()])
    names = ['train_mlm', 'train_mfm', 'train_itm', 'train_itc', 'mlm', 'mfm', 'itm', 'itc']
    # fastai's own columns come first: epoch, train_loss, valid_loss
    assert list(learn.recorder.metric_names[3:-1]) == names
    values = learn.recorder.values[-1]
    sizes = [size for size, _, _ in batches.seen[False]]
    assert sizes == [4, 4, 2]
    for training, prefix in ((True, 'train_'), (False, '')):
        for name in WEIGHTS:
            expected = np.average([losses[name] for _, losses, _ in batches.seen[training]],
                                  weights=[size for size, _, _ in batches.seen[training]])
            assert values[2 + names.index(prefix + name)] == pytest.approx(expected, rel=1e-5)
    for _, losses, total in batches.seen[True]:
        assert total == pytest.approx(sum(WEIGHTS[name] * losses[name] for name in WEIGHTS), rel=1e-5)
    # nothing is left behind
    assert len(learn.metrics) == 0


def test_validation_alone():
    learn = learner()
    with learn.no_bar(), learn.no_logging(): scores = learn.validate(cbs=[ObjectiveTerms(), MomentumUpdate()])
    assert len(scores) == 9
    assert list(scores)[1:5] == [0.] * 4 and all(score > 0 for score in list(scores)[5:])
    assert not int(learn.model.objectives.objectives['itc'].queue.n_pushed)


class Skip(Callback):
    "Skips some steps, as a loss scaler does."
    order = 20
    def __init__(self, steps): self.steps = steps
    def before_step(self):
        if self.iter in self.steps: raise CancelStepException


def test_copies_move_with_each_step_that_is_taken():
    learn = learner(weights={'itc': 1.}, options={'itc': {'queue': 10, 'dim': 8, 'momentum': .5}})
    itc = learn.model.objectives.objectives['itc']
    name = 'text_projection/weight'
    expected = itc.text_projection.weight.detach().double().clone()

    class Follow(Callback):
        order = 60
        def after_step(self):
            nonlocal expected
            if self.iter == 2: return
            expected = (expected + itc.text_projection.weight.detach().double()) / 2
    start = itc.text_projection.weight.detach().clone()
    fit(learn, 1, [MomentumUpdate(), Skip([2]), Follow()])
    assert int(itc.copies.n_moves) == 3
    assert not torch.equal(itc.copies.get_buffer(name), start)
    torch.testing.assert_close(itc.copies.get_buffer(name).double(), expected, rtol=1e-5, atol=1e-7)


def test_the_share_rises_within_the_first_epoch():
    learn = learner(weights={'itc': 1.})
    itc = learn.model.objectives.objectives['itc']
    seen = []

    class See(Callback):
        run_valid = False
        def after_pred(self): seen.append(float(itc.rise))
    fit(learn, 2, [MomentumUpdate(), See()])
    assert seen == [0., .25, .5, .75, 1., 1., 1., 1.]
    fit(learn, 1, [MomentumUpdate(), See()])
    assert seen[8:] == [1.] * 4


def test_accumulated_batches_are_one_step():
    learn = learner()
    fit(learn, 1, [MomentumUpdate(), ObjectiveTerms(), GradientAccumulation(12)])
    itc = learn.model.objectives.objectives['itc']
    assert int(itc.copies.n_moves) == 2
    # what was complete in each of four batches
    n_complete = sum(bool(n_frames > 0 and (ids != 0).any()) for _, n_frames, ids, _ in items(24, 0))
    assert int(itc.queue.n_pushed) == n_complete


class Twice(SecondPass):
    "Passes each step's batches again at the weights where they are."
    def before_fit(self):
        super().before_fit()
        self.pairs = []

    def change_gradients(self):
        weights, gradients = self.weights_and_gradients()
        first = [gradient.clone() for gradient in gradients]
        for weight in weights: weight.grad = None
        self.second_pass()
        self.pairs.append((first, [weight.grad for weight in weights]))
        for weight, gradient in zip(weights, first): weight.grad = gradient.clone()


@pytest.mark.parametrize('negatives', ['roll', 'hard'])
def test_a_second_pass_hides_and_draws_the_same(negatives):
    learn = learner(negatives=negatives)
    twice = Twice()
    fit(learn, 1, [MomentumUpdate(), twice])
    assert len(twice.pairs) == 4
    for first, second in twice.pairs:
        for gradient, again in zip(first, second): torch.testing.assert_close(again, gradient)
    # and nothing is pushed or moved twice: a training without it is the same
    plain = fit(learner(negatives=negatives), 1, [MomentumUpdate()])
    torch.testing.assert_close(weights_of(learn), weights_of(plain))
    for name, buffer in plain.model.named_buffers():
        torch.testing.assert_close(learn.model.get_buffer(name), buffer, msg=name)


def test_sam_trains():
    learn = learner()
    fit(learn, 4, [MomentumUpdate(), SAM(.05), GradientAccumulation(12), ObjectiveTerms()])
    assert weights_of(learn).isfinite().all()
    assert int(learn.model.objectives.objectives['itc'].copies.n_moves) == 8


@pytest.mark.parametrize('mode', ['bf16', 'fp16'])
def test_mixed_precision(mode):
    learn = learner()
    before = weights_of(learn)
    fit(learn, 2, [MomentumUpdate(), ObjectiveTerms(), amp(mode)])
    assert weights_of(learn).isfinite().all() and not torch.equal(weights_of(learn), before)
    assert all(np.isfinite(value) for value in learn.recorder.values[-1])


def test_it_learns():
    "Each loss falls on items that are seen again and again."
    itc = {'queue': 10, 'dim': 8, 'momentum': .9}
    learn = learner(dropout=0., bs=8, lr=3e-3, negatives='hard', options={'itc': itc})
    learn.opt_func = Adam
    noted = []

    class Last(Callback):
        def after_loss(self):
            if self.training: noted.append({name: float(loss.detach()) for name, loss in self.pred.items()})
    fit(learn, 50, [MomentumUpdate(), Last()])
    for name, share in (('mlm', .85), ('mfm', .5), ('itm', .95), ('itc', .3)):
        early, late = (np.mean([losses[name] for losses in part]) for part in (noted[:15], noted[-60:]))
        assert late < early * share, (name, early, late)


def test_a_training_goes_on_from_its_state():
    "Weights, copies, queue and ramp: all is in the state that `Resume` keeps."
    def state_after(learn, epochs, at_start=None):
        class Stop(Callback):
            order = -1001
            def before_epoch(self):
                if at_start is not None and self.epoch == 1 and not self.__dict__.get('done'):
                    self.done = True
                    set_learner_state(self.learn, at_start)
                if self.epoch == epochs:
                    self.state = learner_state(self.learn)
                    raise CancelFitException
        stop = Stop()
        fit(learn, 3, [MomentumUpdate(), stop])
        return stop.state if epochs < 3 else learner_state(learn)
    middle = state_after(learner(), 1)
    whole = state_after(learner(), 3)
    # of other weights to begin with, which the state replaces
    resumed = state_after(learner(seed=5), 3, middle)
    for name, value in whole['model'].items():
        torch.testing.assert_close(resumed['model'][name], value, msg=name)


def test_averaged_weights_leave_the_queue_whole():
    learn = learner()
    fit(learn, 2, [MomentumUpdate(), EMA(.5)])
    assert all(np.isfinite(value) for value in learn.recorder.values[-1])


def test_refusals():
    learn = learner(options={'itc': {'queue': 30, 'dim': 8}})
    with pytest.raises(InputError, match='queue=30: with 24 items'): fit(learn, 1, [MomentumUpdate()])
    other = learner()
    other.model = other.model.net
    with pytest.raises(InputError, match='MomentumUpdate wants a model with objectives'):
        fit(other, 1, [MomentumUpdate()])
    other.loss_func = torch.nn.CrossEntropyLoss()
    with pytest.raises(InputError, match='ObjectiveTerms wants a'): fit(other, 1, [ObjectiveTerms()])
    # nothing to move
    fit(learner(weights={'mlm': 1.}), 1, [MomentumUpdate()])
    fit(learner(options={'itc': {'momentum': None}}), 1, [MomentumUpdate()])
