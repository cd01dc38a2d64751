"""One of several processes that train together, or one process with the batch of all: for
`test_distributed.py`.

`python -m tests.learner.distributed_job WHAT FOLDER BATCH_SIZE` trains as `JOBS[WHAT]` says and writes what
came of it to `FOLDER/WHAT_PROCESS_BATCHSIZE.pt`.
"""
import os
import signal
import sys
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.vision.augment import Resize
from timm.layers import BatchNormAct2d
from torch import nn

from fastmatch.callback import resume
from fastmatch.callback.adversarial import PGD
from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.resume import Resume
from fastmatch.callback.sharpness import SAM, LookSAM
from fastmatch.core import seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.heads import TrackedHead
from fastmatch.learner import classify_learner, match_learner
from fastmatch.losses import ArcFace, CurricularFace, SumLoss
from fastmatch.losses.pair import MultiSimilarity, Triplet
from fastmatch.optim import sgd
from tests.callback.small import few_listings

PROCESS = int(os.environ.get('RANK', 0))
KILL = os.environ.get('KILL')  # when this process kills itself: 'epoch', 'saving'


class SmallEncoder(nn.Module):
    "Smooth, with a BatchNorm layer of timm's, which holds its activation."
    n_out = 8
    mean = std = [.5, .5, .5]

    def __init__(self, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=3, bias=False)
        self.norm = BatchNormAct2d(8, act_layer=nn.SiLU) if norm else nn.SiLU()

    def forward(self, images):
        images = images.as_subclass(torch.Tensor).to(self.conv.weight.dtype)
        return self.norm(self.conv(images)).mean((2, 3))


class Doubles(Callback):
    "fastai's mean of recent losses begins as float32."
    order = 51
    def before_fit(self): self.learn.recorder.smooth_loss.val = torch.zeros((), dtype=torch.float64)


class Killed(Callback):
    "Kills its process after some epochs, before anything of the next is done."
    def before_epoch(self):
        if self.epoch == 2 and KILL == 'epoch': os.kill(os.getpid(), signal.SIGKILL)


class KilledOs:
    "`os` of which the second `replace` never comes."
    calls = 0
    def replace(self, *args):
        self.calls += 1
        if self.calls == 2: os.kill(os.getpid(), signal.SIGKILL)
        os.replace(*args)


def trained(learn):
    # so that what differs is not rounding
    learn.model.double()
    learn.add_cb(Doubles())
    return learn


def loaders(kind, **columns):
    dls = kind.from_df(few_listings(20), demo_path()/'images', title_col=None, valid_fold=0, bs=BS,
                       item_tfms=Resize(32), batch_tfms=None, num_workers=0, phash=False, **columns)
    # the table's order: one process draws the same rows as several
    dls.train.shuffle = False
    return dls


def matching(loss, *cbs, norm=True, **options):
    return trained(match_learner(loaders(MatchDataLoaders), SmallEncoder(norm), loss_func=loss, opt_func=sgd,
                                 wd=0., normalize=False, path=FOLDER, cbs=list(cbs), **options))


def classifying():
    dls = loaders(ClassifyDataLoaders, label_col='vendor')
    return trained(classify_learner(dls, SmallEncoder(), opt_func=sgd, wd=0., normalize=False,
                                    p=0.))


JOBS = {
    'arcface': lambda: matching(ArcFace(), EMA()),
    'triplet': lambda: matching(SumLoss({'arcface': ArcFace(), 'triplet': Triplet()}), SWA()),
    'tracked': lambda: matching(CurricularFace(), head_func=TrackedHead),
    'similarity': lambda: matching(MultiSimilarity()),
    'looksam': lambda: matching(ArcFace(), LookSAM(k=2)),
    'pgd': lambda: matching(ArcFace(), PGD(eps=.1, names='conv')),
    'sam': lambda: matching(ArcFace(), SAM(.5), norm=False, neck=False),
    'classify': classifying,
    'resume': lambda: matching(ArcFace(), EMA(), Resume('resume'), Killed()),
}


def main():
    torch.set_default_dtype(torch.float64)
    if KILL == 'saving' and PROCESS: resume.os = KilledOs()
    for what in sys.argv[1].split(','):
        seed_everything(0)
        learn = JOBS[what]()
        with learn.no_bar(), learn.no_logging(), learn.distrib_ctx(): learn.fit(4, .05)
        scores = [float(score) for score in learn.recorder.values[-1]]
        torch.save({'weights': learn.model.state_dict(), 'scores': scores, 'steps': learn.train_iter,
                    'after': list(map(float, learn.validate()))}, FOLDER/f'{what}_{PROCESS}_{BS}.pt')


if __name__ == '__main__':
    FOLDER = Path(sys.argv[2])
    BS = int(sys.argv[3])
    main()
