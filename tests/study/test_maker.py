"`learner_maker`: what a trial chose is what is made, and nothing of one trial stays for the next."
from types import SimpleNamespace

import numpy as np
import pytest
from fastai.data.transforms import Normalize

from fastmatch.callback.sharpness import SAM
from fastmatch.layers.heads import TrackedHead
from fastmatch.learner import MatchLearner
from fastmatch.losses import ArcFace, CosFace, CurricularFace, NormSoftmax
from fastmatch.study import WrongStudy, learner_maker
from tests.study.trainings import ENCODER, loaders


def made(dls, params, **fixed):
    return learner_maker(dls, **{**ENCODER, **fixed})(SimpleNamespace(params=params))


def loss_of(learn):
    loss = learn.loss_func
    return type(loss), loss.m, loss.s


def head_of(learn): return type(learn.loss_func), type(next(iter(learn.model.heads.values())))


def rho_of(learn): return [callback.rho for callback in learn.cbs if isinstance(callback, SAM)]


@pytest.mark.parametrize('params, look, want', [
    ({}, lambda learn: (*loss_of(learn), learn.wd), (ArcFace, .3, 20, .01)),
    ({'margin': .5}, loss_of, (ArcFace, .5, 20.)),
    ({'scale': 9., 'loss': 'CosFace'}, loss_of, (CosFace, .3, 9.)),
    ({'margin': .5, 'scale': 9., 'loss': 'NormSoftmax'},
     lambda learn: (type(learn.loss_func), learn.loss_func.s), (NormSoftmax, 9.)),
    ({'loss': 'CurricularFace'}, head_of, (CurricularFace, TrackedHead)),
    ({'wd': .2}, lambda learn: learn.wd, .2),
    ({'rho': .1}, rho_of, [.1]),
    ({'rho': 0.}, rho_of, []),
    ({'image_pool': 'gem'}, lambda learn: learn.model.encoders['image'].pool_name, 'gem'),
    ({'image_arch': 'test_vit'}, lambda learn: learn.model.encoders['image'].name, 'test_vit'),
    ({'lr': 3., 'schedule': 'cos'}, lambda learn: learn.wd, .01)])
def test_what_a_trial_chose_is_what_is_made(dls, params, look, want):
    fixed = {name: value for name, value in ENCODER.items() if name not in params}
    assert look(learner_maker(dls, **fixed)(SimpleNamespace(params=params))) == want


@pytest.mark.parametrize('params, want', [
    ({'opt': 'ranger', 'eps': 1e-4}, 1e-4), ({'opt': 'adabelief'}, 1e-8), ({'eps': 1e-7}, 1e-7),
    ({'opt': 'sgd_momentum', 'eps': 1e-7}, None)])
def test_optimizers_and_their_eps(dls, params, want):
    learn = made(dls, params)
    learn.create_opt()
    hypers = learn.opt.hypers[0]
    if want is None: assert 'eps' not in hypers
    else: assert hypers['eps'] == want


@pytest.mark.parametrize('params, fixed, word', [
    ({'drop': .2}, {}, 'drop'), ({'margin': .2}, {'loss_func': ArcFace()}, 'loss_func'),
    ({'opt': 'sgd'}, {'opt_func': 1}, 'opt_func'), ({'wd': .1}, {'wd': .2}, 'wd')])
def test_what_is_searched_and_given_is_refused(dls, params, fixed, word):
    with pytest.raises(WrongStudy, match=word): made(dls, params, **fixed)
    assert isinstance(made(dls, {'drop': .2}, also=('drop',)), MatchLearner)


def test_each_encoder_gets_the_images_it_knows(listings):
    "The mean and spread of one trial's encoder must not stay in the loaders for the next."
    dls = loaders(listings[0])

    def normalizers():
        return [(step.mean.flatten().tolist(), step.std.flatten().tolist())
                for step in dls.after_batch.fs if isinstance(step, Normalize)]
    make = learner_maker(dls, pretrained=False)
    for arch in ('test_efficientnet', 'tf_efficientnet_lite0', 'test_efficientnet'):
        learn = make(SimpleNamespace(params={'image_arch': arch}))
        encoder = learn.model.encoders['image']
        assert len(normalizers()) == 1
        np.testing.assert_allclose(normalizers()[0], [encoder.mean, encoder.std], rtol=1e-6)
    # a Normalize of the user's own stays
    own = loaders(listings[0], batch_tfms=[Normalize.from_stats([.1] * 3, [.2] * 3, cuda=False)])
    learner_maker(own, **ENCODER)(SimpleNamespace(params={}))
    means = [float(step.mean.flatten()[0]) for step in own.after_batch.fs if isinstance(step, Normalize)]
    assert means == [pytest.approx(.1)]


def test_loaders_may_depend_on_the_trial(listings):
    calls = []

    def loaders_of(trial):
        calls.append(trial)
        return loaders(listings[0])
    trial = SimpleNamespace(params={})
    learn = learner_maker(loaders_of, **ENCODER)(trial)
    assert calls == [trial] and isinstance(learn, MatchLearner)
