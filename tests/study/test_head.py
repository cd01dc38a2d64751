"`tune_head`: the head it trains starts as nothing, learns what is there, and is reported on groups that nobody chose by."
import numpy as np
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, heldout, paired
from fastmatch.study.engine.space import spaces
from fastmatch.study.head import FrozenNet, fit_head, judge_head, tune_head
from fastmatch.study.tune import tested as score_of


def frozen(groups=60, each=4, d=24, useless=8, seed=0):
    "Embeddings half of whose room is noise that a linear map can take away."
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(groups), each)
    x = np.concatenate([rng.normal(size=(groups, d - useless))[y] + .5 * rng.normal(size=(len(y), d - useless)), 2.5 * rng.normal(size=(len(y), useless))], 1)
    return x.astype(np.float32), y


def test_a_new_head_changes_nothing():
    x, y = frozen()
    net = FrozenNet(24, 60).eval()
    with torch.no_grad(): np.testing.assert_allclose(net.embed(torch.from_numpy(x)).numpy(), x, rtol=1e-4)
    np.testing.assert_allclose(judge_head(net, x, y, 3).row_f1, heldout(Dense(x).search(50), y, halvings=5, seed=3).row_f1)


def test_training_finds_the_useful_directions():
    x, y = frozen()
    train = y < 45
    net = fit_head(x[train], y[train], {'lr': .02}, epochs=20, bs=45)
    gain = paired(judge_head(net, x[~train], y[~train], 0), judge_head(None, x[~train], y[~train], 0))
    assert gain.low > .05
    a, b = (fit_head(x[train], y[train], {}, epochs=1, seed=s).map.weight for s in (1, 1))
    assert torch.equal(a, b)


def test_a_study():
    x, y = frozen()
    test = y >= 50
    study = tune_head(x, y, n_trials=4, test=test, epochs=2, seed=1)
    first = study.trials[0]
    assert first.params == {'margin': .3, 'scale': 20.} and len(study.trials) == 4
    held = score_of(study, 'default')
    assert held.mean == pytest.approx(first.user_attrs['test_row_f1'], abs=1e-4) and len(held.row_f1) == test.sum()
    assert held.se == pytest.approx(first.user_attrs['test_se'], abs=1e-4)
    assert set(study.user_attrs['frozen']) == {'valid', 'test'}
    assert paired(score_of(study), held).diff == pytest.approx(score_of(study).mean - held.mean)


def test_only_the_same_question_goes_on(tmp_path):
    "Scores of other test rows than the study's, as many of them, would be paired with these rows' groups."
    x, y = frozen()
    call = dict(n_trials=1, epochs=1, storage=tmp_path/'a.db', valid=y < 10)
    want = score_of(tune_head(x, y, test=y >= 50, **call))
    for a, change, word in ((x, dict(test=(y >= 40) & (y < 50)), 'listings'), (x, dict(seed=1), 'seed'), (x, dict(bs=32), 'bs'), (frozen(seed=1)[0], {}, 'vectors')):
        with pytest.raises(InputError, match=f'begun with {word}'): tune_head(a, y, **{**call, 'test': y >= 50, **change})
    assert (score_of(tune_head(x + 1e-6, y, test=y >= 50, **call)).row_f1 == want.row_f1).all()


def test_test_rows_change_nothing_else():
    x, y = frozen()
    test, other = y >= 50, x.copy()
    other[test] = np.random.default_rng(5).normal(size=(test.sum(), 24))
    a, b = (tune_head(o, y, n_trials=3, test=test, epochs=1) for o in (x, other))
    assert [t.value for t in a.trials] == [t.value for t in b.trials]
    assert a.trials[0].user_attrs['test_row_f1'] != b.trials[0].user_attrs['test_row_f1']


@pytest.mark.parametrize('loss', ['ArcFace', 'CosFace', 'CurricularFace', 'NormSoftmax'])
def test_every_named_loss_trains(loss):
    x, y = frozen(20)
    before, net = FrozenNet(24, 20).map.weight, fit_head(x, y, {'loss': loss}, epochs=1, bs=16)
    assert net.map.weight.isfinite().all() and not torch.equal(before, net.map.weight)


def test_embeddings_of_several_modalities_and_other_monitors():
    x, y = frozen(20)
    emb = Embeddings({'image': x, 'title': x[:, :5], 'joint': x}, np.arange(len(y)), groups=y)
    study = tune_head(emb, n_trials=1, space=spaces('lr', 'wd', 'opt'), monitor='recall@1', epochs=1)
    assert 0 < study.best_value <= 1 and study.user_attrs['kept']['width'] == 29
    with pytest.raises(InputError, match='no test listings'): score_of(study)


def labelled(x, y, trained): return Embeddings({'image': x}, np.arange(len(y)), groups=y, trained_on=trained)


@pytest.mark.parametrize('do, words', [
    (lambda x, y: tune_head(labelled(x, y, y < 2), n_trials=1), 'trained on'), (lambda x, y: tune_head(x, n_trials=1), 'labels'),
    (lambda x, y: tune_head(x, y, spaces('rho'), 1), r"\['rho'\]"), (lambda x, y: tune_head(x, y, n_trials=1, monitor='valid_loss'), 'monitor'),
    (lambda x, y: tune_head(x, y, n_trials=1, test=np.arange(len(y)) < 5), 'of test: their groups are in'),
    (lambda x, y: tune_head(x, y, n_trials=1, valid=y < 3, test=y < 5), 'are valid and test'),
    (lambda x, y: tune_head(x, y, n_trials=1, valid=np.arange(len(y)) < 5), 'of valid: their groups are in'),
    (lambda x, y: tune_head(x, y, n_trials=1, valid=y < 0), 'two groups'), (lambda x, y: tune_head(x, y, n_trials=1, valid=y), 'give bool'),
    (lambda x, y: tune_head(x, y, {}, 1), 'empty')])
def test_refused(do, words):
    with pytest.raises(InputError, match=words): do(*frozen(20))
