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
from fastmatch.study import WrongStudy, heldout_trial, learner_maker, search_space, tune_learner
from fastmatch.study.tune import describe_trial
from tests.study.trainings import ENCODER, loaders

QUIET = dict(echo=lambda line: None, storage=None, pruner=None, epochs=2)


@pytest.mark.slow
def test_a_study_of_trainings(dls, listings, tmp_path):
    train_listings, test_listings = listings
    printed_lines, model_references = [], []
    make_plain_learner = learner_maker(dls, **ENCODER, metrics=[RecallAt(1), MAPAtR()])

    def make_learner(trial):
        gc.collect()
        # whatever trained before is gone
        assert sum(reference() is not None for reference in model_references) == 0
        learner = make_plain_learner(trial)
        model_references.append(weakref.ref(learner.model))
        return learner
    space = search_space('margin', lr=(1e-4, 1e-2, 'log'))
    options = dict(make_learner=make_learner, space=space, epochs=2, monitor='map@r', test=test_listings,
                   study_name='s', storage=tmp_path/'a.db', pruner='asha', echo=printed_lines.append)
    study = tune_learner(n_trials=3, **options)
    assert study.trials[0].params == {'margin': .3, 'lr': 2e-3}
    assert len(printed_lines) == 3 and all('map@r' in line and 'margin' in line for line in printed_lines)
    study = tune_learner(n_trials=4, **options)
    assert len(study.trials) == 4 and len(printed_lines) == 4

    check_first_trial_is_the_kit(study, train_listings, test_listings)
    best_score = heldout_trial(study)
    assert np.isfinite(paired(best_score, heldout_trial(study, 'default')).diff)
    assert best_score.mean == pytest.approx(study.best_trial.user_attrs['test_row_f1'], abs=1e-5)
    with pytest.raises(InputError, match='99'): heldout_trial(study, 99)

    # another question under the same name
    for changed_options in (
            dict(monitor='recall@1'), dict(epochs=3), dict(test=test_listings.iloc[5:]), dict(test=None),
            dict(about={'size': 64}), dict(space=search_space('margin')), dict(seed=1)):
        with pytest.raises(InputError, match="'s'"):
            tune_learner(n_trials=5, **{**options, **changed_options})
    assert len(study.trials) == 4


def check_first_trial_is_the_kit(study, train_listings, test_listings):
    "By hand, the same numbers."
    seed_everything(0)
    own_loaders = loaders(train_listings)
    seed_everything(0)
    learner = match_learner(own_loaders, **ENCODER, metrics=[RecallAt(1), MAPAtR()])
    for loader in learner.dls.loaders: loader.rng = random.Random(0)
    with learner.no_bar(), learner.no_logging(): learner.fit_flat_cos(2, 2e-3)
    first_trial = study.trials[0]
    assert list(first_trial.intermediate_values) == [1, 2]
    assert first_trial.value == pytest.approx(learner.recorder.values[-1][-1], abs=1e-6)
    embeddings = learner.embeddings(test_listings)
    expected = heldout_fused(candidates(embeddings.spaces(), k=min(50, len(embeddings))), embeddings.groups)
    actual = heldout_trial(study, 'default')
    np.testing.assert_allclose(actual.row_f1, expected.row_f1, atol=1e-6)
    np.testing.assert_array_equal(actual.clusters, expected.clusters)
    assert first_trial.user_attrs['test_row_f1'] == pytest.approx(expected.mean, abs=1e-5)
    assert first_trial.user_attrs['test_se'] == pytest.approx(expected.se, abs=1e-5)


@pytest.mark.parametrize('sampler', [None, 'pk'])
def test_trials_start_alike_whatever_ran_before(listings, sampler):
    "The same parameters give the same numbers in the first trial and in a later one."
    make_learner = learner_maker(loaders(listings[0], sampler), **ENCODER, metrics=[MAPAtR()])
    study = tune_learner(make_learner, {'lr': [2e-3]}, 3, monitor='map@r', **QUIET)
    epoch_values = [tuple(trial.intermediate_values.values()) for trial in study.trials]
    assert len(set(epoch_values)) == 1 and len(epoch_values[0]) == 2


@pytest.mark.slow
def test_listings_seen_are_refused_as_a_test(dls, listings):
    train_listings, test_listings = listings
    space = search_space('lr')
    fitted_trials = []
    def fit(learner, trial): fitted_trials.append(1)
    def tune_with_test(test_listings):
        tune_learner(learner_maker(dls, **ENCODER), space, 2, fit=fit, test=test_listings, **QUIET)
    with pytest.raises(WrongStudy, match='listing') as error:
        tune_with_test(pd.concat([test_listings, train_listings.iloc[3:4]]))
    assert f'row {len(test_listings)} ({train_listings.posting_id[3]}' in str(error.value)
    # a new image of a product that was trained on
    other_groups = test_listings.label_group[1:]
    seen_group = test_listings.assign(label_group=[train_listings.label_group[0], *other_groups])
    with pytest.raises(WrongStudy, match='group') as error: tune_with_test(seen_group)
    assert 'row 0' in str(error.value)
    with pytest.raises(WrongStudy, match='label_group'):
        tune_with_test(test_listings.drop(columns='label_group'))
    # what could not be scored afterwards
    for unfit_listings, message in (
            (test_listings.assign(label_group=[None, *other_groups]), 'no (label|group)'),
            (test_listings.assign(label_group='x'), 'one group'), (test_listings[:0], '0 listings'),
            (pd.concat([test_listings, test_listings[:1]]), 'unique'),
            (test_listings.drop(columns='image'), "'image'"),
            (test_listings.assign(image=['nowhere.jpg', *test_listings.image[1:]]), 'nowhere')):
        with pytest.raises(WrongStudy, match=f'(?s)^test: .*{message}'): tune_with_test(unfit_listings)
    with pytest.raises(InputError, match='give a DataFrame'): tune_with_test('test.csv')
    assert not fitted_trials


def test_test_listings_may_lie_in_another_folder(dls, listings, tmp_path):
    _, test_listings = listings
    for number, file in enumerate(test_listings.image):
        (tmp_path/f'{number}.png').write_bytes((dls.image_folder/file).read_bytes())
    elsewhere = test_listings.assign(image=[f'{number}.png' for number in range(len(test_listings))])
    options = {**QUIET, 'epochs': 1}
    scores = [
        heldout_trial(tune_learner(learner_maker(dls, **ENCODER), search_space('lr'), 1, **options, **test))
        for test in (dict(test=test_listings), dict(test=elsewhere, test_path=tmp_path))]
    np.testing.assert_array_equal(scores[0].row_f1, scores[1].row_f1)


@pytest.mark.parametrize('changed_options, error_type, message', [
    (dict(monitor='recall@5'), WrongStudy, 'recall@1'),
    (dict(monitor='recall@1', direction='minimize'), WrongStudy, 'recall@1'),
    (dict(monitor='zest'), InputError, 'direction'), (dict(space={}), InputError, 'empty'),
    (dict(epochs=0), InputError, 'epochs'), (dict(fit=lambda learner, trial: None), WrongStudy, 'no epoch'),
    (dict(study='s'), InputError, r"study='s': no option of tune_learner \(did you mean study_name\?\)"),
    (dict(epoch=2), InputError, r'did you mean epochs\?'),
    (dict(zzz=1), InputError, 'zzz=1: no option of tune_learner$')])
def test_bad_calls(dls, changed_options, error_type, message):
    options = {**QUIET, 'make_learner': learner_maker(dls, **ENCODER), 'space': search_space('lr'),
               'n_trials': 2}
    with pytest.raises(error_type, match=message): tune_learner(**{**options, **changed_options})


def test_a_recipe_and_a_bad_trial(dls):
    "fit_head_first as the fit; a margin that is out of range fails alone."
    def fit(learner, trial): learner.fit_head_first(1, 2, trial.params['lr'])
    space = {'lr': (1e-3, 4e-3), 'margin': [.3, 9.]}
    study = tune_learner(learner_maker(dls, **ENCODER), space, 5, fit=fit, sampler='random',
                         **{**QUIET, 'epochs': 3, 'max_failed': .9})
    complete_trials = [trial for trial in study.trials if trial.state.name == 'COMPLETE']
    failed_trials = [trial for trial in study.trials if trial.state.name == 'FAIL']
    assert failed_trials and [list(trial.intermediate_values) for trial in complete_trials] == [[1, 2, 3]] * 5
    assert all(trial.params['margin'] == 9 and 'm=9' in trial.user_attrs['reason'] for trial in failed_trials)
    first_failed = failed_trials[0]
    reason = first_failed.user_attrs['reason']
    assert describe_trial(first_failed).startswith(f'trial {first_failed.number}: failed, {reason} (lr 0.0')


def test_hyperband_asks_for_enough_trials(dls):
    with pytest.warns(UserWarning, match='3 brackets, which want 17'):
        tune_learner(learner_maker(dls, **ENCODER), {'lr': [2e-3]}, 1,
                     fit=lambda learner, trial: learner.fit(1),
                     **{**QUIET, 'epochs': 9, 'pruner': 'hyperband'})
