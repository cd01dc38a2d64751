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


def make_trial_learner(dls, params, **fixed_options):
    return learner_maker(dls, **{**ENCODER, **fixed_options})(SimpleNamespace(params=params))


def loss_of(learner):
    loss_func = learner.loss_func
    return type(loss_func), loss_func.m, loss_func.s


def loss_and_head_types(learner):
    return type(learner.loss_func), type(next(iter(learner.model.heads.values())))


def rho_of(learner): return [callback.rho for callback in learner.cbs if isinstance(callback, SAM)]


@pytest.mark.parametrize('params, read_setting, expected', [
    ({}, lambda learner: (*loss_of(learner), learner.wd), (ArcFace, .3, 20, .01)),
    ({'margin': .5}, loss_of, (ArcFace, .5, 20.)),
    ({'scale': 9., 'loss': 'CosFace'}, loss_of, (CosFace, .3, 9.)),
    ({'margin': .5, 'scale': 9., 'loss': 'NormSoftmax'},
     lambda learner: (type(learner.loss_func), learner.loss_func.s), (NormSoftmax, 9.)),
    ({'loss': 'CurricularFace'}, loss_and_head_types, (CurricularFace, TrackedHead)),
    ({'wd': .2}, lambda learner: learner.wd, .2),
    ({'rho': .1}, rho_of, [.1]),
    ({'rho': 0.}, rho_of, []),
    ({'image_pool': 'gem'}, lambda learner: learner.model.encoders['image'].pool_name, 'gem'),
    ({'image_arch': 'test_vit'}, lambda learner: learner.model.encoders['image'].name, 'test_vit'),
    ({'lr': 3., 'schedule': 'cos'}, lambda learner: learner.wd, .01)])
def test_what_a_trial_chose_is_what_is_made(dls, params, read_setting, expected):
    fixed_options = {name: value for name, value in ENCODER.items() if name not in params}
    assert read_setting(learner_maker(dls, **fixed_options)(SimpleNamespace(params=params))) == expected


@pytest.mark.parametrize('params, expected', [
    ({'opt': 'ranger', 'eps': 1e-4}, 1e-4), ({'opt': 'adabelief'}, 1e-8), ({'eps': 1e-7}, 1e-7),
    ({'opt': 'sgd_momentum', 'eps': 1e-7}, None)])
def test_optimizers_and_their_eps(dls, params, expected):
    learner = make_trial_learner(dls, params)
    learner.create_opt()
    hyperparameters = learner.opt.hypers[0]
    if expected is None: assert 'eps' not in hyperparameters
    else: assert hyperparameters['eps'] == expected


@pytest.mark.parametrize('params, fixed_options, refused_name', [
    ({'drop': .2}, {}, 'drop'), ({'margin': .2}, {'loss_func': ArcFace()}, 'loss_func'),
    ({'opt': 'sgd'}, {'opt_func': 1}, 'opt_func'), ({'wd': .1}, {'wd': .2}, 'wd')])
def test_what_is_searched_and_given_is_refused(dls, params, fixed_options, refused_name):
    with pytest.raises(WrongStudy, match=refused_name): make_trial_learner(dls, params, **fixed_options)
    assert isinstance(make_trial_learner(dls, {'drop': .2}, also=('drop',)), MatchLearner)


def test_each_encoder_gets_the_images_it_knows(listings):
    "The mean and spread of one trial's encoder must not stay in the loaders for the next."
    dls = loaders(listings[0])

    def normalizer_statistics(learner):
        return [(transform.mean.flatten().tolist(), transform.std.flatten().tolist())
                for transform in learner.dls.after_batch.fs if isinstance(transform, Normalize)]
    make_learner = learner_maker(dls, pretrained=False)
    for architecture in ('test_efficientnet', 'tf_efficientnet_lite0', 'test_efficientnet'):
        learner = make_learner(SimpleNamespace(params={'image_arch': architecture}))
        encoder = learner.model.encoders['image']
        assert len(normalizer_statistics(learner)) == 1
        np.testing.assert_allclose(normalizer_statistics(learner)[0], [encoder.mean, encoder.std], rtol=1e-6)
    # a Normalize of the user's own stays
    own_loaders = loaders(listings[0], batch_tfms=[Normalize.from_stats([.1] * 3, [.2] * 3, cuda=False)])
    learner = learner_maker(own_loaders, **ENCODER)(SimpleNamespace(params={}))
    np.testing.assert_allclose(normalizer_statistics(learner), [([.1] * 3, [.2] * 3)], rtol=1e-6)


def test_loaders_may_depend_on_the_trial(listings):
    given_trials = []

    def loaders_of(trial):
        given_trials.append(trial)
        return loaders(listings[0])
    trial = SimpleNamespace(params={})
    learner = learner_maker(loaders_of, **ENCODER)(trial)
    assert given_trials == [trial] and isinstance(learner, MatchLearner)
