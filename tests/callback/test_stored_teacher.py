"A teacher's stored outputs: each batch gets those of its items, terms against the formulas, what is refused."
import time
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.learner import load_learner

from fastmatch.callback import resume
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import MixUp
from fastmatch.callback.resume import Resume
from fastmatch.callback.sharpness import SAM
from fastmatch.callback.stored_teacher import StoredTeacher, TeacherEmbeddings, similarity_loss
from fastmatch.callback.teacher import Teacher
from fastmatch.core import InputError
from fastmatch.data.outputs import TeacherOutputs
from fastmatch.losses import Distill
from fastmatch.schedule import GradientAccumulation
from tests.callback.test_resume import Die
from tests.learner.small import make as make_matcher
from tests.semi.small import make, make_dls

CLASSES = ['twemoji', 'noto', 'fluent-emoji-flat']  # in another order than the student's


@pytest.fixture(scope='module')
def dls(): return make_dls()


def outputs_for(dls, width=6, **kwargs):
    rng = np.random.default_rng(0)
    ids = rng.permutation(dls.train_df.posting_id.to_numpy())
    embeddings = rng.normal(size=(len(ids), width)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return TeacherOutputs(ids, rng.normal(size=(len(ids), 3)), embeddings, CLASSES, **kwargs)


class Seen(Callback):
    "Keeps inputs, targets, outputs, losses and gradients' loss of training batches."
    order, run_valid = 48, False
    def before_fit(self): self.batches = []

    def after_loss(self):
        self.batches.append((self.xb[0].clone(), self.yb, self.pred, float(self.learn.loss)))


def fit(learner, epochs=1, **kwargs):
    with learner.no_bar(), learner.no_logging(): learner.fit(epochs, 2e-3, **kwargs)
    return learner


def test_each_item_gets_its_own_logits(dls):
    outputs = outputs_for(dls)
    drawn = []

    class Rows(Callback):
        "The rows of a batch, told by a sampler that is watched."
        order, run_valid = -20, False
        def before_train(self):
            loader = self.learn.dls.train
            draw = loader.get_idxs
            loader.get_idxs = lambda: drawn.append(list(draw())) or drawn[-1]
        def after_train(self): del self.learn.dls.train.get_idxs
    learner = fit(make(dls, loss_func=Distill(3., .7), cbs=[StoredTeacher(outputs), Seen(), Rows()]), 2)
    ids = learner.dls.train_df.posting_id.to_numpy()
    order = [CLASSES.index(name) for name in learner.dls.vocab]
    n_batches = len(learner.dls.train)
    for number, (_, (labels, logits), output, loss) in enumerate(learner.seen.batches):
        epoch, batch = divmod(number, n_batches)
        rows = drawn[epoch][16 * batch:16 * (batch + 1)]
        expected = outputs.logits[outputs.rows_of(ids[rows])][:, order]
        np.testing.assert_allclose(logits, expected)
        vendors = learner.dls.train_df.vendor.to_numpy()[rows]
        assert [learner.dls.vocab[int(label)] for label in labels] == vendors.tolist()
        assert loss == pytest.approx(float(Distill(3., .7)(output, labels, torch.tensor(expected))), rel=1e-4)
    assert learner.validate()[0] > 0


def test_mixed_items_have_what_was_said_of_both(dls):
    outputs = outputs_for(dls)
    learner = fit(make(dls, loss_func=Distill(), cbs=[MixUp(), StoredTeacher(outputs), Seen()]))
    _, (labels, logits), output, loss = learner.seen.batches[-1]
    mixed = learner.mix_up
    partner_labels, partner_logits = mixed.yb1
    # the partner is an item of the batch: its label and logits are of one row
    for label, said in zip(partner_labels, partner_logits):
        same = [row for row in range(len(labels)) if torch.equal(logits[row], said)]
        assert same and all(labels[row] == label for row in same)
    expected = Distill()(output, labels, logits, partners=mixed.yb1, share=mixed.lam)
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_with_accumulation_and_a_second_pass(dls):
    for callback in (GradientAccumulation(32), SAM(.05)):
        learner = fit(make(dls, loss_func=Distill(), cbs=[StoredTeacher(outputs_for(dls)), callback]))
        assert np.isfinite(learner.recorder.values[0]).all()


def shown(learner, name='teacher'):
    "A column of the Recorder's table."
    place = list(learner.recorder.metric_names).index(name) - 1
    return [row[place] for row in learner.recorder.values]


def naive_similarity_loss(student, teacher, t):
    total = 0.
    n = len(student)
    for row in range(n):
        logs = []
        for vectors in (student, teacher):
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            scores = np.array([unit[row] @ unit[other] / t for other in range(n) if other != row])
            logs.append(scores - np.log(np.exp(scores).sum()))
        total += (np.exp(logs[1]) * (logs[1] - logs[0])).sum()
    return t**2 * total / n


def test_the_loss_of_similarities():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(7, 4)), rng.normal(size=(7, 9))
    tensors = [torch.tensor(each) for each in (student, teacher)]
    assert float(similarity_loss(*tensors, .3)) == pytest.approx(naive_similarity_loss(student, teacher, .3))
    assert float(similarity_loss(tensors[0], 2 * tensors[0], .1)) == pytest.approx(0, abs=1e-12)
    assert float(similarity_loss(*(each[:2] for each in tensors), .1)) == 0


@pytest.mark.parametrize('compare', ['similarities', 'embeddings'])
def test_a_student_comes_to_agree(dls, compare):
    "By similarities or through a projection; the projection is in no state dict and no optimizer afterwards."
    vectors = np.stack([vector_of(vendor) for vendor in dls.train_df.vendor])
    outputs = TeacherOutputs(dls.train_df.posting_id, embeddings=vectors)
    callback = TeacherEmbeddings(outputs, compare, weight=5.)
    learner = make(dls, cbs=[callback])
    names = list(learner.model.state_dict())
    fit(learner, 10)
    assert list(learner.recorder.metric_names)[3:6] == ['accuracy', 'macro_f1', 'teacher']
    terms = shown(learner)
    assert terms[-1] < .9 * terms[0], terms
    assert list(learner.model.state_dict()) == names and callback._projection is None
    n_parameters = sum(1 for _ in learner.model.parameters())
    assert sum(len(group) for group in learner.opt.param_lists) == n_parameters
    fit(learner, 1)


def test_the_terms_of_a_matcher(listings, tmp_path):
    learner = make_matcher(listings, path=tmp_path)
    outputs = outputs_of_groups(learner.dls)
    callback = TeacherEmbeddings(outputs, 'embeddings', weight=2.)
    learner.add_cbs([callback, Seen()])
    fit(learner)
    width = sum(learner.model.widths.values())
    weight = torch.randn(5, width, generator=torch.Generator().manual_seed(0)) / width**.5
    _, (labels,), output, loss = learner.seen.batches[0]
    emb = F.normalize(output['image'].emb)
    groups = [learner.dls.vocab[int(label)] for label in labels]
    teacher = torch.tensor(np.stack([vector_of(group) for group in groups]))
    expected = 2 * (1 - F.cosine_similarity(emb @ weight.T, teacher)).mean()
    own = float(learner.loss_func(output, labels))
    assert loss - own == pytest.approx(float(expected), rel=1e-3)


def vector_of(group):
    vector = np.random.default_rng(zlib.crc32(str(group).encode())).normal(size=5).astype(np.float32)
    return vector / np.linalg.norm(vector)


def outputs_of_groups(dls):
    df = dls.train_df
    return TeacherOutputs(df.posting_id, embeddings=np.stack([vector_of(group) for group in df.label_group]))


@pytest.mark.parametrize('compare', ['logits', 'embeddings'])
def test_it_resumes(dls, tmp_path, monkeypatch, compare):
    "Bit for bit, with the projection as it was."
    def run(path, die_at=()):
        monkeypatch.setattr(resume, 'PROCESS', f'process {time.monotonic_ns()}')
        teacher = StoredTeacher if compare == 'logits' else TeacherEmbeddings
        callback = teacher(outputs_for(dls, 5), *(['embeddings'] if compare == 'embeddings' else []))
        learner = make(dls, path=path, loss_func=Distill() if compare == 'logits' else None,
                       cbs=[callback, Resume(), Die(*die_at)])
        fit(learner, 3)
        return torch.cat([value.flatten().double() for value in learner.model.state_dict().values()])
    expected = run(tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): run(tmp_path/'killed', (2, 1))
    assert torch.equal(run(tmp_path/'killed'), expected)


def test_a_fit_that_broke_off_leaves_nothing(dls):
    learner = make(dls, cbs=TeacherEmbeddings(outputs_for(dls, 5), 'embeddings'))
    with pytest.raises(KeyboardInterrupt): fit(learner, cbs=Die(0, 1))
    fit(learner)
    n_parameters = sum(1 for _ in learner.model.parameters())
    assert sum(len(group) for group in learner.opt.param_lists) == n_parameters
    assert not any(module._forward_pre_hooks for module in learner.model.necks.values())
    assert 'get_idxs' not in vars(learner.dls.train)


def test_it_is_not_in_the_students_file(dls, tmp_path):
    learner = make(dls, loss_func=Distill(), cbs=StoredTeacher(outputs_for(dls)), path=tmp_path)
    learner.export(tmp_path/'student.pkl')
    loaded = load_learner(tmp_path/'student.pkl')
    assert loaded.stored_teacher.outputs is None
    loaded.dls = learner.dls
    with pytest.raises(InputError, match='are not saved with its student'): fit(loaded)


def test_what_is_refused(dls, listings, tmp_path):
    outputs = outputs_for(dls)

    def refused(match, cbs, **kwargs):
        with pytest.raises(InputError, match=match): fit(make(dls, cbs=cbs, **kwargs))
    refused("CrossEntropy doesn't read a teacher's logits", StoredTeacher(outputs))
    refused('there is another teacher', [StoredTeacher(outputs), Teacher(make(dls))], loss_func=Distill())
    refused('StoredTeacher: this learner has one already', [StoredTeacher(outputs)] * 2, loss_func=Distill())
    fewer = TeacherOutputs(outputs.ids[1:], outputs.logits[1:], outputs.embeddings[1:], CLASSES)
    refused('1 of .* items are not among', StoredTeacher(fewer), loss_func=Distill())
    other = TeacherOutputs(outputs.ids, outputs.logits, classes=['a', 'b', 'c'])
    refused('its classes are a, b, c', StoredTeacher(other), loss_func=Distill())
    leaky = outputs_for(dls, trained_on=dls.valid_df.posting_id.to_numpy()[:2])
    refused('a teacher was trained on 2 of', StoredTeacher(leaky), loss_func=Distill())
    refused('a teacher was trained on 2 of', TeacherEmbeddings(leaky))
    refused('MixUp changes what the items', [TeacherEmbeddings(outputs), MixUp()])
    refused('HardMining changes what the items', [TeacherEmbeddings(outputs), HardMining(.5)])
    refused('would leave the teacher out', [TeacherEmbeddings(outputs), SAM(.05)])
    for call, told in ((lambda: StoredTeacher(3), 'give TeacherOutputs with logits'),
                       (lambda: TeacherEmbeddings(other), 'give TeacherOutputs with embeddings'),
                       (lambda: TeacherEmbeddings(outputs, 'angles'), "compare='angles'"),
                       (lambda: TeacherEmbeddings(outputs, t=0), 't=0')):
        with pytest.raises(InputError, match=told): call()
