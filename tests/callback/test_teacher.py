"Distillation: what a teacher is shown, one step against the formula, and pairs that can't go together."
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.learner import load_learner
from fastai.metrics import accuracy
from torch import nn

from fastmatch.callback.averaging import EMA
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.sharpness import SAM
from fastmatch.callback.teacher import Teacher
from fastmatch.core import InputError
from fastmatch.losses import CrossEntropy, Distill, HardRows, SumLoss
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import Net, amp, fit, make_learner, net, weights
from tests.learner.small import make as make_matcher
from tests.learner.test_classify import VENDORS, make, needs_titles


def teacher_net(seed=5):
    torch.manual_seed(seed)
    return Net()


class Batches(Callback):
    "Keeps inputs, targets, outputs and losses of training batches."
    run_valid = False
    def before_fit(self): self.seen = []

    def after_loss(self):
        self.seen.append((self.xb[0].clone(), self.yb, self.pred.detach().clone(), self.learn.loss.item()))


def distilled(loss=None, teacher=None, cbs=(), **kwargs):
    return make_learner(loss=loss or Distill(), cbs=[Teacher(teacher or teacher_net()), *cbs], **kwargs)


def reference(student_logits, teacher_logits, labels, t=4., alpha=.5):
    "Hinton's formula, from probabilities."
    p = (teacher_logits / t).softmax(1)
    divergence = (p * (p.log() - (student_logits / t).softmax(1).log())).sum(1)
    own = -student_logits.softmax(1).log()[torch.arange(len(labels)), labels]
    return ((1 - alpha) * own + alpha * t**2 * divergence).mean()


def test_one_step_is_that_of_the_formula():
    student, teacher = net(dropout=0.).double(), teacher_net().double()
    start = copy.deepcopy(student)
    learner = distilled(Distill(3., .7), teacher, [Batches()], model=student, n_items=4, bs=4)
    learner.remove_cb(learner.recorder)  # its mean is in float32
    for loader in learner.dls.loaders:
        loader.dataset[:] = [(image.double(), target) for image, target in loader.dataset]
    fit(learner, 'fit', 1, .1)
    images, (labels, _), _, loss = learner.batches.seen[0]
    with torch.no_grad(): teacher_logits = teacher.eval()(images)
    expected = reference(start.train()(images), teacher_logits, labels, 3., .7)
    assert loss == pytest.approx(float(expected), rel=1e-12)
    expected.backward()
    for before, after in zip(start.parameters(), learner.model.parameters()):
        torch.testing.assert_close(after, before - .1 * before.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('mixer', [MixUp, CutMix])
def test_the_teacher_sees_the_mixed_pictures(mixer):
    teacher = teacher_net().eval()
    learner = distilled(Distill(2., .6), teacher, [mixer(), Batches()])
    fit(learner, 'fit', 1, .05)
    mixing = learner.mix_up if mixer is MixUp else learner.cut_mix
    images, (labels, teacher_logits), output, loss = learner.batches.seen[-1]
    with torch.no_grad(): expected_logits = teacher(images)
    torch.testing.assert_close(teacher_logits, expected_logits)
    original = torch.stack([image for image, _ in learner.dls.train.dataset[-4:]])
    assert not torch.allclose(images, original)
    share = mixing.lam
    own, partners = (F.cross_entropy(output, each, reduction='none') for each in (labels, mixing.yb1[0]))
    from_teacher = reference(output, teacher_logits, labels, 2., 1.)
    expected = .4 * (share * own + (1 - share) * partners).mean() + .6 * from_teacher
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_a_student_of_the_teacher_alone_comes_to_agree_with_it():
    "The labels have no say at alpha=1; without a teacher's share it agrees less."
    def distance(learner):
        images = torch.stack([image for image, _ in learner.dls.train.dataset])
        teacher, student = (model.eval()(images).log_softmax(1) for model in (wise, learner.model))
        return float(F.kl_div(student, teacher, reduction='batchmean', log_target=True))
    # a teacher that says something else than the labels do
    wise = teacher_net().eval()
    with torch.no_grad(): wise.head.weight *= 8
    found = {}
    for alpha in (1., 0.):
        learner = distilled(Distill(2., alpha), wise, model=net(dropout=0.))
        before = distance(learner)
        fit(learner, 'fit', 60, .05)
        found[alpha] = distance(learner) / before
    assert found[1.] < .1 < .5 < found[0.], found


def test_the_teacher_stays_as_it_is():
    teacher = teacher_net()
    teacher.body[1].eval()
    modes = [module.training for module in teacher.modules()]
    start = copy.deepcopy(teacher.state_dict())
    learner = distilled(teacher=teacher)
    start_weights = weights(learner).clone()
    fit(learner, 'fit', 2, .05)
    assert [module.training for module in teacher.modules()] == modes
    assert all(torch.equal(start[name], value) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not torch.equal(weights(learner), start_weights)


def test_validation_has_no_teacher():
    learner = distilled(metrics=accuracy)
    learner.recorder.train_metrics = True
    fit(learner, 'fit', 1, .05)
    loss = learner.loss_func
    assert isinstance(loss, Distill)
    learner.recorder.train_metrics = False
    with learner.no_bar(): found = learner.validate()
    images, labels = map(torch.stack, zip(*learner.dls.valid.dataset))
    output = learner.model.eval()(images)
    assert found[0] == pytest.approx(float(F.cross_entropy(output, labels)), rel=1e-5)
    assert found[1] == pytest.approx(float((output.argmax(1) == labels).float().mean()))
    assert learner.loss_func is loss


class Counting(Net):
    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images)


def test_a_second_pass_keeps_the_teachers_word():
    "SAM: the teacher is asked once a batch, both passes are judged by the same logits, of mixed rows too."
    teacher = Counting()

    class Judged(Distill):
        def forward(self, output, *targets, **mixing):
            judged.append((targets[1], mixing.get('partners')))
            return super().forward(output, *targets, **mixing)
    for mixers in ([], [MixUp()]):
        judged, teacher.calls = [], 0
        learner = distilled(Judged(), teacher, [SAM(.1), *mixers])
        fit(learner, 'fit', 1, .05)
        assert teacher.calls == 6 and len(judged) == 12
        for (first, partners), (second, again) in zip(judged[::2], judged[1::2]):
            assert torch.equal(first, second)
            assert (partners is None) == (not mixers)
            if mixers: assert torch.equal(partners[1], first) and torch.equal(again[1], first)


def test_accumulation_and_averages():
    plain = distilled(model=net(0., False), bs=8)
    fit(plain, 'fit', 2, .05)
    accumulated = distilled(model=net(0., False), bs=4, cbs=[GradientAccumulation(8)])
    fit(accumulated, 'fit', 2, .05)
    torch.testing.assert_close(weights(accumulated), weights(plain), rtol=1e-4, atol=1e-5)
    averaged = distilled(cbs=[EMA(.5)])
    fit(averaged, 'fit', 2, .05)
    assert np.isfinite(averaged.recorder.values[-1][1])


@pytest.mark.parametrize('mode', ['fp16', 'bf16'])
def test_half_precision(mode):
    learner = distilled(cbs=[amp(mode), Batches()])
    fit(learner, 'fit', 1, .05)
    _, (labels, teacher_logits), output, loss = learner.batches.seen[-1]
    assert teacher_logits.dtype == torch.float32
    assert loss == pytest.approx(float(reference(output.float(), teacher_logits, labels)), rel=1e-2)


def test_sums_and_hard_rows_hand_each_part_its_targets():
    generator = torch.Generator().manual_seed(0)
    output, teacher, partner_teacher = (torch.randn(6, 3, dtype=torch.float64, generator=generator)
                                        for _ in range(3))
    labels, partners = torch.arange(6) % 3, (torch.arange(6) + 1) % 3
    own, distill = CrossEntropy([1., 2., 3.]), Distill(alpha=1.)
    total = SumLoss({'labels': own, 'teacher': distill}, {'teacher': .3})
    expected = own(output, labels) + .3 * distill(output, labels, teacher)
    torch.testing.assert_close(total(output, labels, teacher), expected)
    mixing = dict(partners=(partners, partner_teacher), share=.7)
    expected = (own(output, labels, partners=(partners,), share=.7)
                + .3 * distill(output, labels, teacher, **mixing))
    torch.testing.assert_close(total(output, labels, teacher, **mixing), expected)
    assert total.n_targets == HardRows(distill).n_targets == 2 and own.n_targets == 1
    for loss in (SumLoss({'labels': CrossEntropy(), 'teacher': Distill(alpha=1.)}), HardRows(Distill(), .5)):
        fit(distilled(loss), 'fit', 1, .05)


def test_what_cannot_go_together_is_refused(tmp_path, listings):
    def refused(match, learner):
        with pytest.raises(InputError, match=match): fit(learner, 'fit', 1, .05)
    refused('two of Teacher', distilled(cbs=[Teacher(teacher_net())]))
    refused("CrossEntropy doesn't read a teacher's logits", distilled(CrossEntropy()))
    refused(r'the callback Teacher\(learner\)', make_learner(loss=Distill()))
    refused('HardRows', distilled(cbs=[HardMining(.5)]))
    student = distilled()
    student.teacher._module = student.model
    refused('give a copy', student)
    refused('returned dict, and not logits', distilled(teacher=Dicts()))
    refused(r'returned \(4, 3, 1\)', distilled(teacher=nn.Sequential(Net(), nn.Unflatten(1, (3, 1)))))
    refused(r"model's logits are \(4, 3\), the teacher's \(4, 5\)",
            distilled(teacher=nn.Sequential(Net(), nn.Linear(3, 5))))
    with pytest.raises(InputError, match='returns embeddings'): Teacher(make_matcher(listings, path=tmp_path))
    with pytest.raises(InputError, match='give a trained Learner'): Teacher('resnet18')


class Dicts(Net):
    def forward(self, images): return {'image': super().forward(images)}


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    return make(tmp_path_factory.mktemp('teacher'), seed=3)


def train(learner, **kwargs):
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 2e-3, **kwargs)
    return learner


def test_a_learner_teaches_another(tmp_path, classifier):
    student = train(make(tmp_path, loss_func=Distill(), cbs=Teacher(classifier)))
    assert list(student.recorder.metric_names)[3:5] == ['accuracy', 'macro_f1']
    # the callback may also be of one fit alone: validation and predictions don't need it
    student = make(tmp_path, loss_func=Distill())
    train(student, cbs=Teacher(classifier))
    valid_loss, *_ = student.validate()
    probabilities, targets, losses = student.get_preds(with_loss=True)
    expected = -probabilities.log()[range(len(targets)), targets]
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-4)
    assert valid_loss == pytest.approx(float(losses.mean()), rel=1e-4)
    assert isinstance(student.loss_func, Distill) and len(student.predictions()) == len(targets)
    with pytest.raises(InputError, match=r'Distill: it compares .* add Teacher\(learner\)'): train(student)


def test_learners_that_cannot_teach_each_other(tmp_path, classifier):
    def refused(match, **kwargs):
        with pytest.raises(InputError, match=match):
            train(make(tmp_path, loss_func=Distill(), cbs=Teacher(classifier), **kwargs))
    refused(rf"its classes are {VENDORS[1]}.*, the student's ", label_col='lang')
    refused('normalized in another way', normalize=False)
    refused('it reads 1 inputs, the batches have 3', frames=2)
    two = make(tmp_path, loss_func=Distill(), cbs=Teacher(classifier))
    with pytest.raises(InputError, match='Teacher: this learner has one already'):
        train(two, cbs=Teacher(classifier))


def test_the_teacher_is_not_in_the_students_file(tmp_path, classifier):
    student = make(tmp_path, loss_func=Distill(), cbs=Teacher(classifier))
    student.export(tmp_path/'student.pkl')
    without = make(tmp_path, loss_func=Distill())
    without.export(tmp_path/'without.pkl')
    sizes = [(tmp_path/name).stat().st_size for name in ('student.pkl', 'without.pkl')]
    assert sizes[0] - sizes[1] < 2_000, sizes
    loaded = load_learner(tmp_path/'student.pkl')
    new_items = student.dls.valid_df.head(4).drop(columns='vendor')
    assert loaded.predictions(new_items).equals(student.predictions(new_items))
    loaded.dls = student.dls
    with pytest.raises(InputError, match='a teacher is not saved with its student'): train(loaded)
    loaded.remove_cb(Teacher)
    loaded.add_cb(Teacher(classifier))
    train(loaded)
    copied = copy.deepcopy(Teacher(classifier))
    assert copied._module is classifier.model


@needs_titles
def test_a_teacher_of_pictures_and_titles(tmp_path):
    "Each head of the student learns from the teacher's mean; titles are read with one tokenizer."
    teacher = make(tmp_path, text_col='title', seed=3)
    student = make(tmp_path, text_col='title', loss_func=Distill(alpha=.9),
                   cbs=[MixUp(), Teacher(teacher), SAM(.05)])
    assert np.isfinite(train(student).recorder.values[-1][1])
    with pytest.raises(InputError, match='it reads 1 inputs, the batches have 2'):
        train(make(tmp_path, text_col='title', loss_func=Distill(), cbs=Teacher(make(tmp_path))))
