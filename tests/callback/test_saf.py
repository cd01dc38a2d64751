"SAF's term against the paper's, from outputs kept here."
import pytest
from fastai.callback.core import Callback

from fastmatch.callback.mix import MixUp
from fastmatch.callback.saf import SAF
from fastmatch.core import InputError
from tests.callback.small import fit, make_learner, net


class Outputs(Callback):
    "Keeps the outputs of every batch, and how much is added to the loss before it is differentiated."
    order, run_valid = 8, False
    def before_fit(self):
        self.logits = []
        self.added = []

    def after_loss(self):
        first_pixels = self.xb[0].flatten(1)[:, 0].clone()
        self.logits.append((self.epoch, first_pixels, self.pred.detach().clone()))
        self.added.append(float(self.learn.loss_grad - self.learn.loss))


@pytest.mark.parametrize('shuffle', [False, True])
def test_saf_is_the_papers_term(shuffle):
    "Each row against its own output `back` epochs before, in float64 from outputs kept here; none earlier."
    learner = make_learner(net(.3), shuffle=shuffle, n_items=22, cbs=[SAF(.3, 5., back=2), Outputs()])
    fit(learner, 'fit', 4, .5)
    logits_before = {}
    for (epoch, first_pixels, logits), added in zip(learner.outputs.logits, learner.outputs.added):
        expected = 0.
        for first_pixel, row_logits in zip(first_pixels.tolist(), logits):
            old_logits = logits_before.get((epoch - 2, first_pixel))
            logits_before[epoch, first_pixel] = row_logits
            if old_logits is None: continue
            old_shares = (old_logits.double() / 5).softmax(0)
            new_shares = (row_logits.double() / 5).softmax(0)
            divergence = (old_shares * (old_shares / new_shares).log()).sum()
            expected += .3 / len(logits) * float(divergence)
        assert abs(added - expected) < 2e-5 + 2e-3 * expected, (epoch, added, expected)
        assert (expected == 0) == (epoch < 2)
    assert max(learner.outputs.added) > 1e-4
    assert 'get_idxs' not in learner.dls.train.__dict__


def test_saf_says_what_it_can_not_do():
    with pytest.raises(InputError, match='MixUp makes other rows'):
        fit(make_learner(cbs=[SAF(), MixUp()]), 'fit', 5)
    with pytest.raises(InputError, match='starts at epoch 3'): fit(make_learner(cbs=SAF()), 'fit', 3)
