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

from fastmatch.callback import resume
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.guard import Guard, NonFinite
from fastmatch.callback.mix import MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ESAM, LookSAM
from fastmatch.callback.snapshots import Snapshots
from fastmatch.core import InputError, seed_everything
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import GradientAccumulation, Plateau
from tests.callback.small import CpuAmp, everything, few_listings, fit, learner, net

ROOT = Path(__file__).parents[2]


def start(folder):
    "Start the training of `resume_job` in a process of its own."
    command = [sys.executable, '-m', 'tests.callback.resume_job', str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, 'OMP_NUM_THREADS': '1'})


def finish(job):
    "Wait for a process that must succeed; what it printed."
    out, _ = job.communicate(timeout=120)
    assert job.returncode == 0, out
    return out


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


def same(a, b):
    "Whether nested dicts and lists are equal to the bit."
    if isinstance(a, dict): return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list): return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


MOMENTS = [pytest.param(i, marks=[] if i < 1 else [pytest.mark.slow]) for i in range(10)]


@pytest.mark.parametrize('moment', MOMENTS)
def test_killed_at_a_random_moment(moment, undisturbed, tmp_path):
    "Freezing, ranger, MixUp, dropout, shuffling, LookSAM, EMA, the best model, two schedules in a row."
    want, seconds = undisturbed
    # one of each tenth of the run
    after = (moment * 7 % 10 + random.Random(moment).random()) / 10 * seconds
    while True:
        job = start(tmp_path)
        assert job.stdout.readline() == 'begun\n'
        time.sleep(after)
        job.send_signal(signal.SIGKILL)
        job.wait()
        job.stdout.close()
        if not (tmp_path/'done.pth').exists(): break
        # a quicker run than the first
        (tmp_path/'done.pth').unlink()
        shutil.rmtree(tmp_path/'models', ignore_errors=True)
        after *= .8
    finish(start(tmp_path))
    assert same(torch.load(tmp_path/'done.pth', weights_only=True), want)


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
    'MixUp': [MixUp], 'early stop': [lambda: EarlyStoppingCallback(patience=2)],
}


def losses(learn): return [float(loss) for loss in learn.recorder.losses]
def values(learn): return [list(row) for row in learn.recorder.values]


def one_run(how, cbs, path, monkeypatch, die=(), args=(4, .05)):
    "A learner and its fit, as a process of its own would have it."
    monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
    seed_everything(0)
    learn = learner(net(), ranger, path, shuffle=True, cbs=[make() for make in cbs])
    fit(learn, how, *args, cbs=[Resume(), Die(*die)])
    return learn


@pytest.mark.parametrize('how', ['fit', 'fit_flat_cos', 'fit_one_cycle'])
@pytest.mark.parametrize('cell', CELLS)
def test_resumed_is_uninterrupted(cell, how, tmp_path, monkeypatch):
    "Broken off in the third epoch, and again in the fourth."
    want = one_run(how, CELLS[cell], tmp_path/'a', monkeypatch)
    for die in ((2, 3), (3, 0)) if cell != 'early stop' else ((2, 3),):
        with pytest.raises(KeyboardInterrupt): one_run(how, CELLS[cell], tmp_path/'b', monkeypatch, die)
    got = one_run(how, CELLS[cell], tmp_path/'b', monkeypatch)
    assert torch.equal(everything(want), everything(got))
    for name in ('lrs', 'iters'): assert getattr(want.recorder, name) == getattr(got.recorder, name)
    np.testing.assert_array_equal(losses(want), losses(got))
    assert values(want) == values(got)
    assert want.epoch == got.epoch
    if cell == 'EMA': assert all(map(torch.equal, want.ema._set_aside, got.ema._set_aside))


class DieIn(Die):
    "In one of several fits."
    def __init__(self, nth, *at):
        super().__init__(*at)
        self._nth = nth
        self._fits = -1

    def before_fit(self): self._fits += 1
    def before_batch(self):
        if self._fits == self._nth: super().before_batch()


@pytest.mark.parametrize('patience', [None, 2])
def test_trained_to_the_best_epoch_through_kills(patience, tmp_path, monkeypatch):
    "Broken off in the first training after its best epoch, at the start of the second, and at its end."
    def run(folder, *die):
        monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
        seed_everything(0)
        learn = learner(net(), ranger, tmp_path/folder, shuffle=True, cbs=EMA(.7))
        best = fit(learn, 'fit_to_best', 6, .6, patience=patience, cbs=[Resume(), DieIn(*(die or (-1,)))])
        return learn, best
    want, best = run('a')
    assert 0 < best < 4
    for die in ((0, best + 1, 2), (1, 0, 3), (1, best, 1)):
        with pytest.raises(KeyboardInterrupt): run('b', *die)
    got, again = run('b')
    assert again == best and torch.equal(everything(want), everything(got))
    assert len(got.recorder.values) == best + 1
    assert values(want) == values(got)


def test_a_fit_that_was_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    "In a process killed after it: nothing is trained, the end is there."
    want = one_run('fit', [lambda: EMA(.7)], tmp_path, monkeypatch)
    batches = []
    class Count(Callback):
        run_valid = False
        def after_batch(self): batches.append(1)
    got = one_run('fit', [lambda: EMA(.7)], tmp_path, monkeypatch)
    assert torch.equal(everything(want), everything(got)) and got.recorder.values == values(want)
    assert all(map(torch.equal, want.ema._set_aside, got.ema._set_aside))
    # in the same process a call is a new one
    learn = learner(net(), ranger, tmp_path, cbs=[Count()])
    fit(learn, 'fit', 2, .05, cbs=Resume())
    fit(learn, 'fit', 2, .05, cbs=Resume())
    assert len(batches) == 4 * 6


def test_another_call_is_refused(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt): one_run('fit', [], tmp_path, monkeypatch, (2, 1))
    monkeypatch.setattr(resume, 'PROCESS', 'another')
    others = [
        (dict(), 5, .05, 'epochs were 4, now 5'),
        (dict(bs=8), 4, .05, 'batches were 6, now 3'),
        (dict(), 4, .1, 'rates were'),
        (dict(opt_func=sgd), 4, .05, 'optimizer were AdamFamily'),
        (dict(cbs=MixUp()), 4, .05, 'callbacks were'),
    ]
    for kwargs, n_epoch, lr, found in others:
        learn = learner(net(), **{'opt_func': ranger, 'path': tmp_path, 'shuffle': True, **kwargs})
        with pytest.raises(InputError, match=found): fit(learn, 'fit', n_epoch, lr, cbs=Resume())


def test_validation_and_lr_find_are_let_alone(tmp_path):
    learn = learner(net(), ranger, tmp_path, cbs=Resume())
    fit(learn, 'validate')
    fit(learn, 'lr_find', show_plot=False, num_it=8)
    assert not learn.resume.file.exists() and 'fits_begun' not in learn.__dict__
    fit(learn, 'fit', 2, .05)
    fit(learn, 'validate')
    assert learn.fits_begun == {'resume': 0} and learn.resume.file.exists()


def test_snapshots_go_on(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        one_run('fit_cycles', [Snapshots], tmp_path, monkeypatch, (2, 3), (4, 1, .05))
    learn = one_run('fit_cycles', [Snapshots], tmp_path, monkeypatch, args=(4, 1, .05))
    assert [file.name for file in learn.snapshots.files] == [f'snapshot_{i}.pth' for i in range(4)]


class Spoil(Callback):
    "Pictures that aren't finite in the last batch of the second epoch and the first two of the third."
    run_valid, order = False, -6
    def before_batch(self):
        if (self.epoch, self.iter) in ((1, 5), (2, 0), (2, 1)): self.learn.xb = (self.xb[0] * float('nan'),)


@pytest.mark.parametrize('die', [(2, 0), (2, 2), (3, 1)])
def test_guard_knows_what_it_left_out(die, tmp_path, monkeypatch):
    "Batches left out before the kill are still told, and those in a row counted on across it."
    cbs = [lambda: Guard(skip=3), Spoil]
    want = one_run('fit', cbs, tmp_path/'a', monkeypatch)
    with pytest.raises(KeyboardInterrupt): one_run('fit', cbs, tmp_path/'b', monkeypatch, die)
    got = one_run('fit', cbs, tmp_path/'b', monkeypatch)
    assert [(epoch, batch) for epoch, batch, _ in want.guard.bad] == [(1, 5), (2, 0), (2, 1)]
    assert 'input 0 is not finite' in got.guard.bad[0][2]
    assert got.guard.bad == want.guard.bad and torch.equal(everything(want), everything(got))
    # the figure that a lost loss is replaced by, too
    np.testing.assert_array_equal(losses(want), losses(got))
    few = [lambda: Guard(skip=2), Spoil]
    with pytest.raises(KeyboardInterrupt): one_run('fit', few, tmp_path/'c', monkeypatch, (2, 0))
    with pytest.raises(NonFinite, match='epoch 2, batch 1'): one_run('fit', few, tmp_path/'c', monkeypatch)


def test_match_learner_with_its_own_sampler(tmp_path, monkeypatch, capsys):
    "Groups drawn batch by batch, augmentation, class centers, progress bars, the listings trained on."
    from fastai.vision.augment import Resize

    from fastmatch.data.augment import augs
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.data.demo import demo_path
    from fastmatch.learner import match_learner
    df = few_listings(8)

    def run(folder, *die):
        monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
        seed_everything(0)
        dls = MatchDataLoaders.from_df(df, demo_path()/'images', text_col=None, fold_col='fold',
                                       item_tfms=Resize(32), batch_tfms=augs('colour'), bs=16, num_workers=0,
                                       phash=False, sampler='pk', seed=0)
        learn = match_learner(dls, 'test_efficientnet', pretrained=False, path=tmp_path/folder,
                              cbs=[LookSAM(.1, 2), EMA(.8)])
        learn.fit_flat_cos(3, 1e-3, cbs=[Resume(), Die(*die)])
        return learn
    want = run('a')
    with pytest.raises(KeyboardInterrupt): run('b', 2, 1)
    got = run('b')
    assert torch.equal(everything(want), everything(got))
    assert got.trained_on.ids == want.trained_on.ids and got.trained_on.ids
    assert values(want) == values(got)
    assert 'Resume: 2 of 3 epochs were done before' in capsys.readouterr().out
    # and once more, when all is done
    again = run('b')
    assert torch.equal(everything(again), everything(got)) and again.trained_on.ids == got.trained_on.ids
