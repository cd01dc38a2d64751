"Callbacks that sit a fit out, and those that find each other."
import pytest
from fastai.callback.core import Callback

from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.resume import Resume
from fastmatch.callback.saf import SAF
from fastmatch.callback.snapshots import Snapshots
from tests.callback.small import BS, N, fit, learner


@pytest.mark.parametrize('make', [EMA, SWA, Snapshots, Resume, lambda: SAF(back=1)],
                         ids=['EMA', 'SWA', 'Snapshots', 'Resume', 'SAF'])
def test_what_sits_out_lr_find_is_back_though_that_broke_off(make, tmp_path):
    class Break(Callback):
        order, run_valid = 999, False
        def __init__(self, cb):
            self.cb = cb
            self.seen = []
            self.broken = False

        def before_fit(self):
            self.seen.append(self.cb.run)
            if not self.broken:
                self.broken = True
                raise KeyboardInterrupt
        def before_batch(self): self.seen.append(self.cb.run)
    cb = make()
    stop = Break(cb)
    learn = learner(path=tmp_path, cbs=[cb, stop])
    with pytest.raises(KeyboardInterrupt): fit(learn, 'lr_find', show_plot=False, num_it=4)
    fit(learn, 'fit', 2, .01)
    assert stop.seen == [False] + [True] * (1 + 2 * N // BS)
