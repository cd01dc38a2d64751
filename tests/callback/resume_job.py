"A short training that saves its weights when it is done: `python -m tests.callback.resume_job FOLDER`"
import sys
import time
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.losses import CrossEntropyLossFlat

from fastmatch.callback.averaging import EMA
from fastmatch.callback.mix import MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.sharpness import LookSAM
from fastmatch.core import seed_everything
from fastmatch.optim import ranger
from tests.callback.small import fit, make_learner, net


class Slow(Callback):
    "Leaves time for a kill at any moment, and makes the result depend on numpy's random numbers too."
    run_valid = False
    def before_batch(self):
        import numpy as np
        time.sleep(.01)
        self.learn.xb = (self.xb[0] + .01 * float(np.random.rand()),)


def main(folder):
    "Train in two fits in `folder`."
    torch.set_num_threads(1)
    seed_everything(0)
    folder = Path(folder)
    callbacks = [EMA(.8), MixUp(), LookSAM(.1, 3), Slow()]
    learner = make_learner(net(), ranger, folder, shuffle=True, loss=CrossEntropyLossFlat(), cbs=callbacks)
    print('begun', flush=True)
    # two fits: a kill in the second finds the first done
    learner.freeze()
    fit(learner, 'fit_flat_cos', 3, .05, cbs=Resume())
    learner.unfreeze()
    fit(learner, 'fit_one_cycle', 4, .05, cbs=[Resume(), SaveModelCallback()])
    print('done', flush=True)
    state = {'live': [tensor.clone() for tensor in learner.ema._set_aside],
             'model': learner.model.state_dict(),
             'losses': [float(loss) for loss in learner.recorder.losses],
             'values': [list(map(float, row)) for row in learner.recorder.values],
             'next': float(torch.rand(()))}
    torch.save(state, folder/'done.pth')


if __name__ == '__main__': main(sys.argv[1])
