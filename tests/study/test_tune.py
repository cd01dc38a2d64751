"Tuning real, small trainings: the kit first, the same start for each trial, scores on unseen listings."
import gc
import random
import weakref

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError, seed_everything
from fastmatch.learner import match_learner
from fastmatch.match import candidates, heldout_fused, paired
from fastmatch.metrics import MAPAtR, RecallAt
from fastmatch.study import WrongStudy, learner_maker, spaces, tune
from fastmatch.study import tested as scored  # pytest would take it for a test
from fastmatch.study.tune import describe_trial
from tests.study.trainings import ENCODER, loaders

QUIET = dict(echo=lambda line: None, storage=None, pruner=None, epochs=2)


def test_a_study_of_trainings(dls, listings, tmp_path):
    rest, test = listings
    lines, models = [], []
    maker = learner_maker(dls, **ENCODER, metrics=[RecallAt(1), MAPAtR()])

    def make(trial):
        gc.collect()
        # whatever trained before is gone
        assert sum(model() is not None for model in models) == 0
        learn = maker(trial)
        models.append(weakref.ref(learn.model))
        return learn
    call = dict(make_learner=make, space=spaces('margin', lr=(1e-4, 1e-2, 'log')), epochs=2, monitor='map@r',
                test=test, study_name='s', storage=tmp_path/'a.db', pruner='asha', echo=lines.append)
    study = tune(n_trials=3, **call)
    assert study.trials[0].params == {'margin': .3, 'lr': 2e-3}
    assert len(lines) == 3 and all('map@r' in line and 'margin' in line for line in lines)
    study = tune(n_trials=4, **call)
    assert len(study.trials) == 4 and len(lines) == 4

    check_first_trial_is_the_kit(study, rest, test)
    best = scored(study)
    assert np.isfinite(paired(best, scored(study, 'default')).diff)
    assert best.mean == pytest.approx(study.best_trial.user_attrs['test_row_f1'], abs=1e-5)
    with pytest.raises(InputError, match='99'): scored(study, 99)

    # another question under the same name
    for change in (dict(monitor='recall@1'), dict(epochs=3), dict(test=test.iloc[5:]), dict(test=None),
                   dict(about={'size': 64}), dict(space=spaces('margin')), dict(seed=1)):
        with pytest.raises(InputError, match="'s'"): tune(n_trials=5, **{**call, **change})
    assert len(study.trials) == 4


def check_first_trial_is_the_kit(study, rest, test):
    "By hand, the same numbers."
    seed_everything(0)
    own = loaders(rest)
    seed_everything(0)
    learn = match_learner(own, **ENCODER, metrics=[RecallAt(1), MAPAtR()])
    for loader in own.loaders: loader.rng = random.Random(0)
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(2, 2e-3)
    first = study.trials[0]
    assert list(first.intermediate_values) == [1, 2]
    assert first.value == pytest.approx(learn.recorder.values[-1][-1], abs=1e-6)
    embeddings = learn.embeddings(test)
    want = heldout_fused(candidates(embeddings.spaces(), k=min(50, len(embeddings))), embeddings.groups)
    got = scored(study, 'default')
    np.testing.assert_allclose(got.row_f1, want.row_f1, atol=1e-6)
    np.testing.assert_array_equal(got.clusters, want.clusters)
    assert first.user_attrs['test_row_f1'] == pytest.approx(want.mean, abs=1e-5)
    assert first.user_attrs['test_se'] == pytest.approx(want.se, abs=1e-5)


@pytest.mark.parametrize('sampler', [None, 'pk'])
def test_trials_start_alike_whatever_ran_before(listings, sampler):
    "The same parameters give the same numbers in the first trial and in a later one."
    maker = learner_maker(loaders(listings[0], sampler), **ENCODER, metrics=[MAPAtR()])
    study = tune(maker, {'lr': [2e-3]}, 3, monitor='map@r', **QUIET)
    values = [tuple(trial.intermediate_values.values()) for trial in study.trials]
    assert len(set(values)) == 1 and len(values[0]) == 2


def test_listings_seen_are_refused_as_a_test(dls, listings):
    rest, test = listings
    space = spaces('lr')
    fitted = []
    def fit(learn, trial): fitted.append(1)
    def call(test): tune(learner_maker(dls, **ENCODER), space, 2, fit=fit, test=test, **QUIET)
    with pytest.raises(WrongStudy, match='listing') as error: call(pd.concat([test, rest.iloc[3:4]]))
    assert f'row {len(test)} ({rest.posting_id[3]}' in str(error.value)
    # a new image of a product that was trained on
    seen_group = test.assign(label_group=[rest.label_group[0], *test.label_group[1:]])
    with pytest.raises(WrongStudy, match='group') as error: call(seen_group)
    assert 'row 0' in str(error.value)
    with pytest.raises(WrongStudy, match='label_group'): call(test.drop(columns='label_group'))
    # what could not be scored afterwards
    for unfit, words in (
            (test.assign(label_group=[None, *test.label_group[1:]]), 'no (label|group)'),
            (test.assign(label_group='x'), 'one group'), (test[:0], '0 listings'),
            (pd.concat([test, test[:1]]), 'unique'), (test.drop(columns='image'), "'image'"),
            (test.assign(image=['nowhere.jpg', *test.image[1:]]), 'nowhere')):
        with pytest.raises(WrongStudy, match=f'(?s)^test: .*{words}'): call(unfit)
    with pytest.raises(InputError, match='give a DataFrame'): call('test.csv')
    assert not fitted


@pytest.mark.parametrize('change, error, word', [
    (dict(monitor='recall@5'), WrongStudy, 'recall@1'),
    (dict(monitor='recall@1', direction='minimize'), WrongStudy, 'recall@1'),
    (dict(monitor='zest'), InputError, 'direction'), (dict(space={}), InputError, 'empty'),
    (dict(epochs=0), InputError, 'epochs'), (dict(fit=lambda learn, trial: None), WrongStudy, 'no epoch'),
    (dict(study='s'), InputError, r"study='s': no option of tune \(did you mean study_name\?\)"),
    (dict(epoch=2), InputError, r'did you mean epochs\?'),
    (dict(zzz=1), InputError, 'zzz=1: no option of tune$')])
def test_bad_calls(dls, change, error, word):
    call = {**QUIET, 'make_learner': learner_maker(dls, **ENCODER), 'space': spaces('lr'), 'n_trials': 2}
    with pytest.raises(error, match=word): tune(**{**call, **change})


def test_a_recipe_and_a_bad_trial(dls):
    "fit_head_first as the fit; a margin that is out of range fails alone."
    def fit(learn, trial): learn.fit_head_first(1, 2, trial.params['lr'])
    space = {'lr': (1e-3, 4e-3), 'margin': [.3, 9.]}
    study = tune(learner_maker(dls, **ENCODER), space, 5, fit=fit, sampler='random',
                 **{**QUIET, 'epochs': 3, 'max_failed': .9})
    complete = [trial for trial in study.trials if trial.state.name == 'COMPLETE']
    failed = [trial for trial in study.trials if trial.state.name == 'FAIL']
    assert failed and [list(trial.intermediate_values) for trial in complete] == [[1, 2, 3]] * 5
    assert all(trial.params['margin'] == 9 and 'm=9' in trial.user_attrs['reason'] for trial in failed)
    reason = failed[0].user_attrs['reason']
    assert describe_trial(failed[0]).startswith(f'trial {failed[0].number}: failed, {reason} (lr 0.0')


def test_hyperband_asks_for_enough_trials(dls):
    with pytest.warns(UserWarning, match='3 brackets, which want 17'):
        tune(learner_maker(dls, **ENCODER), {'lr': [2e-3]}, 1, fit=lambda learn, trial: learn.fit(1),
             **{**QUIET, 'epochs': 9, 'pruner': 'hyperband'})
