"`tune_head`: its head starts as no change, learns what is there, and is reported on groups nobody chose by."
import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, heldout, paired
from fastmatch.study.engine.space import spaces
from fastmatch.study.head import FrozenNet, fit_head, judge_head, tune_head
from fastmatch.study.reported import tested as score_of


def frozen(n_groups=60, each=4, width=24, n_noise=8, seed=0):
    "Embeddings a third of whose columns is noise that a linear map can take away."
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), each)
    n_useful = width - n_noise
    useful = rng.normal(size=(n_groups, n_useful))[groups] + .5 * rng.normal(size=(len(groups), n_useful))
    noise = 2.5 * rng.normal(size=(len(groups), n_noise))
    return np.concatenate([useful, noise], 1).astype(np.float32), groups


def test_a_new_head_changes_nothing():
    vectors, groups = frozen()
    network = FrozenNet(24, 60).eval()
    with torch.no_grad(): embedded = network.embed(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(embedded, vectors, rtol=1e-4)
    plain = heldout(Dense(vectors).search(50), groups, halvings=5, seed=3)
    np.testing.assert_allclose(judge_head(network, vectors, groups, 3).row_f1, plain.row_f1)


def test_training_finds_the_useful_directions():
    vectors, groups = frozen()
    train = groups < 45
    network = fit_head(vectors[train], groups[train], {'lr': .02}, epochs=20, bs=45)
    with_head = judge_head(network, vectors[~train], groups[~train], 0)
    without = judge_head(None, vectors[~train], groups[~train], 0)
    assert paired(with_head, without).low > .05

    def weight(): return fit_head(vectors[train], groups[train], {}, epochs=1, seed=1).map.weight
    assert torch.equal(weight(), weight())


def test_a_study():
    vectors, groups = frozen()
    test = groups >= 50
    study = tune_head(vectors, groups, n_trials=4, test=test, epochs=2, seed=1)
    first = study.trials[0]
    assert first.params == {'margin': .3, 'scale': 20.} and len(study.trials) == 4
    held = score_of(study, 'default')
    assert held.mean == pytest.approx(first.user_attrs['test_row_f1'], abs=1e-4)
    assert len(held.row_f1) == test.sum()
    assert held.se == pytest.approx(first.user_attrs['test_se'], abs=1e-4)
    assert set(study.user_attrs['frozen']) == {'valid', 'test'}
    assert paired(score_of(study), held).diff == pytest.approx(score_of(study).mean - held.mean)


def test_only_the_same_question_is_continued(tmp_path):
    "Scores of other test rows than the study's, as many of them, would be paired with these rows' groups."
    vectors, groups = frozen()
    keywords = dict(n_trials=1, epochs=1, storage=tmp_path/'a.db', valid=groups < 10)
    want = score_of(tune_head(vectors, groups, test=groups >= 50, **keywords))
    other_test = (groups >= 40) & (groups < 50)
    for rows, change, word in (
            (vectors, dict(test=other_test), 'listings'), (vectors, dict(seed=1), 'seed'),
            (vectors, dict(bs=32), 'bs'), (frozen(seed=1)[0], {}, 'vectors')):
        with pytest.raises(InputError, match=f'begun with {word}'):
            tune_head(rows, groups, **{**keywords, 'test': groups >= 50, **change})
    again = score_of(tune_head(vectors + 1e-6, groups, test=groups >= 50, **keywords))
    assert (again.row_f1 == want.row_f1).all()


def test_test_rows_change_nothing_else():
    vectors, groups = frozen()
    test, other = groups >= 50, vectors.copy()
    other[test] = np.random.default_rng(5).normal(size=(test.sum(), 24))
    first, second = (tune_head(rows, groups, n_trials=3, test=test, epochs=1) for rows in (vectors, other))
    assert [trial.value for trial in first.trials] == [trial.value for trial in second.trials]
    assert first.trials[0].user_attrs['test_row_f1'] != second.trials[0].user_attrs['test_row_f1']


@pytest.mark.parametrize('loss', ['ArcFace', 'CosFace', 'CurricularFace', 'NormSoftmax'])
def test_every_named_loss_trains(loss):
    vectors, groups = frozen(20)
    before = FrozenNet(24, 20).map.weight
    network = fit_head(vectors, groups, {'loss': loss}, epochs=1, bs=16)
    assert network.map.weight.isfinite().all() and not torch.equal(before, network.map.weight)


def test_embeddings_of_several_modalities_and_other_monitors():
    vectors, groups = frozen(20)
    modalities = {'image': vectors, 'title': vectors[:, :5], 'joint': vectors}
    listings = Embeddings(modalities, np.arange(len(groups)), groups=groups)
    study = tune_head(listings, n_trials=1, space=spaces('lr', 'wd', 'opt'), monitor='recall@1', epochs=1)
    assert 0 < study.best_value <= 1 and study.user_attrs['kept']['width'] == 29
    with pytest.raises(InputError, match='no test listings'): score_of(study)


def seen_listings(vectors, groups):
    return Embeddings({'image': vectors}, np.arange(len(groups)), groups=groups, trained_on=groups < 2)


@pytest.mark.parametrize('do, words', [
    (lambda vectors, groups: tune_head(seen_listings(vectors, groups), n_trials=1), 'trained on'),
    (lambda vectors, groups: tune_head(vectors, n_trials=1), 'groups: none are given'),
    (lambda vectors, groups: tune_head(vectors, groups, spaces('rho'), 1), r"\['rho'\]"),
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
def test_refused(do, words):
    with pytest.raises(InputError, match=words): do(*frozen(20))
