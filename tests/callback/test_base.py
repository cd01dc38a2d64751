"Callbacks that sit a fit out, and those that find each other."
import pytest
from fastai.callback.core import Callback

from fastmatch.callback.averaging import EMA, SWA
from fastmatch.callback.resume import Resume
from fastmatch.callback.saf import SAF
from fastmatch.callback.snapshots import Snapshots
from tests.callback.small import BS, N, fit, make_learner


@pytest.mark.parametrize('make_callback', [EMA, SWA, Snapshots, Resume, lambda: SAF(back=1)],
                         ids=['EMA', 'SWA', 'Snapshots', 'Resume', 'SAF'])
def test_what_sits_out_lr_find_is_back_though_that_broke_off(make_callback, tmp_path):
    class Break(Callback):
        order, run_valid = 999, False
        def __init__(self, watched):
            self.watched = watched
            self.seen = []
            self.broken = False

        def before_fit(self):
            self.seen.append(self.watched.run)
            if not self.broken:
                self.broken = True
                raise KeyboardInterrupt
        def before_batch(self): self.seen.append(self.watched.run)
    callback = make_callback()
    breaker = Break(callback)
    learner = make_learner(path=tmp_path, cbs=[callback, breaker])
    with pytest.raises(KeyboardInterrupt): fit(learner, 'lr_find', show_plot=False, num_it=4)
    fit(learner, 'fit', 2, .01)
    assert breaker.seen == [False] + [True] * (1 + 2 * N // BS)
