"SAF's term against the paper's, from outputs kept here."
import pytest
from fastai.callback.core import Callback

from fastmatch.callback.mix import MixUp
from fastmatch.callback.saf import SAF
from fastmatch.core import InputError
from tests.callback.small import fit, learner, net


class Outputs(Callback):
    "Keeps the outputs of every batch, and how much is added to the loss before it is differentiated."
    order, run_valid = 8, False
    def before_fit(self):
        self.outs = []
        self.more = []

    def after_loss(self):
        first_pixels = self.xb[0].flatten(1)[:, 0].clone()
        self.outs.append((self.epoch, first_pixels, self.pred.detach().clone()))
        self.more.append(float(self.learn.loss_grad - self.learn.loss))


@pytest.mark.parametrize('shuffle', [False, True])
def test_saf_is_the_papers_term(shuffle):
    "Each row against its own output `back` epochs before, in float64 from outputs kept here; none earlier."
    learn = learner(net(.3), shuffle=shuffle, n=22, cbs=[SAF(.3, 5., back=2), Outputs()])
    fit(learn, 'fit', 4, .5)
    seen = {}
    for (epoch, first_pixels, logits), more in zip(learn.outputs.outs, learn.outputs.more):
        want = 0.
        for first_pixel, row_logits in zip(first_pixels.tolist(), logits):
            old_logits = seen.get((epoch - 2, first_pixel))
            seen[epoch, first_pixel] = row_logits
            if old_logits is None: continue
            old, new = ((values.double() / 5).softmax(0) for values in (old_logits, row_logits))
            want += .3 / len(logits) * float((old * (old / new).log()).sum())
        assert abs(more - want) < 2e-5 + 2e-3 * want, (epoch, more, want)
        assert (want == 0) == (epoch < 2)
    assert max(learn.outputs.more) > 1e-4
    assert 'get_idxs' not in learn.dls.train.__dict__


def test_saf_says_what_it_can_not_do():
    with pytest.raises(InputError, match='MixUp makes other rows'):
        fit(learner(cbs=[SAF(), MixUp()]), 'fit', 5)
    with pytest.raises(InputError, match='starts at epoch 3'): fit(learner(cbs=SAF()), 'fit', 3)
