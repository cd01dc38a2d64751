"What heads and losses are told in training: labels, margins on a schedule, terms of a sum."
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import SchedLin
from fastai.optimizer import SGD
from fastai.vision.augment import Resize

from fastmatch.callback.heads import LossTerms, MarginSchedule
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.sharpness import ESAM
from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from fastmatch.learner import match_learner
from fastmatch.losses import (
    AdaCos,
    ArcFace,
    CenterLoss,
    CombinedMargin,
    CurricularFace,
    NormSoftmax,
    SphereFace,
    SumLoss,
    SupCon,
    Triplet,
    class_counts,
    class_weights,
)
from fastmatch.losses.base import NotANumber
from tests.callback.small import few_listings
from tests.callback.small import fit as quietly
from tests.learner.small import CPUMixedPrecision


def make_dls(**kwargs):
    "Pictures of a few listings."
    return MatchDataLoaders.from_df(few_listings(6), demo_path()/'images', text_col=None, fold_col='fold',
                                    item_tfms=Resize(32), bs=16, num_workers=0, phash=False, **kwargs)


@pytest.fixture(scope='module')
def dls(): return make_dls()


def small_learner(dls, **kwargs):
    "A learner with a random encoder of 100,000 parameters."
    return match_learner(dls, 'test_efficientnet', pretrained=False, metrics=[], **kwargs)


def fit(dls, epochs=1, **kwargs):
    "A small learner, trained."
    seed_everything(0)
    learner = small_learner(dls, **kwargs)
    quietly(learner, 'fit', epochs, 1e-3)
    return learner


class Look(Callback):
    "Notes what `see(self)` gives in each training batch."
    order = 60
    def __init__(self, see):
        self.see = see
        self.seen = []

    def after_loss(self):
        if self.training: self.seen.append(self.see(self))


def test_a_lost_loss_ends_training_with_an_error_and_lr_find_without(dls):
    learner = fit(dls, 1)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    quietly(learner, 'lr_find', end_lr=1e38, num_it=12, show_plot=False, suggest_funcs=())
    assert len(learner.recorder.losses) < 12
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    with pytest.raises(NotANumber, match='epoch 1, batch [23]: ArcFace: NaN in 16 of 16 rows.*rate'):
        quietly(learner, 'fit', 2, 1e38)


@pytest.mark.parametrize('loss, scheduler, name, message', [
    (ArcFace(), SchedLin(.2, 3.3), 'm', r'm=3.1.*below pi'),
    (SphereFace(2.), SchedLin(.5, 2.), 'm', 'm=0.5.*at least 1'),
    (ArcFace(), SchedLin(9., -1.5), 's', 's=-0.0'),
    (CombinedMargin(), SchedLin(.1, 4.), 'm2', 'm2=3.1'),
])
def test_a_margin_that_would_leave_its_range_is_told_before_training(dls, loss, scheduler, name, message):
    given_margin = getattr(loss, name)
    look = Look(lambda callback: 0)
    with pytest.raises(InputError, match=message):
        fit(dls, loss_func=loss, cbs=[MarginSchedule(scheduler, name=name), look])
    assert look.seen == [] and getattr(loss, name) == given_margin


def test_a_margin_that_a_broken_fit_left_is_not_what_was_given(dls):
    class Break(Callback):
        order, run_valid = 80, False
        def after_batch(self): raise KeyboardInterrupt
    loss = ArcFace(m=.3)
    learner = small_learner(dls, loss_func=loss)
    with pytest.raises(KeyboardInterrupt):
        quietly(learner, 'fit', 1, 1e-3, cbs=[MarginSchedule(SchedLin(.1, .7)), MixUp(), Break()])
    assert loss.m == .1 and learner.loss_func is loss
    quietly(learner, 'fit', 1, 1e-3, cbs=MarginSchedule(SchedLin(.1, .7)))
    assert loss.m == .3
    # another margin that the user gave meanwhile
    with pytest.raises(KeyboardInterrupt):
        quietly(learner, 'fit', 1, 1e-3, cbs=[MarginSchedule(SchedLin(.1, .7)), Break()])
    loss.m = .45
    quietly(learner, 'fit', 1, 1e-3, cbs=MarginSchedule(SchedLin(.1, .7)))
    assert loss.m == .45


def test_sampled_head_gets_both_labels_of_a_mixed_batch(dls):
    def see(callback):
        classes = callback.learn.pred['image'].extra['classes'].tolist()
        return len(classes), set(classes) == {*callback.y.tolist(), *callback.learn.mix_up.yb1[0].tolist()}
    look = Look(see)
    learner = fit(dls, head_func=partial(SampledHead, share=.1), cbs=[MixUp(), look])
    assert look.seen and all(is_whole for _, is_whole in look.seen)
    assert max(n_centers for n_centers, _ in look.seen) < learner.model.heads['image'].n_out
    assert learner.model.heads['image'].labels is None, 'nothing of a batch stays behind'


@pytest.mark.parametrize('loss, name, start', [(CurricularFace(m=.3), 't', 0.), (AdaCos(), 's', None)])
def test_tracked_head_is_saved_with_the_model(dls, loss, name, start, tmp_path):
    learner = fit(dls, loss_func=loss, head_func=TrackedHead, cbs=MixUp())
    head = learner.model.heads['image']
    tracked = float(getattr(head, name))
    assert tracked != (float(TrackedHead(4, head.n_out).s) if start is None else start)
    torch.save(learner.model.state_dict(), tmp_path/'m.pth')
    with torch.no_grad(): getattr(head, name).fill_(9.)
    learner.model.load_state_dict(torch.load(tmp_path/'m.pth', weights_only=True))
    assert float(getattr(head, name)) == tracked
    before = tracked
    learner.lr_find(show_plot=False, num_it=5)
    assert float(getattr(head, name)) == before, 'lr_find puts it back'


def test_centres_have_a_rate_of_their_own(dls):
    loss = SumLoss({'softmax': ArcFace(m=.3), 'center': CenterLoss()}, {'center': .01})
    distances = {}
    for multiplier in (0., 50.):
        learner = fit(dls, loss_func=loss, head_func=CenterHead, opt_func=SGD,
                      lr_mult={'centers': multiplier}, wd=0., neck='raw')
        seed_everything(0)
        start = small_learner(dls, head_func=CenterHead).model.heads['image'].centers
        distances[multiplier] = float((learner.model.heads['image'].centers - start).detach().abs().max())
    assert distances[0.] == 0 and distances[50.] > 1e-4


def test_margin_follows_the_schedule_and_is_put_back(dls):
    loss = ArcFace(m=.3)
    look = Look(lambda callback: (callback.pct_train, loss.m))
    learner = fit(dls, 2, loss_func=loss, cbs=[MarginSchedule(SchedLin(.1, .7)), MixUp(), look])
    progress, margins = np.array(look.seen).T
    np.testing.assert_allclose(margins, .1 + .6 * progress)
    assert margins[0] == pytest.approx(.1) and margins[-1] > .6
    assert loss.m == .3 and learner.loss_func is loss
    sum_loss = SumLoss({'a': ArcFace(m=.3), 'b': Triplet(.2)})
    # drawn at random a batch may hold no two of a group
    fit(make_dls(sampler='pk'), loss_func=sum_loss, cbs=MarginSchedule(SchedLin(.1, .7), sum_loss.a))
    with pytest.raises(InputError, match="SumLoss has no 'm'"):
        fit(dls, loss_func=sum_loss, cbs=MarginSchedule(SchedLin(.1, .7)))


def test_each_term_of_a_sum_is_recorded(dls):
    loss = SumLoss({'softmax': ArcFace(m=.3, s=10.), 'triplet': Triplet(.2)}, {'triplet': .5})
    learner = small_learner(make_dls(sampler='pk'), loss_func=loss, cbs=LossTerms())
    quietly(learner, 'fit', 2, 1e-3)
    assert list(learner.recorder.metric_names) == ['epoch', 'train_loss', 'softmax', 'triplet', 'time']
    assert len(learner.metrics) == 0
    assert all(len(row) == 3 and all(np.isfinite(row)) for row in learner.recorder.values)
    # without MixUp and smoothing the terms' means add up to the mean of the batches' losses
    terms = LossTerms()
    losses = Look(lambda callback: callback.learn.loss.item())
    with learner.removed_cbs(learner.loss_terms): quietly(learner, 'fit', 1, 1e-3, cbs=[terms, losses])
    np.testing.assert_allclose(sum(learner.recorder.values[-1][1:]), np.mean(losses.seen), rtol=1e-5)
    assert not any(module._forward_hooks for module in loss.modules())
    with pytest.raises(InputError, match='ArcFace has no terms'):
        fit(dls, loss_func=ArcFace(), cbs=LossTerms())


@pytest.mark.parametrize('make_callback', [MixUp, CutMix, lambda: HardMining(.5), lambda: ESAM(.1)],
                         ids=['MixUp', 'CutMix', 'HardMining', 'ESAM'])
def test_terms_add_up_to_the_loss_that_is_trained_on(dls, make_callback):
    "Of two targets each counts by its share; what others look at besides is not shown."
    losses = Look(lambda callback: callback.learn.loss.item())
    loss = SumLoss({'arc': ArcFace(m=.3, s=10.), 'plain': NormSoftmax(s=10.)}, {'plain': .5})
    learner = fit(dls, loss_func=loss, cbs=[make_callback(), LossTerms(), losses])
    np.testing.assert_allclose(sum(learner.recorder.values[-1][1:3]), np.mean(losses.seen), rtol=1e-5)


def test_counts_and_weights_are_read_from_the_dataloaders(dls):
    counts = class_counts(dls)
    group_sizes = dls.train_df.label_group.value_counts().sort_index()
    assert counts.tolist() == group_sizes.tolist() and len(counts) == dls.n_groups
    np.testing.assert_allclose(class_weights(dls, 'sqrt'), np.sqrt(group_sizes.min()) / np.sqrt(group_sizes))
    np.testing.assert_allclose(class_weights(dls, 'inverse'), 1 / group_sizes)
    effective = [1 / sum(.9**i for i in range(size)) for size in group_sizes]
    np.testing.assert_allclose(class_weights(dls, 'effective', .9), effective)
    assert float(class_weights(dls, 'sqrt').max()) == 1.


def test_counts_of_fastais_own_dataloaders():
    from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock, TransformBlock
    from fastai.data.transforms import ColReader, IndexSplitter
    df = pd.DataFrame(dict(x=range(20), y=list('abbcccabbcccabbccccc')))
    one_label = DataBlock((TransformBlock, CategoryBlock), get_x=ColReader('x'), get_y=ColReader('y'),
                          splitter=IndexSplitter([0, 1, 2]))
    dls = one_label.dataloaders(df, bs=4)
    assert class_counts(dls).tolist() == df.y[3:].value_counts().sort_index().tolist()
    many_labels = DataBlock((TransformBlock, MultiCategoryBlock), get_x=ColReader('x'),
                            get_y=ColReader('y', label_delim=' '))
    many_dls = many_labels.dataloaders(df, bs=4)
    with pytest.raises(InputError, match='several labels'): class_counts(many_dls)
    with pytest.raises(InputError, match='no classes'): class_counts(object())


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('head, loss', [
    (SampledHead, ArcFace(m=.3)),
    (TrackedHead, CurricularFace(m=.3)),
    (partial(CosineHead, k=2), SupCon()),
    (CenterHead, SumLoss({'softmax': SphereFace(1.5), 'center': CenterLoss()}, {'center': .01})),
])
def test_half_precision(dls, head, loss):
    "Under autocast fastai casts outputs on their way to the loss: extras survive, centers get a gradient."
    def see(callback):
        output = callback.learn.pred['image']
        centers = output.extra.get('centers', callback.learn.model.heads['image'].weight)
        return output.cos.dtype, callback.learn.loss.item(), centers.detach().clone()
    look = Look(see)
    learner = fit(dls, head_func=head, loss_func=loss, neck='raw', image_pool='gem',
                cbs=[CPUMixedPrecision(), look])
    assert all(dtype == torch.float32 and np.isfinite(value) for dtype, value, _ in look.seen)
    assert all(torch.isfinite(weight).all() for weight in learner.model.parameters())
    if not isinstance(loss, SupCon): assert (look.seen[0][2] != look.seen[-1][2]).any(), 'centers move'
