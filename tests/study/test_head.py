"`tune_head`: its head starts as no change, learns what is there, and is reported on groups nobody chose by."
import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, heldout, paired
from fastmatch.study.engine.space import search_space
from fastmatch.study.head import FrozenNet, fit_head, judge_head, tune_head
from fastmatch.study.reported import heldout_trial


def noisy_embeddings(n_groups=60, group_size=4, width=24, n_noise=8, seed=0):
    "Embeddings a third of whose columns is noise that a linear map can take away."
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), group_size)
    n_useful = width - n_noise
    centers = rng.normal(size=(n_groups, n_useful))
    useful = centers[groups] + .5 * rng.normal(size=(len(groups), n_useful))
    noise = 2.5 * rng.normal(size=(len(groups), n_noise))
    return np.concatenate([useful, noise], 1).astype(np.float32), groups


def test_a_new_head_changes_nothing():
    vectors, groups = noisy_embeddings()
    network = FrozenNet(24, 60).eval()
    with torch.no_grad(): embedded = network.embed(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(embedded, vectors, rtol=1e-4)
    plain = heldout(Dense(vectors).search(50), groups, halvings=5, seed=3)
    np.testing.assert_allclose(judge_head(network, vectors, groups, 3).row_f1, plain.row_f1)


def test_training_finds_the_useful_directions():
    vectors, groups = noisy_embeddings()
    is_train = groups < 45
    network = fit_head(vectors[is_train], groups[is_train], {'lr': .02}, epochs=20, bs=45)
    with_head = judge_head(network, vectors[~is_train], groups[~is_train], 0)
    without_head = judge_head(None, vectors[~is_train], groups[~is_train], 0)
    assert paired(with_head, without_head).low > .05

    def trained_weight():
        return fit_head(vectors[is_train], groups[is_train], {}, epochs=1, seed=1).map.weight
    assert torch.equal(trained_weight(), trained_weight())


def test_a_study():
    vectors, groups = noisy_embeddings()
    is_test = groups >= 50
    study = tune_head(vectors, groups, n_trials=4, test=is_test, epochs=2, seed=1)
    first_trial = study.trials[0]
    assert first_trial.params == {'margin': .3, 'scale': 20.} and len(study.trials) == 4
    default_score = heldout_trial(study, 'default')
    assert default_score.mean == pytest.approx(first_trial.user_attrs['test_row_f1'], abs=1e-4)
    assert len(default_score.row_f1) == is_test.sum()
    assert default_score.se == pytest.approx(first_trial.user_attrs['test_se'], abs=1e-4)
    assert set(study.user_attrs['frozen']) == {'valid', 'test'}
    gain = heldout_trial(study).mean - default_score.mean
    assert paired(heldout_trial(study), default_score).diff == pytest.approx(gain)


def test_only_the_same_question_is_continued(tmp_path):
    "Scores of other test rows than the study's, as many of them, would be paired with these rows' groups."
    vectors, groups = noisy_embeddings()
    options = dict(n_trials=1, epochs=1, storage=tmp_path/'a.db', valid=groups < 10)
    expected = heldout_trial(tune_head(vectors, groups, test=groups >= 50, **options))
    is_other_test = (groups >= 40) & (groups < 50)
    for changed_vectors, changed_options, changed_name in (
            (vectors, dict(test=is_other_test), 'listings'), (vectors, dict(seed=1), 'seed'),
            (vectors, dict(bs=32), 'bs'), (noisy_embeddings(seed=1)[0], {}, 'vectors')):
        with pytest.raises(InputError, match=f'begun with {changed_name}'):
            tune_head(changed_vectors, groups, **{**options, 'test': groups >= 50, **changed_options})
    score_again = heldout_trial(tune_head(vectors + 1e-6, groups, test=groups >= 50, **options))
    assert (score_again.row_f1 == expected.row_f1).all()


def test_test_rows_change_nothing_else():
    vectors, groups = noisy_embeddings()
    is_test, other_vectors = groups >= 50, vectors.copy()
    other_vectors[is_test] = np.random.default_rng(5).normal(size=(is_test.sum(), 24))
    options = dict(n_trials=3, test=is_test, epochs=1)
    first_study, second_study = (tune_head(rows, groups, **options) for rows in (vectors, other_vectors))
    assert [trial.value for trial in first_study.trials] == [trial.value for trial in second_study.trials]
    assert first_study.trials[0].user_attrs['test_row_f1'] != second_study.trials[0].user_attrs['test_row_f1']


@pytest.mark.parametrize('loss_name', ['ArcFace', 'CosFace', 'CurricularFace', 'NormSoftmax'])
def test_every_named_loss_trains(loss_name):
    vectors, groups = noisy_embeddings(20)
    weight_before = FrozenNet(24, 20).map.weight
    network = fit_head(vectors, groups, {'loss': loss_name}, epochs=1, bs=16)
    assert network.map.weight.isfinite().all() and not torch.equal(weight_before, network.map.weight)


def test_embeddings_of_several_modalities_and_other_monitors():
    vectors, groups = noisy_embeddings(20)
    modalities = {'image': vectors, 'title': vectors[:, :5], 'joint': vectors}
    listings = Embeddings(modalities, np.arange(len(groups)), groups=groups)
    study = tune_head(listings, n_trials=1, space=search_space('lr', 'wd', 'opt'), monitor='recall@1',
                      epochs=1)
    assert 0 < study.best_value <= 1 and study.user_attrs['kept']['width'] == 29
    with pytest.raises(InputError, match='no test listings'): heldout_trial(study)


def seen_listings(vectors, groups):
    return Embeddings({'image': vectors}, np.arange(len(groups)), groups=groups, trained_on=groups < 2)


@pytest.mark.parametrize('refused_call, message', [
    (lambda vectors, groups: tune_head(seen_listings(vectors, groups), n_trials=1), 'trained on'),
    (lambda vectors, groups: tune_head(vectors, n_trials=1), 'groups: none are given'),
    (lambda vectors, groups: tune_head(vectors, groups, search_space('rho'), 1), r"\['rho'\]"),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, monitor='valid_loss'), 'monitor'),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, test=np.arange(len(groups)) < 5),
     'of test: their groups are in'),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, valid=groups < 3, test=groups < 5),
     'are valid and test'),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, valid=np.arange(len(groups)) < 5),
     'of valid: their groups are in'),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, valid=groups < 0), 'two groups'),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, valid=groups), 'give bool'),
    (lambda vectors, groups: tune_head(vectors, groups, n_trials=1, pruner='asha'), "'asha': no option"),
    (lambda vectors, groups: tune_head(vectors, groups, {}, 1), 'empty')])
def test_refused(refused_call, message):
    with pytest.raises(InputError, match=message): refused_call(*noisy_embeddings(20))
