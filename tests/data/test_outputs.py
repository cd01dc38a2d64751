"What teachers say: in a file and back, means against probabilities, leaks and damaged files by name."
import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.outputs import TeacherOutputs, mean_outputs, outputs_of_predictions


def made(ids='abcd', seed=0, width=3, classes=('x', 'y', 'z'), **kwargs):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(len(ids), width))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return TeacherOutputs(list(ids), rng.normal(size=(len(ids), len(classes))), embeddings, list(classes),
                          **kwargs)


def softmax(logits): return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_a_file_and_back(tmp_path):
    outputs = made(trained_on=np.array(['a', 'b']), made_by='abc')
    outputs.save(tmp_path/'folder'/'outputs.npz')
    loaded = TeacherOutputs.load(tmp_path/'folder'/'outputs.npz')
    for name in ('ids', 'logits', 'embeddings', 'classes', 'trained_on'):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(outputs, name))
    assert loaded.made_by == 'abc' and len(loaded) == 4
    only = TeacherOutputs([1, 2.], embeddings=np.eye(2))
    only.save(tmp_path/'only.npz')
    loaded = TeacherOutputs.load(tmp_path/'only.npz')
    assert loaded.logits is None and loaded.trained_on is None and loaded.ids.tolist() == ['1', '2']
    # read without pickle: an array of objects is refused
    np.savez(tmp_path/'objects.npz', ids=np.array(['a', None], dtype=object))
    (tmp_path/'torn.npz').write_bytes((tmp_path/'only.npz').read_bytes()[:100])
    np.savez(tmp_path/'other.npz', ids=np.array(['a']), weights=np.eye(2))
    for name in ('objects', 'torn', 'missing'):
        with pytest.raises(InputError, match=f'{name}.npz: not readable'):
            TeacherOutputs.load(tmp_path/f'{name}.npz')
    with pytest.raises(InputError, match=r"other.npz: holds \['ids', 'weights'\]"):
        TeacherOutputs.load(tmp_path/'other.npz')


def test_rows_by_id():
    outputs = made()
    assert outputs.rows_of(['c', 'a', 'c']).tolist() == [2, 0, 2]
    with pytest.raises(InputError, match='2 of 3 items are not among .*: e, f'): outputs.rows_of(list('aef'))
    outputs.refuse_leaks(['a'])
    with pytest.raises(InputError, match=r'trained on 1 of the 2 items .* \(b\)'):
        made(trained_on=np.array(['b'])).refuse_leaks(['a', 'b'])


def test_the_mean_of_several():
    one, two = made(), made('dcbax', 1, 5, ('z', 'x', 'y'))
    rows, places = [3, 2, 1, 0], [1, 2, 0]
    p, q = softmax(one.logits), softmax(two.logits)[rows][:, places]
    both = mean_outputs([one, two], weights=[1, 3], by='probabilities')
    np.testing.assert_allclose(softmax(both.logits), .25 * p + .75 * q, rtol=1e-5)
    assert both.ids.tolist() == list('abcd') and both.classes.tolist() == ['x', 'y', 'z']
    geometric = mean_outputs([one, two])
    expected = np.sqrt(p * q) / np.sqrt(p * q).sum(1, keepdims=True)
    np.testing.assert_allclose(softmax(geometric.logits), expected, rtol=1e-5)
    # cosines are the mean of both teachers'
    vectors = both.embeddings
    a, b = one.embeddings, two.embeddings[rows]
    np.testing.assert_allclose(vectors @ vectors.T, .25 * a @ a.T + .75 * b @ b.T, atol=1e-6)
    assert both.trained_on is None
    known = mean_outputs([made(trained_on=np.array(['a'])), made(trained_on=np.array(['d']))])
    assert known.trained_on.tolist() == ['a', 'd']
    np.testing.assert_allclose(softmax(mean_outputs([one]).logits), p, rtol=1e-5)


def test_from_tables():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 4)
    table = pd.DataFrame({'item': range(4), 'label': 'x', 'prob': .5, **dict(zip('xyz', probabilities.T))})
    outputs = outputs_of_predictions(table, ['x', 'y', 'z'])
    np.testing.assert_allclose(softmax(outputs.logits), probabilities, rtol=1e-5)
    assert outputs.ids.tolist() == list('0123')


def refused(match, call, *args, **kwargs):
    with pytest.raises(InputError, match=match): call(*args, **kwargs)


def test_what_is_refused():
    refused('b stand there more than once', made, 'abb')
    refused('a row for each of the 4 ids', TeacherOutputs, list('abcd'), np.eye(3), classes='xyz')
    refused('finite numbers', TeacherOutputs, ['a'], embeddings=[[np.nan, 1.]])
    refused('2 classes for logits', TeacherOutputs, ['a'], np.ones((1, 3)), classes=['x', 'y'])
    refused('an empty list', mean_outputs, [])
    refused("by='median'", mean_outputs, [made()], by='median')
    refused('weights=', mean_outputs, [made()], weights=[0])
    refused('no item is among those of every teacher', mean_outputs, [made(), made('wxyz')])
    refused('all teachers need the same', mean_outputs, [made(), made(classes=('x', 'y', 'v'))])
    alone = TeacherOutputs(list('abcd'), embeddings=np.eye(4))
    refused('all have to be logits, or all embeddings', mean_outputs,
            [TeacherOutputs(list('abcd'), np.eye(4), classes=list('wxyz')), alone])
