"Mixed pictures against the blend that the loss believes, pixel by pixel and in training."
import pytest
import torch
import torch.nn.functional as F
from fastai.callback import mixup as fastai_mixup
from fastai.callback.core import Callback
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from torch import nn

from fastmatch.callback.mix import CutMix, MixUp, mixed_loss
from fastmatch.core import InputError
from fastmatch.losses import ArcFace, CrossEntropy, FocalLoss, HardRows
from tests.callback.small import fit, make_learner
from tests.learner.small import make
from tests.learner.test_classify import items
from tests.learner.test_classify import make as make_classifier

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


@pytest.mark.parametrize('mixer', [MixUp, CutMix])
def test_all_pictures_of_an_item_are_mixed_alike(mixer):
    "Each with the partner's picture in its place, by the one share that the loss believes; titles stay."
    class Batch:
        cbs = []

    torch.manual_seed(0)
    callback, learner = mixer(), Batch()
    callback.learn = learner
    # a picture is of one color, which tells its item and its place: item + 100 * place
    frames = [torch.arange(6.)[:, None, None, None].expand(-1, 3, 16, 12) + 100 * place for place in range(3)]
    titles = torch.arange(6)[:, None].expand(-1, 5)
    for _ in range(10):
        learner.xb, learner.yb = (*frames, titles), (torch.arange(6),)
        callback.before_batch()
        *mixed, titles_left = learner.xb
        assert len(mixed) == 3 and titles_left is titles
        [partners] = callback.yb1
        for place, (picture, original) in enumerate(zip(mixed, frames)):
            assert picture.shape == original.shape
            # the mean color is the item's by its share and the partner's by the rest
            blend = callback.lam * torch.arange(6.) + (1 - callback.lam) * partners
            torch.testing.assert_close(picture.mean((1, 2, 3)), blend + 100 * place, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(picture - 100 * place, mixed[0], rtol=1e-5, atol=1e-4)
        if mixer is MixUp: assert len(callback.lam) == 6
    learner.xb = (frames[0], frames[1][..., :8])
    with pytest.raises(InputError, match='an item have the sizes'): callback.before_batch()


def test_several_pictures_in_training(tmp_path):
    "What the model gets is the blend for every picture of an item, beside a loss of two targets."
    class Look(Callback):
        run_valid = False
        order = MixUp.order - 1
        def before_batch(self): self.given = [picture.clone() for picture in self.xb]

        def after_loss(self):
            mixing = self.learn.mix_up
            share = mixing.lam[:, None, None, None]
            # who the partners were shows in one picture, and must hold for the other
            first, second = ((blend - share * given) / (1 - share).clamp(min=1e-6)
                             for blend, given in zip(self.learn.xb[:2], self.given))
            is_clear = mixing.lam < .9
            distances = torch.cdist(first[is_clear].flatten(1), self.given[0].flatten(1))
            partners = distances.argmin(1)
            expected = self.given[1][partners]
            torch.testing.assert_close(second[is_clear], expected, rtol=1e-2, atol=1e-2)
            self.checked = self.__dict__.get('checked', 0) + int(is_clear.sum())

    # a second picture that differs from the first
    sample = items()
    sample['image'] = sample.image + ' ' + sample.image.iloc[::-1].to_numpy()
    learner = make_classifier(tmp_path, table=sample, frames=2, cbs=[MixUp(), Look()])
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert learner.look.checked > 5
    with pytest.raises(InputError, match='mixes the first picture of an item alone'):
        learner.fit(1, cbs=fastai_mixup.CutMix())
