"Mixed pictures against the blend that the loss believes, pixel by pixel and in training."
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn

from fastmatch.callback.mix import CutMix, MixUp, mixed_loss
from fastmatch.core import InputError
from fastmatch.losses import ArcFace, CrossEntropy, FocalLoss, HardRows
from tests.callback.small import fit, make_learner
from tests.learner.small import make

WEIGHT = torch.tensor([1., .1, 5.])
LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 3
LABELS = F.one_hot(CLASSES, 3).float()
OTHERS = {'cross-entropy': (nn.CrossEntropyLoss(), CLASSES),
          'by class weight': (nn.CrossEntropyLoss(WEIGHT), CLASSES),
          'a class ignored': (nn.CrossEntropyLoss(ignore_index=1), CLASSES),
          "fastai's": (CrossEntropyLossFlat(weight=WEIGHT), CLASSES),
          'several labels': (nn.BCEWithLogitsLoss(), LABELS),
          "several labels, fastai's": (BCEWithLogitsLossFlat(), LABELS),
          'a sum': (nn.CrossEntropyLoss(WEIGHT, reduction='sum'), CLASSES),
          'a function': (F.cross_entropy, CLASSES)}


@pytest.mark.parametrize('name', OTHERS)
def test_losses_of_other_packages_keep_their_scale(name):
    "At a share of 1 the loss itself, linear between; a share for each row weighs the row's own loss."
    loss, targets = OTHERS[name]
    partners = targets[torch.randperm(12, generator=torch.Generator().manual_seed(1))]
    plain, of_partners = loss(LOGITS, targets), loss(LOGITS, partners)
    for share in (1., .7, torch.tensor(.6), 0.):
        mixed = mixed_loss(loss, LOGITS, (targets,), (partners,), share)
        torch.testing.assert_close(mixed, share * plain + (1 - share) * of_partners)
    shares = torch.linspace(.5, 1., 12)

    def mixed_by(shares): return mixed_loss(loss, LOGITS, (targets,), (partners,), shares)
    added = sum(mixed_by(torch.where(torch.arange(12) == row, share, 1.)) - plain
                for row, share in enumerate(shares))
    torch.testing.assert_close(mixed_by(shares), plain + added)


@pytest.mark.parametrize('mixer', [MixUp, CutMix])
@pytest.mark.parametrize('loss', [CrossEntropy(WEIGHT), FocalLoss(2., WEIGHT), HardRows(CrossEntropy(), .5),
                                  nn.CrossEntropyLoss(WEIGHT)], ids=lambda loss: type(loss).__name__)
def test_mixing_with_itself_alone_is_plain_training(mixer, loss):
    "Pictures that keep all of their share: losses and gradients are those without the callback."
    class Whole(mixer):
        def mix(self, x, x1):
            super().mix(x, x1)
            self.lam = torch.ones_like(self.lam)
            return x

    class Noted(Callback):
        run_valid = False
        def before_fit(self): self.seen = []
        def after_loss(self): self.seen.append(self.learn.loss.item())
    seen = []
    for callbacks in ([], [Whole()]):
        learner = make_learner(loss=loss, cbs=[*callbacks, Noted()])
        # fastai's dropout and what is drawn for the mixture share the random numbers
        learner.model.body[-1].p = 0.
        fit(learner, 'fit', 1, .05)
        seen.append(torch.tensor(learner.noted.seen))
    torch.testing.assert_close(seen[1], seen[0])


def test_classes_are_mixed_whatever_the_loss():
    "fastai's handler mixes nothing but the pictures where a loss doesn't say that its targets are classes."
    class Look(Callback):
        run_valid = False
        def after_loss(self):
            mixing, targets = self.learn.mix_up, self.yb[0]
            share = mixing.lam
            own = F.cross_entropy(self.pred, targets, reduction='none')
            partner = F.cross_entropy(self.pred, mixing.yb1[0], reduction='none')
            self.seen = (self.learn.loss.item(), (share * own + (1 - share) * partner).mean().item())
    learner = make_learner(loss=nn.CrossEntropyLoss(), cbs=[MixUp(), Look()])
    fit(learner, 'fit', 1, .05)
    assert learner.look.seen[0] == pytest.approx(learner.look.seen[1], rel=1e-5)
    without_rows = make_learner(loss=lambda output, targets: F.cross_entropy(output, targets), cbs=MixUp())
    with pytest.raises(InputError, match='MixUp needs the loss of each row'): fit(without_rows, 'fit', 1)


def test_a_fit_that_broke_off_leaves_a_learner_that_trains():
    class Break(Callback):
        order = 80
        def after_loss(self):
            if self.training and not hasattr(self, 'broken'):
                self.broken = True
                raise KeyboardInterrupt
    learner = make_learner(cbs=[MixUp(), Break()])
    loss = learner.loss_func
    with pytest.raises(KeyboardInterrupt): fit(learner, 'fit', 1, .05)
    fit(learner, 'fit', 1, .05)
    assert learner.loss_func is loss


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
