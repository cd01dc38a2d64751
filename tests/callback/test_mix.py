"Mixed pictures against the blend that the loss believes, pixel by pixel and in training."
import pytest
import torch
from fastai.callback.core import Callback

from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.losses import ArcFace
from tests.learner.small import make


@pytest.mark.parametrize('callback', [MixUp, CutMix])
def test_mixing_has_two_targets_with_the_pasted_share(listings, tmp_path, callback):
    "The picture really is the blend that the loss believes, and the loss is the blend of two."
    class Look(Callback):
        order = MixUp.order + 1
        def before_batch(self):
            if not self.training or hasattr(self, 'mixing'): return
            self.mixing = self.learn.mix_up if callback is MixUp else self.learn.cut_mix
        def after_loss(self):
            if not self.training or hasattr(self, 'loss_seen'): return
            share, output = self.mixing.lam, self.learn.pred
            loss = ArcFace(m=.3, s=20, reduction='none')
            expected = share * loss(output, self.y) + (1 - share) * loss(output, self.mixing.yb1[0])
            self.loss_seen = (float(self.learn.loss), float(expected.mean()), share)
    learner = make(listings, path=tmp_path, cbs=[callback(), Look()])
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    loss, expected, share = learner.look.loss_seen
    assert abs(loss - expected) < 1e-4 and bool((share >= .0).all()) and bool((share < 1).any())
    assert isinstance(learner.loss_func, ArcFace), 'the loss is put back'


def test_mixed_pictures_are_the_blend():
    pictures, others = torch.rand(6, 3, 20, 20), torch.rand(6, 3, 20, 20)
    mix_up = MixUp()
    mixed = mix_up.mix(pictures, others)
    share = mix_up.lam[:, None, None, None]
    torch.testing.assert_close(mixed, share * pictures + (1 - share) * others)
    assert (mix_up.lam >= .5).all()
    torch.manual_seed(3)
    cut_mix = CutMix()
    for _ in range(20):
        mixed = cut_mix.mix(pictures, others)
        kept = (mixed == pictures).all(1)
        assert ((mixed == pictures) | (mixed == others)).all()
        assert torch.isclose(kept.float().mean(), cut_mix.lam, atol=1e-6) and cut_mix.lam >= .5 - 1e-6
