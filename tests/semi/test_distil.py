"What a model says of its items: logits and embeddings against its own predictions, kept in a file."
import numpy as np
import pytest
import torch

from fastmatch.callback.stored_teacher import StoredTeacher, TeacherEmbeddings
from fastmatch.core import InputError
from fastmatch.losses import Distill
from fastmatch.semi import Everything, pseudo_label, teacher_outputs, with_pseudo_labels
from fastmatch.semi.distil import weights_fingerprint
from tests.callback.conftest import listings  # noqa: F401
from tests.callback.test_stored_teacher import fit, shown
from tests.learner.small import make as make_matcher
from tests.semi.small import make, make_dls


@pytest.fixture(scope='module')
def teacher(): return make(make_dls(), 1)


def test_logits_and_features(teacher, tmp_path):
    file = tmp_path/'outputs.npz'
    outputs = teacher_outputs(teacher, file=file)
    dls = teacher.dls
    assert set(outputs.ids) == set(dls.train_df.posting_id) | set(dls.unlabelled.posting_id)
    assert set(outputs.trained_on) == set(dls.train_df.posting_id)
    predictions = teacher.predictions(dls.unlabelled)
    rows = outputs.rows_of(predictions.posting_id)
    probabilities = torch.tensor(outputs.logits[rows]).softmax(1)
    np.testing.assert_allclose(probabilities, predictions[list(dls.vocab)], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(outputs.embeddings, axis=1), 1, rtol=1e-5)
    # the features are what the head makes logits of, but for their length: same direction as the encoder's
    batch = dls.test_dl(dls.unlabelled, bs=4).one_batch()
    with torch.no_grad(): features = teacher.model.eval().features(*(part.as_subclass(torch.Tensor)
                                                                     for part in batch))['image']
    expected = torch.nn.functional.normalize(features)
    ids = dls.unlabelled.posting_id[:4]
    np.testing.assert_allclose(outputs.embeddings[outputs.rows_of(ids)], expected, atol=1e-5)
    # from the file, unless the weights have changed or items are missing
    outputs.logits[:] = 7.
    outputs.save(file)
    assert (teacher_outputs(teacher, file=file).logits == 7).all()
    other = make(make_dls(), seed=1)
    assert weights_fingerprint(other.model) != weights_fingerprint(teacher.model)
    assert not (teacher_outputs(other, file=file).logits == 7).any()
    valid = teacher_outputs(teacher, dls.valid_df, file=file)
    assert valid.ids.tolist() == dls.valid_df.posting_id.tolist()
    with pytest.raises(InputError, match='give df too'): teacher_outputs(teacher, path='.')


def test_a_student_of_all_items(teacher):
    "The unlabelled come in by their pseudo-labels; a teacher that saw what is validated on is refused."
    outputs = teacher_outputs(teacher)
    labels = pseudo_label(teacher, keep=Everything(), on_leak='skip')
    dls = with_pseudo_labels(teacher.dls, labels, target='hard')
    student = fit(make(dls, seed=1, loss_func=Distill(2., 1.), cbs=StoredTeacher(outputs)))
    assert student.trained_on.ids == set(outputs.ids) and np.isfinite(student.recorder.values[0]).all()
    other_fold = make(make_dls(valid_fold=1), loss_func=Distill(), cbs=StoredTeacher(outputs))
    with pytest.raises(InputError, match='a teacher was trained on .* that the student is validated on'):
        fit(other_fold)


def test_a_matcher_teaches_another(listings, tmp_path):  # noqa: F811
    teacher = make_matcher(listings, path=tmp_path, seed=1)
    outputs = teacher_outputs(teacher)
    embeddings = teacher.embeddings(teacher.dls.train_df)
    np.testing.assert_allclose(outputs.embeddings, embeddings['image'], rtol=1e-5)
    assert outputs.logits is None
    student = make_matcher(listings, path=tmp_path, cbs=TeacherEmbeddings(outputs, weight=20.))
    fit(student, 3)
    terms = shown(student)
    assert terms[-1] < terms[0]
