"Folds: predictions of held-out items are the learners' own, nothing is trained twice, others are refused."
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from fastmatch.core import InputError, seed_everything
from fastmatch.semi.folds import load_folds, train_folds, train_full
from fastmatch.semi.heldout import embeddings_of
from tests.semi import jobs
from tests.semi.jobs import classifier, fit, items, matching


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return train_folds(classifier, fit, tmp_path_factory.mktemp('runs')/'a', n_folds=3, seeds=(0, 1),
                       settings={'table': 'sample'}, monitor='valid_loss')


def refuse_to_train(learner): raise AssertionError('trained again')


def test_what_is_kept_is_what_each_learner_says(run):
    seed_everything(0)
    learner = classifier(1, 0)
    fit(learner)
    expected = learner.predictions()
    found = run.out_of_fold(0)
    own = found.folds == 1
    assert found.ids[own].tolist() == expected.posting_id.tolist()
    assert found.classes == list(learner.dls.vocab)
    np.testing.assert_allclose(found.probabilities[own], expected[found.classes], atol=1e-5)
    truth = learner.dls.valid_df.vendor.map(found.classes.index)
    np.testing.assert_array_equal(found.targets[own], truth)
    assert sorted(found.ids) == sorted(items().posting_id) and found.trained_on[1] == sorted(
        learner.dls.train_df.posting_id)
    embeddings = run.embeddings(1, 0)
    np.testing.assert_allclose(embeddings['image'], embeddings_of(learner)['image'], atol=1e-5)
    # the features that the head reads
    with torch.no_grad():
        learner.model.eval()
        logits = learner.model.heads['image'](learner.model.necks['image'](torch.tensor(embeddings['image'])))
    np.testing.assert_allclose(logits.softmax(1), found.probabilities[own], atol=1e-5)
    assert embeddings.groups.tolist() == learner.dls.valid_df.vendor.tolist()


def test_weights_come_back_with_what_they_were_trained_on(run):
    learner = run.learner(2, 1)
    found = run.out_of_fold(1)
    np.testing.assert_allclose(learner.predictions()[found.classes].to_numpy(),
                               found.probabilities[found.folds == 2], atol=1e-5)
    assert learner.trained_on.ids == set(learner.dls.train_df.posting_id) and not learner.trained_on.unknown
    with pytest.raises(InputError, match='make_learner is needed'): load_folds(run.folder).learner(0, 0)


def test_the_mean_of_seeds(run):
    both, parts = run.out_of_fold(), [run.out_of_fold(seed) for seed in (0, 1)]
    np.testing.assert_allclose(both.probabilities, (parts[0].probabilities + parts[1].probabilities) / 2)
    assert np.abs(parts[0].probabilities - parts[1].probabilities).max() > .01
    with pytest.raises(InputError, match='seed 7: fold 0 is missing'): run.out_of_fold(7)


def test_nothing_finished_is_trained_again(run, monkeypatch):
    from fastmatch.semi import folds
    monkeypatch.setattr(folds, '_train_one', lambda *_: refuse_to_train(None))
    again = train_folds(classifier, fit, run.folder, n_folds=3, seeds=1, settings={'table': 'sample'},
                        monitor='valid_loss')
    assert again.finished == run.finished and again.seeds == [0, 1]
    assert load_folds(run.folder).out_of_fold().macro_f1 == run.out_of_fold().macro_f1


def test_no_pickle(run):
    kinds = {file.suffix for file in run.folder.rglob('*') if file.is_file()}
    assert kinds == {'.json', '.safetensors'}


def test_a_run_that_was_killed_goes_on(tmp_path):
    folder = tmp_path/'run'
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.semi.jobs', str(folder)]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, env={**os.environ, 'DIE': '1'})
    assert ended.returncode == -signal.SIGKILL and load_folds(folder).finished == [(0, 0)]
    (folder/'seed 0 fold 1').mkdir()
    (folder/'seed 0 fold 1'/'.weights.half').mkdir()
    kept = {file: file.stat().st_mtime_ns for file in folder.rglob('*') if file.is_file()}
    run = train_folds(classifier, jobs.fit_or_die, folder, n_folds=3)
    assert run.finished == [(0, 0), (1, 0), (2, 0)] and len(run.out_of_fold()) == len(items())
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert not list(folder.rglob('.weights*'))


def test_another_runs_folder_is_refused_with_words(run, tmp_path, monkeypatch):
    def again(make=classifier, by=fit, **options):
        return train_folds(make, by, run.folder, **{'n_folds': 3, 'settings': {'table': 'sample'},
                                                    'monitor': 'valid_loss', **options})
    for options, message in (
            (dict(n_folds=4), 'holds a run with n_folds=3, and this one has 4'),
            (dict(settings={'table': 'other'}), "settings={'table': 'sample'}, and this one has"),
            (dict(monitor=None), "monitor='valid_loss'"), (dict(tta=True), 'tta=False'),
            (dict(by=refuse_to_train), 'the code of fit, or a number'),
            (dict(make=partial(classifier, bs=8)), 'the code of make_learner'),
            (dict(settings={'x': object()}), 'settings: object is no plain value')):
        with pytest.raises(InputError, match=message): again(**options)
    # a number that `fit` reads from its module
    monkeypatch.setattr(jobs, 'RATE', 1e-3)
    with pytest.raises(InputError, match='the code of fit'): again()
    monkeypatch.undo()
    (tmp_path/'thesis').write_text('mine')
    with pytest.raises(InputError, match='holds something else .thesis'):
        train_folds(classifier, fit, tmp_path)
    with pytest.raises(InputError, match='n_folds=1'): train_folds(classifier, fit, tmp_path/'x', n_folds=1)


def test_other_items_in_the_same_run_are_refused(tmp_path):
    table = items()

    def make(fold, seed): return classifier(fold, seed, table)
    folder = tmp_path/'run'
    train_folds(make, fit, folder, n_folds=3)
    table = table.iloc[3:]
    with pytest.raises(InputError, match='fold 0, seed 1: items of the learner differ from those of fold 0'):
        train_folds(make, fit, folder, n_folds=3, seeds=1)


@pytest.mark.parametrize('make, by, message', [
    (lambda fold, seed: classifier(0, seed), fit, r'fold 1 holds out 20 items that fold 0 held out'),
    (lambda fold, seed: classifier(None, seed), fit, 'holds out nothing'),
    (classifier, lambda learner: None, 'fit trained nothing'),
    (lambda fold, seed: 'learner', fit, 'make_learner gave str')])
def test_folds_that_are_none(make, by, message, tmp_path):
    with pytest.raises(InputError, match=message): train_folds(make, by, tmp_path/'run', n_folds=3)


def test_training_on_what_is_held_out_is_refused_with_the_ids(tmp_path):
    def fit_both(learner):
        other = classifier(1, 0)
        fit(learner)
        learner.dls = other.dls
        fit(learner)
        learner.dls = classifier(0, 0).dls
    with pytest.raises(InputError, match=r'fold 0, seed 0: the learner was trained on 20 of the items that '
                                         f'it holds out \\({items().posting_id[0]}'):
        train_folds(classifier, fit_both, tmp_path/'run', n_folds=3)


def test_weights_of_unknown_origin(tmp_path):
    "Encoders pretrained without labels are fine; what they were trained on now is known."
    state = {name: tensor.clone() for name, tensor in classifier(0, 0).model.state_dict().items()
             if name.startswith('encoders.')}

    def make(fold, seed): return classifier(fold, seed).load_encoder_state(state)
    with pytest.warns(UserWarning, match='no labels of held-out items'):
        run = train_folds(make, fit, tmp_path/'run', n_folds=3)
    assert len(run.out_of_fold()) == len(items())


def test_folds_of_a_match_learner(tmp_path):
    run = train_folds(matching, fit, tmp_path/'run', n_folds=3, tta=True)
    learner = run.learner(1, 0)
    expected, found = learner.embeddings(tta=True), run.embeddings(1, 0)
    np.testing.assert_allclose(found['image'], expected['image'], atol=1e-5)
    assert found.ids.tolist() == expected.ids.tolist() and found.made_with == expected.made_with
    assert found.groups.tolist() == [str(group) for group in expected.groups] and not found.trained_on.any()
    assert learner.trained_on.ids == set(learner.dls.train_df.posting_id)
    with pytest.raises(InputError, match='no classes'): run.out_of_fold()


def test_full_training_takes_the_folds_epochs(run):
    trained = []

    def fit_three(learner):
        with learner.no_bar(), learner.no_logging(): learner.fit(3, 1e-3)
        trained.append(len(learner.recorder.values))
    assert run.best_epochs == [0] * 6
    learner = train_full(run, lambda seed: classifier(None, seed), fit_three)
    assert trained == [1] and len(learner.dls.train_df) == len(items())
    train_full(run, lambda seed: classifier(None, seed), fit_three, epochs=2)
    assert trained == [1, 2]
    with pytest.raises(InputError, match='make_full holds out 20'):
        train_full(run, lambda seed: classifier(0, seed), fit_three)
    with pytest.raises(InputError, match='epochs=0'): train_full(run, None, fit_three, epochs=0)


def test_the_best_epoch_is_that_of_the_recorder(tmp_path):
    seen = []

    def fit_three(learner):
        with learner.no_bar(), learner.no_logging(): learner.fit(3, 3e-2)
        seen.append([values[-1] for values in learner.recorder.values])
    run = train_folds(classifier, fit_three, tmp_path/'run', n_folds=3, monitor='macro_f1')
    assert run.best_epochs == [int(np.argmax(series)) for series in seen]
    assert run.about(0, 0)['epochs'] == 3
    content = json.loads((run.part(0, 0)/'heldout'/'fold.json').read_text())
    assert content['best_epoch'] == run.best_epochs[0]


def test_options_that_no_training_could_serve_are_told_before_it(tmp_path):
    trained = []

    def fit_and_note(learner):
        fit(learner)
        trained.append(learner)
    for number, options in enumerate((dict(monitor='f2'), dict(tta='mirror'))):
        with pytest.raises(InputError, match=f'{next(iter(options))}='):
            train_folds(classifier, fit_and_note, tmp_path/str(number), n_folds=3, **options)
    assert trained == []


@pytest.mark.slow
def test_memory_stays_flat_over_ten_folds(tmp_path):
    "Ten models would take 320 MB."
    table = items().assign(fold=lambda rows: rows.index % 10)
    used = []

    def make(fold, seed):
        learner = classifier(fold, seed, table)
        learner.model.encoders['image'].ballast = torch.nn.Linear(8_000, 1_000)
        return learner

    def fit_and_look(learner):
        fit(learner)
        used.append(psutil.Process().memory_info().rss / 2**20)
    train_folds(make, fit_and_look, tmp_path/'run', n_folds=10)
    assert max(used[3:]) - used[2] < 80, used
