"Distillation against its limits: no teacher, the same logits, a high temperature."
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.losses import CrossEntropy, Distill, SoftTarget
from tests.losses.cases import LOGITS, TARGETS, C, N, labels, rand


def test_distillation_limits():
    logits, teacher, targets = 3 * rand(N, C), 3 * rand(N, C, seed=4), labels()
    torch.testing.assert_close(Distill(alpha=0.)(logits, targets, teacher), CrossEntropy()(logits, targets))
    assert float(Distill(alpha=1.)(logits, targets, logits.clone())) == pytest.approx(0, abs=1e-12)
    divergence = SoftTarget()(logits, teacher.softmax(1)) - SoftTarget()(teacher, teacher.softmax(1))
    torch.testing.assert_close(Distill(1., 1.)(logits, targets, teacher), divergence)
    torch.testing.assert_close(SoftTarget()(logits, F.one_hot(targets, C)), CrossEntropy()(logits, targets))
    # at a high temperature: half the squared difference of centered logits, over the number of classes
    # (section 2.1)
    centered = logits - logits.mean(1, keepdim=True)
    teacher_centered = teacher - teacher.mean(1, keepdim=True)
    expected = ((centered - teacher_centered)**2).sum(1).mean() / 2 / C
    torch.testing.assert_close(Distill(1e4, 1.)(logits, targets, teacher), expected, rtol=1e-3, atol=0)


def test_a_teacher_gets_no_gradient():
    logits, teacher = (3 * rand(N, C, seed=seed) for seed in (0, 4))
    teacher.requires_grad_()
    Distill()(logits.requires_grad_(), labels(), teacher).backward()
    assert teacher.grad is None


def test_a_teacher_of_several_heads():
    logits, teacher, targets = 3 * rand(N, C), 3 * rand(N, C, seed=4), labels()
    summed_loss = Distill()({'image': logits, 'title': teacher}, targets, teacher)
    expected = Distill()(logits, targets, teacher) + Distill()(teacher, targets, teacher)
    torch.testing.assert_close(summed_loss, expected)


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(InputError, match=r"teacher's \(2, 4\)"): Distill()(LOGITS, TARGETS, torch.zeros(2, 4))
