"A training killed at random moments ends with the weights of one that was left alone, bit for bit."
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.data.load import DataLoader

from fastmatch.callback import resume
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.guard import Guard, NonFinite
from fastmatch.callback.mean_teacher import MeanTeacher
from fastmatch.callback.mix import MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ESAM, LookSAM
from fastmatch.callback.snapshots import Snapshots
from fastmatch.core import InputError, seed_everything
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import GradientAccumulation, Plateau
from tests.callback.small import CpuAmp, data, everything, few_listings, fit, make_learner, net

ROOT = Path(__file__).parents[2]


def start(folder):
    "Start the training of `resume_job` in a process of its own."
    command = [sys.executable, '-m', 'tests.callback.resume_job', str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'})


def finish(job):
    "Wait for a process that must succeed; what it printed."
    printed, _ = job.communicate(timeout=120)
    assert job.returncode == 0, printed
    return printed


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    job = start(folder)
    assert job.stdout.readline() == 'begun\n'
    begun = time.time()
    assert job.stdout.readline() == 'done\n'
    seconds = time.time() - begun
    finish(job)
    # a training that came to its end leaves nothing to resume
    assert not (folder/'models'/'resume.pth').exists()
    return torch.load(folder/'done.pth', weights_only=True), seconds


def same(first, second):
    "Whether nested dicts and lists are equal to the bit."
    if isinstance(first, dict):
        return set(first) == set(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list): return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if torch.is_tensor(first) else first == second


MOMENTS = [pytest.param(i, marks=[] if i < 1 else [pytest.mark.slow]) for i in range(10)]


@pytest.mark.parametrize('moment', MOMENTS)
def test_killed_at_a_random_moment(moment, undisturbed, tmp_path):
    "Freezing, ranger, MixUp, dropout, shuffling, LookSAM, EMA, the best model, two schedules in a row."
    expected, seconds = undisturbed
    # one of each tenth of the run
    killed_after = (moment * 7 % 10 + random.Random(moment).random()) / 10 * seconds
    while True:
        job = start(tmp_path)
        assert job.stdout.readline() == 'begun\n'
        time.sleep(killed_after)
        job.send_signal(signal.SIGKILL)
        job.wait()
        job.stdout.close()
        if not (tmp_path/'done.pth').exists(): break
        # a quicker run than the first
        (tmp_path/'done.pth').unlink()
        shutil.rmtree(tmp_path/'models', ignore_errors=True)
        killed_after *= .8
    finish(start(tmp_path))
    assert same(torch.load(tmp_path/'done.pth', weights_only=True), expected)


class Die(Callback):
    "Breaks off a fit as a kill would: no event comes after."
    order = 5  # before autocast, which a process takes with it
    def __init__(self, epoch=-1, batch=-1): self.at = epoch, batch
    def before_batch(self):
        if self.training and (self.epoch, self.iter) == self.at: raise KeyboardInterrupt


CELLS = {
    'plain': [], 'EMA': [lambda: EMA(.7)], 'SWA': [lambda: SWA(.3)], 'LookSAM': [lambda: LookSAM(.1, 4)],
    'ESAM': [lambda: ESAM(.1)], 'SAF': [lambda: SAF(back=1)],
    'fp16': [lambda: CpuAmp(init_scale=2.**14, growth_interval=4)],
    'accumulation': [lambda: GradientAccumulation(10)], 'Plateau': [lambda: Plateau(patience=1)],
    'mean teacher': [lambda: EMA(.7), lambda: MeanTeacher(DataLoader(data(20, 3), bs=4))],
    'MixUp': [MixUp], 'early stop': [lambda: EarlyStoppingCallback(patience=2)],
}


def losses(learner): return [float(loss) for loss in learner.recorder.losses]
def values(learner): return [list(row) for row in learner.recorder.values]


def one_run(method_name, callbacks, path, monkeypatch, die_at=(), args=(4, .05)):
    "A learner and its fit, as a process of its own would have it."
    monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
    seed_everything(0)
    learner = make_learner(net(), ranger, path, shuffle=True,
                           cbs=[make_callback() for make_callback in callbacks])
    fit(learner, method_name, *args, cbs=[Resume(), Die(*die_at)])
    return learner


@pytest.mark.parametrize('method_name', ['fit', 'fit_flat_cos', 'fit_one_cycle'])
@pytest.mark.parametrize('cell', CELLS)
def test_resumed_is_uninterrupted(cell, method_name, tmp_path, monkeypatch):
    "Broken off in the third epoch, and again in the fourth."
    expected = one_run(method_name, CELLS[cell], tmp_path/'a', monkeypatch)
    for die_at in ((2, 3), (3, 0)) if cell != 'early stop' else ((2, 3),):
        with pytest.raises(KeyboardInterrupt):
            one_run(method_name, CELLS[cell], tmp_path/'b', monkeypatch, die_at)
    actual = one_run(method_name, CELLS[cell], tmp_path/'b', monkeypatch)
    assert torch.equal(everything(expected), everything(actual))
    for name in ('lrs', 'iters'): assert getattr(expected.recorder, name) == getattr(actual.recorder, name)
    np.testing.assert_array_equal(losses(expected), losses(actual))
    assert values(expected) == values(actual)
    assert expected.epoch == actual.epoch
    if cell == 'EMA': assert all(map(torch.equal, expected.ema._set_aside, actual.ema._set_aside))


class DieIn(Die):
    "In one of several fits."
    def __init__(self, fit_number, *at):
        super().__init__(*at)
        self._fit_number = fit_number
        self._fits = -1

    def before_fit(self): self._fits += 1
    def before_batch(self):
        if self._fits == self._fit_number: super().before_batch()


@pytest.mark.parametrize('patience', [None, 2])
def test_trained_to_the_best_epoch_through_kills(patience, tmp_path, monkeypatch):
    "Broken off in the first training after its best epoch, at the start of the second, and at its end."
    def run(folder, *die_at):
        monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
        seed_everything(0)
        learner = make_learner(net(), ranger, tmp_path/folder, shuffle=True, cbs=EMA(.7))
        best_epoch = fit(learner, 'fit_to_best', 6, .6, patience=patience,
                         cbs=[Resume(), DieIn(*(die_at or (-1,)))])
        return learner, best_epoch
    expected, best_epoch = run('a')
    assert 0 < best_epoch < 4
    for die_at in ((0, best_epoch + 1, 2), (1, 0, 3), (1, best_epoch, 1)):
        with pytest.raises(KeyboardInterrupt): run('b', *die_at)
    actual, best_again = run('b')
    assert best_again == best_epoch and torch.equal(everything(expected), everything(actual))
    assert len(actual.recorder.values) == best_epoch + 1
    assert values(expected) == values(actual)


def test_a_fit_that_was_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    "In a process killed after it: nothing is trained, the end is there."
    expected = one_run('fit', [lambda: EMA(.7)], tmp_path, monkeypatch)
    batches = []
    class Count(Callback):
        run_valid = False
        def after_batch(self): batches.append(1)
    actual = one_run('fit', [lambda: EMA(.7)], tmp_path, monkeypatch)
    assert torch.equal(everything(expected), everything(actual))
    assert actual.recorder.values == values(expected)
    assert all(map(torch.equal, expected.ema._set_aside, actual.ema._set_aside))
    # in the same process a call is a new one
    learner = make_learner(net(), ranger, tmp_path, cbs=[Count()])
    fit(learner, 'fit', 2, .05, cbs=Resume())
    fit(learner, 'fit', 2, .05, cbs=Resume())
    assert len(batches) == 4 * 6


def test_another_call_is_refused(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt): one_run('fit', [], tmp_path, monkeypatch, (2, 1))
    monkeypatch.setattr(resume, 'PROCESS', 'another')
    other_calls = [
        (dict(), 5, .05, 'epochs were 4, now 5'),
        (dict(bs=8), 4, .05, 'batches were 6, now 3'),
        (dict(), 4, .1, 'rates were'),
        (dict(opt_func=sgd), 4, .05, 'optimizer were AdamFamily'),
        (dict(cbs=MixUp()), 4, .05, 'callbacks were'),
    ]
    for kwargs, n_epoch, lr, message in other_calls:
        learner = make_learner(net(), **{'opt_func': ranger, 'path': tmp_path, 'shuffle': True, **kwargs})
        with pytest.raises(InputError, match=message): fit(learner, 'fit', n_epoch, lr, cbs=Resume())


def test_validation_and_lr_find_are_let_alone(tmp_path):
    learner = make_learner(net(), ranger, tmp_path, cbs=Resume())
    fit(learner, 'validate')
    fit(learner, 'lr_find', show_plot=False, num_it=8)
    assert not learner.resume.file.exists() and 'fits_begun' not in learner.__dict__
    fit(learner, 'fit', 2, .05)
    fit(learner, 'validate')
    assert learner.fits_begun == {'resume': 0} and learner.resume.file.exists()


def test_snapshots_go_on(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        one_run('fit_cycles', [Snapshots], tmp_path, monkeypatch, (2, 3), (4, 1, .05))
    learner = one_run('fit_cycles', [Snapshots], tmp_path, monkeypatch, args=(4, 1, .05))
    assert [file.name for file in learner.snapshots.files] == [f'snapshot_{i}.pth' for i in range(4)]


class Spoil(Callback):
    "Pictures that aren't finite in the last batch of the second epoch and the first two of the third."
    run_valid, order = False, -6
    def before_batch(self):
        if (self.epoch, self.iter) in ((1, 5), (2, 0), (2, 1)): self.learn.xb = (self.xb[0] * float('nan'),)


@pytest.mark.parametrize('die_at', [(2, 0), (2, 2), (3, 1)])
def test_guard_knows_what_it_left_out(die_at, tmp_path, monkeypatch):
    "Batches left out before the kill are still told, and those in a row counted on across it."
    callbacks = [lambda: Guard(skip=3), Spoil]
    expected = one_run('fit', callbacks, tmp_path/'a', monkeypatch)
    with pytest.raises(KeyboardInterrupt): one_run('fit', callbacks, tmp_path/'b', monkeypatch, die_at)
    actual = one_run('fit', callbacks, tmp_path/'b', monkeypatch)
    assert [(epoch, batch) for epoch, batch, _ in expected.guard.bad] == [(1, 5), (2, 0), (2, 1)]
    assert 'input 0 is not finite' in actual.guard.bad[0][2]
    assert actual.guard.bad == expected.guard.bad and torch.equal(everything(expected), everything(actual))
    # the figure that a lost loss is replaced by, too
    np.testing.assert_array_equal(losses(expected), losses(actual))
    fewer_skips = [lambda: Guard(skip=2), Spoil]
    with pytest.raises(KeyboardInterrupt): one_run('fit', fewer_skips, tmp_path/'c', monkeypatch, (2, 0))
    with pytest.raises(NonFinite, match='epoch 2, batch 1'):
        one_run('fit', fewer_skips, tmp_path/'c', monkeypatch)


def test_match_learner_with_its_own_sampler(tmp_path, monkeypatch, capsys):
    "Groups drawn batch by batch, augmentation, class centers, progress bars, the listings trained on."
    from fastai.vision.augment import Resize

    from fastmatch.data.augment import augs
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.data.demo import demo_path
    from fastmatch.learner import match_learner
    df = few_listings(8)

    def run(folder, *die_at):
        monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
        seed_everything(0)
        dls = MatchDataLoaders.from_df(df, demo_path()/'images', text_col=None, fold_col='fold',
                                       item_tfms=Resize(32), batch_tfms=augs('colour'), bs=16, num_workers=0,
                                       phash=False, sampler='pk', seed=0)
        learner = match_learner(dls, 'test_efficientnet', pretrained=False, path=tmp_path/folder,
                              cbs=[LookSAM(.1, 2), EMA(.8)])
        learner.fit_flat_cos(3, 1e-3, cbs=[Resume(), Die(*die_at)])
        return learner
    expected = run('a')
    with pytest.raises(KeyboardInterrupt): run('b', 2, 1)
    actual = run('b')
    assert torch.equal(everything(expected), everything(actual))
    assert actual.trained_on.ids == expected.trained_on.ids and actual.trained_on.ids
    assert values(expected) == values(actual)
    assert 'Resume: 2 of 3 epochs were done before' in capsys.readouterr().out
    # and once more, when all is done
    once_more = run('b')
    assert torch.equal(everything(once_more), everything(actual))
    assert once_more.trained_on.ids == actual.trained_on.ids


@pytest.mark.parametrize('sampler', [None, 'pk'])
def test_match_learner_in_buckets(sampler, tmp_path, monkeypatch):
    "Batches of titles of like length are the same ones after a kill."
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.learner import match_learner
    from tests.learner.small import Letters
    df = few_listings(12)
    df['title'] = [title * (1 + row % 7) for row, title in enumerate(df.title)]

    def run(folder, *die_at, buckets=True):
        monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
        seed_everything(0)
        dls = MatchDataLoaders.from_df(df, image_col=None, fold_col='fold', bs=8, num_workers=0, phash=False,
                                       sampler=sampler, seed=0, buckets=buckets)
        learner = match_learner(dls, text_arch=Letters(), path=tmp_path/folder)
        learner.fit_flat_cos(3, 1e-2, cbs=[Resume(), Die(*die_at)])
        return learner
    expected = run('a')
    with pytest.raises(KeyboardInterrupt): run('b', 2, 1)
    assert torch.equal(everything(expected), everything(run('b')))
    assert not torch.equal(everything(expected), everything(run('c', buckets=False)))
