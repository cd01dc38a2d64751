"Several sizes: a training is that of a loader whose batches have these sizes already, whatever runs beside."
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.callback import resume
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.sharpness import ESAM, SAM
from fastmatch.callback.sizes import MultiScale
from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.losses import CrossEntropy
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, N, amp, body_and_head, everything, fit, make_learner
from tests.callback.test_resume import Die
from tests.learner.test_classify import make

SIZES = [8, (10, 12), 16]
PER_EPOCH = N // BS


class AnySize(nn.Module):
    "A net with BatchNorm and dropout for pictures of any size; it notes the sizes that it trained on."
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2),
                                  nn.Flatten(), nn.Dropout(.3))
        self.head = nn.Linear(16, 3)
        self.seen = []

    def forward(self, images):
        if self.training: self.seen.append(tuple(images.shape[-2:]))
        return self.head(self.body(images))

    def param_groups(self): return body_and_head(self)


def resize_batches(sizes):
    "A function that resizes the batches of a loader as they come, to sizes that are told beforehand."
    following = iter(sizes)

    def resize(batch):
        size = next(following)
        size = (size, size) if isinstance(size, int) else size
        if size == (8, 8): return batch
        return F.interpolate(batch[0], size, mode='bilinear', antialias=True), *batch[1:]
    return resize


def trained(cbs, loader_sizes=None, epochs=2, path=None):
    seed_everything(0)
    learner = make_learner(AnySize(), path=path, shuffle=True, loss=CrossEntropy(), cbs=cbs)
    if loader_sizes is not None:
        learner.dls.train.after_batch = resize_batches(loader_sizes)
    fit(learner, 'fit', epochs, .05)
    return learner


BESIDE = {'alone': list, 'SAM': lambda: [SAM(.3)], 'ESAM': lambda: [ESAM(.3, .6, .5)],
          'MixUp': lambda: [MixUp()], 'CutMix': lambda: [CutMix()],
          'HardMining': lambda: [HardMining(.5)],
          'accumulation': lambda: [GradientAccumulation(2 * BS)], 'bf16': lambda: [amp('bf16')],
          'fp16, SAM and MixUp': lambda: [amp('fp16', init_scale=256.), SAM(.3), MixUp()]}


@pytest.mark.parametrize('beside', BESIDE)
def test_as_a_loader_that_gives_these_sizes(beside):
    sizes = MultiScale(SIZES)
    told = [sizes.size_of(epoch, batch, 2) for epoch in range(2) for batch in range(PER_EPOCH)]
    found = trained([sizes, *BESIDE[beside]()])
    expected = trained(BESIDE[beside](), told)
    assert len(set(told)) == 3 and set(found.model.seen) == {(8, 8), (10, 12), (16, 16)}
    assert found.model.seen == expected.model.seen
    assert everything(found).equal(everything(expected))


def test_the_second_pass_sees_the_same_size():
    seen = trained([MultiScale(SIZES), SAM(.3)]).model.seen
    assert len(seen) == 4 * PER_EPOCH and seen[::2] == seen[1::2]


def test_rising_sizes():
    sizes = MultiScale([8, 12, 16], 'rising')
    assert [sizes.size_of(epoch, 5, 7) for epoch in range(7)] == [8, 8, 8, 12, 12, 16, 16]
    assert [sizes.size_of(epoch, 0, 2) for epoch in range(2)] == [8, 12]
    seen = trained(MultiScale([8, 12, 16], 'rising'), epochs=3).model.seen
    assert seen == [(8, 8)] * PER_EPOCH + [(12, 12)] * PER_EPOCH + [(16, 16)] * PER_EPOCH


def test_sizes_are_those_of_the_seed():
    def drawn(seed): return [MultiScale(SIZES, seed=seed).size_of(1, batch, 2) for batch in range(20)]
    assert drawn(0) == drawn(0) != drawn(1)
    # drawing them moves no other random numbers
    seed_everything(0)
    expected = torch.rand(1)
    seed_everything(0)
    drawn(0)
    assert torch.rand(1) == expected


def test_validation_has_the_given_size():
    learner = trained(MultiScale([16]))
    sizes = []
    learner.model.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    fit(learner, 'validate')
    assert set(sizes) == {(8, 8)}


def test_resumed_with_the_sizes_it_would_have_had(tmp_path, monkeypatch):
    def run(folder, *cbs):
        monkeypatch.setattr(resume, 'PROCESS', folder)
        return trained([MultiScale(SIZES), Resume(), *cbs], epochs=3, path=tmp_path/folder.split()[0])
    expected = everything(run('a'))
    with pytest.raises(KeyboardInterrupt): run('b 1', Die(1, 3))
    assert everything(run('b 2', Die())).equal(expected)


def test_all_frames_of_an_item(tmp_path):
    learner = make(tmp_path, frames=2, batch_tfms=augs('none'), cbs=MultiScale([24, 48], seed=1))
    sizes = []

    def note(module, inputs):
        if module.training: sizes.append(tuple(inputs[0].shape[-2:]))
    learner.model.encoders['image'].register_forward_pre_hook(note)
    fit(learner, 'fit', 1, 1e-3)
    assert set(sizes) == {(24, 24), (48, 48)}


def test_what_is_refused():
    for sizes in ([], 96, [4], [96.5], [(8, 8, 8)], ['96'], [True]):
        with pytest.raises(InputError, match='sizes='): MultiScale(sizes)
    with pytest.raises(InputError, match="how='up'"): MultiScale([96], 'up')
