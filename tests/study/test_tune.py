"Tuning real, small trainings: the kit first, the same start for each trial, scores on listings that nobody saw."
import gc
import random
import weakref
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fastai.data.transforms import Normalize
from fastai.vision.augment import Resize

from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.sample import demo_path
from fastmatch.layers.heads import TrackedHead
from fastmatch.learner import MatchLearner, match_learner
from fastmatch.losses import ArcFace, CosFace, CurricularFace, NormSoftmax
from fastmatch.match import candidates, heldout_fused, paired
from fastmatch.metrics import MAPAtR, RecallAt
from fastmatch.study import WrongStudy, learner_maker, open_study, spaces, tune, work
from fastmatch.study import tested as scored  # pytest would take it for a test

ARCH = dict(image_arch='test_efficientnet', pretrained=False)
QUIET = dict(echo=lambda o: None, storage=None, pruner=None, epochs=2)


@pytest.fixture(scope='module')
def listings():
    "(listings of folds 0 and 1, of fold 2): eight groups of each."
    df = pd.read_csv(demo_path()/'listings.csv')
    keep = df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:8]))
    df = df[keep].drop(columns=[o for o in df if 'phash' in o])
    return df[df.fold < 2].reset_index(drop=True), df[df.fold == 2].reset_index(drop=True)


def data(df, sampler=None, **kwargs):
    seed_everything(0)
    return MatchDataLoaders.from_df(df, demo_path()/'images', text_col=None, fold_col='fold', item_tfms=Resize(32), bs=16, num_workers=0, phash=False, sampler=sampler,
                                    device='cpu', **kwargs)


@pytest.fixture(scope='module')
def dls(listings): return data(listings[0])


def made(dls, params, **fixed): return learner_maker(dls, **{**ARCH, **fixed})(SimpleNamespace(params=params))


@pytest.mark.parametrize('params, look, want', [
    ({}, lambda o: (type(o.loss_func), o.loss_func.m, o.loss_func.s, o.wd), (ArcFace, .3, 20, .01)),
    ({'margin': .5}, lambda o: (type(o.loss_func), o.loss_func.m, o.loss_func.s), (ArcFace, .5, 20.)),
    ({'scale': 9., 'loss': 'CosFace'}, lambda o: (type(o.loss_func), o.loss_func.m, o.loss_func.s), (CosFace, .3, 9.)),
    ({'margin': .5, 'scale': 9., 'loss': 'NormSoftmax'}, lambda o: (type(o.loss_func), o.loss_func.s), (NormSoftmax, 9.)),
    ({'loss': 'CurricularFace'}, lambda o: (type(o.loss_func), type(next(iter(o.model.heads.values())))), (CurricularFace, TrackedHead)),
    ({'wd': .2}, lambda o: o.wd, .2),
    ({'rho': .1}, lambda o: [c.rho for c in o.cbs if isinstance(c, SAM)], [.1]),
    ({'rho': 0.}, lambda o: [c for c in o.cbs if isinstance(c, SAM)], []),
    ({'image_pool': 'gem'}, lambda o: o.model.encoders['image'].pool_name, 'gem'),
    ({'image_arch': 'test_vit'}, lambda o: o.model.encoders['image'].name, 'test_vit'),
    ({'lr': 3., 'schedule': 'cos'}, lambda o: o.wd, .01)])
def test_what_a_trial_chose_is_what_is_made(dls, params, look, want):
    make = learner_maker(dls, **{k: v for k, v in ARCH.items() if k not in params})
    assert look(make(SimpleNamespace(params=params))) == want


@pytest.mark.parametrize('params, want', [({'opt': 'ranger', 'eps': 1e-4}, 1e-4), ({'opt': 'adabelief'}, 1e-8), ({'eps': 1e-7}, 1e-7), ({'opt': 'sgd_momentum', 'eps': 1e-7}, None)])
def test_optimizers_and_their_eps(dls, params, want):
    learn = made(dls, params)
    learn.create_opt()
    hypers = learn.opt.hypers[0]
    if want is None: assert 'eps' not in hypers
    else: assert hypers['eps'] == want


@pytest.mark.parametrize('params, fixed, word', [
    ({'drop': .2}, {}, 'drop'), ({'margin': .2}, {'loss_func': ArcFace()}, 'loss_func'), ({'opt': 'sgd'}, {'opt_func': 1}, 'opt_func'), ({'wd': .1}, {'wd': .2}, 'wd')])
def test_what_is_searched_and_given_is_refused(dls, params, fixed, word):
    with pytest.raises(WrongStudy, match=word): made(dls, params, **fixed)
    assert isinstance(made(dls, {'drop': .2}, also=('drop',)), MatchLearner)


def test_each_encoder_gets_the_pictures_it_knows(listings):
    "The mean and spread of one trial's encoder must not stay in the loaders for the next."
    dls = data(listings[0])
    def norms(): return [(o.mean.flatten().tolist(), o.std.flatten().tolist()) for o in dls.after_batch.fs if isinstance(o, Normalize)]
    make = learner_maker(dls, pretrained=False)
    for arch in ('test_efficientnet', 'tf_efficientnet_lite0', 'test_efficientnet'):
        learn = make(SimpleNamespace(params={'image_arch': arch}))
        enc = learn.model.encoders['image']
        assert len(norms()) == 1
        np.testing.assert_allclose(norms()[0], [enc.mean, enc.std], rtol=1e-6)
    # a Normalize of the user's own stays
    own = data(listings[0], batch_tfms=[Normalize.from_stats([.1] * 3, [.2] * 3, cuda=False)])
    learner_maker(own, **ARCH)(SimpleNamespace(params={}))
    assert [float(o.mean.flatten()[0]) for o in own.after_batch.fs if isinstance(o, Normalize)] == [pytest.approx(.1)]


def test_a_study_of_trainings(dls, listings, tmp_path):
    rest, test = listings
    lines, alive = [], []
    maker = learner_maker(dls, **ARCH, metrics=[RecallAt(1), MAPAtR()])
    def make(trial):
        gc.collect()
        # whatever trained before is gone
        assert sum(o() is not None for o in alive) == 0
        learn = maker(trial)
        alive.append(weakref.ref(learn.model))
        return learn
    call = dict(make_learner=make, space=spaces('margin', lr=(1e-4, 1e-2, 'log')), epochs=2, monitor='map@r', test=test, study_name='s', storage=tmp_path/'a.db',
                pruner='asha', echo=lines.append)
    s = tune(n_trials=3, **call)
    assert s.trials[0].params == {'margin': .3, 'lr': 2e-3} and len(lines) == 3 and all('map@r' in o and 'margin' in o for o in lines)
    s = tune(n_trials=4, **call)
    assert len(s.trials) == 4 and len(lines) == 4

    # the first trial is the kit: by hand, the same numbers
    seed_everything(0)
    own = data(rest)
    seed_everything(0)
    learn = match_learner(own, **ARCH, metrics=[RecallAt(1), MAPAtR()])
    for dl in own.loaders: dl.rng = random.Random(0)
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(2, 2e-3)
    assert list(s.trials[0].intermediate_values) == [1, 2] and s.trials[0].value == pytest.approx(learn.recorder.values[-1][-1], abs=1e-6)
    emb = learn.embeddings(test)
    want = heldout_fused(candidates(emb.spaces(), k=min(50, len(emb))), emb.groups)
    got = scored(s, 'default')
    np.testing.assert_allclose(got.row_f1, want.row_f1, atol=1e-6)
    np.testing.assert_array_equal(got.clusters, want.clusters)
    assert s.trials[0].user_attrs['test_row_f1'] == pytest.approx(want.mean, abs=1e-5) and s.trials[0].user_attrs['test_se'] == pytest.approx(want.se, abs=1e-5)
    best = scored(s)
    assert np.isfinite(paired(best, got).diff) and best.mean == pytest.approx(s.best_trial.user_attrs['test_row_f1'], abs=1e-5)
    with pytest.raises(InputError, match='99'): scored(s, 99)

    # another question under the same name
    for change in (dict(monitor='recall@1'), dict(epochs=3), dict(test=test.iloc[5:]), dict(test=None), dict(about={'size': 64}), dict(space=spaces('margin')), dict(seed=1)):
        with pytest.raises(InputError, match="'s'"): tune(n_trials=5, **{**call, **change})
    assert len(s.trials) == 4


@pytest.mark.parametrize('sampler', [None, 'pk'])
def test_trials_start_alike_whatever_ran_before(listings, sampler):
    "The same parameters give the same numbers in the first trial and in a later one."
    dls = data(listings[0], sampler)
    study = tune(learner_maker(dls, **ARCH, metrics=[MAPAtR()]), {'lr': [2e-3]}, 3, monitor='map@r', **QUIET)
    values = [tuple(t.intermediate_values.values()) for t in study.trials]
    assert len(set(values)) == 1 and len(values[0]) == 2


def test_listings_seen_are_refused_as_a_test(dls, listings):
    rest, test = listings
    space = spaces('lr')
    ran = []
    def fit(learn, trial): ran.append(1)
    def call(t): tune(learner_maker(dls, **ARCH), space, 2, fit=fit, test=t, **QUIET)
    with pytest.raises(WrongStudy, match='listing') as e: call(pd.concat([test, rest.iloc[3:4]]))
    assert f'row {len(test)} ({rest.posting_id[3]}' in str(e.value)
    # a new picture of a product that was trained on
    with pytest.raises(WrongStudy, match='group') as e: call(test.assign(label_group=[rest.label_group[0], *test.label_group[1:]]))
    assert 'row 0' in str(e.value)
    with pytest.raises(WrongStudy, match='label_group'): call(test.drop(columns='label_group'))
    # what could not be scored afterwards
    for bad, word in ((test.assign(label_group=[None, *test.label_group[1:]]), 'no label'), (test.assign(label_group='x'), 'one group'), (test[:0], '0 listings'),
                      (pd.concat([test, test[:1]]), 'unique'), (test.drop(columns='image'), "'image'"), (test.assign(image=['nowhere.jpg', *test.image[1:]]), 'nowhere')):
        with pytest.raises(WrongStudy, match=f'(?s)^test: .*{word}'): call(bad)
    with pytest.raises(InputError, match='give a DataFrame'): call('test.csv')
    assert not ran


@pytest.mark.parametrize('change, error, word', [
    (dict(monitor='recall@5'), WrongStudy, 'recall@1'), (dict(monitor='recall@1', direction='minimize'), WrongStudy, 'recall@1'), (dict(monitor='zest'), InputError, 'direction'),
    (dict(space={}), InputError, 'empty'), (dict(epochs=0), InputError, 'epochs'), (dict(fit=lambda learn, trial: None), WrongStudy, 'no epoch')])
def test_bad_calls(dls, change, error, word):
    with pytest.raises(error, match=word): tune(**{**QUIET, 'make_learner': learner_maker(dls, **ARCH), 'space': spaces('lr'), 'n_trials': 2, **change})


def test_a_recipe_and_a_bad_trial(dls):
    "fit_head_first as the fit; a margin that is out of range fails alone."
    def fit(learn, trial): learn.fit_head_first(1, 2, trial.params['lr'])
    study = tune(learner_maker(dls, **ARCH), {'lr': (1e-3, 4e-3), 'margin': [.3, 9.]}, 5, fit=fit, sampler='random', **{**QUIET, 'epochs': 3, 'max_failed': .9})
    done = [t for t in study.trials if t.state.name == 'COMPLETE']
    failed = [t for t in study.trials if t.state.name == 'FAIL']
    assert len(done) == 5 and all(list(t.intermediate_values) == [1, 2, 3] for t in done) and failed
    assert all(t.params['margin'] == 9 and 'm=9' in t.user_attrs['reason'] for t in failed)


def test_hyperband_asks_for_enough_trials(dls):
    with pytest.warns(UserWarning, match='3 brackets, which want 17'): tune(learner_maker(dls, **ARCH), {'lr': [2e-3]}, 1, fit=lambda learn, trial: learn.fit(1),
                                                                         **{**QUIET, 'epochs': 9, 'pruner': 'hyperband'})


def test_nothing_to_report_without_a_test():
    s = open_study('s')
    work(s, lambda t: 1., 1)
    with pytest.raises(InputError, match='no test listings'): scored(s)
