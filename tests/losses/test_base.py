"What every loss does alike: heads summed, values checked now and then, NaN named with its head."
import math

import pytest
import torch

from fastmatch.core import InputError
from fastmatch.losses import ArcFace, CrossEntropy, NormSoftmax
from fastmatch.losses.base import NotANumber
from tests.losses.cases import TARGETS, C, N, head_output, rand


def test_values_are_read_seldom_on_a_gpu():
    """Reading a value waits for the GPU: there it is done in batches 1, 2, 4, 8, ...; in the others a
    wrong label is left to the device's own assertion."""
    class OnGpu(torch.Tensor):
        device = torch.device('cuda')
    checked_calls = []
    class Own(CrossEntropy):
        def check_values(self, output, targets): checked_calls.append(self._calls)
    loss, targets = Own(), torch.arange(3).as_subclass(OnGpu)
    for _ in range(20): loss(torch.zeros(3, 3), targets)
    assert checked_calls == [1, 2, 4, 8, 16]
    checked_calls.clear()
    for _ in range(20): loss(torch.zeros(3, 3), torch.arange(3))
    assert checked_calls == list(range(21, 41))


def test_several_heads_are_summed():
    cosines, targets = rand(N, C), torch.arange(N) % C
    image, joint = head_output(cosines), head_output(cosines.flip(0))
    loss = NormSoftmax(s=5., head_weights={'joint': .5})
    expected = NormSoftmax(s=5.)(image, targets) + .5 * NormSoftmax(s=5.)(joint, targets)
    torch.testing.assert_close(loss({'image': image, 'joint': joint}, targets), expected)
    with pytest.raises(InputError, match='head_weights.*title'):
        NormSoftmax(head_weights={'title': 2.})({'image': image}, targets)


def test_nan_is_told_by_heads_too():
    cosines = torch.linspace(-.5, .7, 6).view(2, 3)
    with_nan = cosines.clone()
    with_nan[1, 2] = math.nan
    message = (r'ArcFace: NaN in 1 of 2 rows \(1\). Of the 6 values it reads 1 are NaN, '
               'the others run from -0.5 to 0.46')
    with pytest.raises(NotANumber, match=message):
        ArcFace()({'image': head_output(cosines), 'title': head_output(with_nan)}, TARGETS)
