"Embeddings: what is known of the listings, row by row, and the spaces they give."
import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, Tfidf, candidates
from tests.match.cases import noisy

X, IDS = noisy(4, 3, 0), ['p0', 'p1', 'p2', 'p3']


@pytest.mark.parametrize('name, kwargs', [('image', {'vectors': {'image': X[:3]}}), ('title', {'vectors': {'image': X, 'title': X[:1]}}),
                                          ('titles', {'titles': ['a']}), ('labels', {'labels': [1] * 5}),
                                          ('trained_on', {'trained_on': [True]})])
def test_wrong_lengths(name, kwargs):
    with pytest.raises(InputError, match=f'^{name}: . rows for 4 ids'): Embeddings(**{'vectors': {'image': X}, 'ids': IDS, **kwargs})


def test_holds_what_it_was_given():
    emb = Embeddings({'image': X.astype(np.float64)}, IDS, groups=list('aabb'))
    assert len(emb) == 4 and list(emb) == ['image'] and emb['image'].dtype == np.float32
    assert emb.titles is None and not emb.trained_on.any()
    assert emb.groups.tolist() == list('aabb') and repr(emb) == 'Embeddings(4 listings: image 3-d)'


def test_missing_titles_are_named():
    assert Embeddings({'image': X}, IDS, titles=np.array(['', 7, 'c', 'd'], object)).titles == ['', '7', 'c', 'd']
    for bad in (None, float('nan'), pd.NA):
        with pytest.raises(InputError, match='titles: rows 1 '): Embeddings({'image': X}, IDS, titles=['a', bad, 'c', 'd'])


def test_refuse_trained_on():
    emb = Embeddings({'image': X}, IDS)
    assert emb.refuse_trained_on('x') is emb
    emb = Embeddings({'image': X}, IDS, trained_on=[False, True, False, True])
    says = r'2 of 4 listings were trained on \(p1, p3\): choosing a rule needs'
    with pytest.raises(InputError, match=says): emb.refuse_trained_on('choosing a rule')


def test_spaces():
    emb = Embeddings({'image': X, 'title': X * 2, 'joint': X + 1}, IDS, titles=['kaos merah', 'kaos', '', 'susu'])
    got = emb.spaces()
    assert list(got) == ['image', 'title', 'tfidf'] and [type(o) for o in got.values()] == [Dense, Dense, Tfidf]
    assert {len(o) for o in got.values()} == {4}
    np.testing.assert_array_equal(got['title'].vectors, Dense(X * 2).vectors)
    assert list(emb.spaces(tfidf=False)) == ['image', 'title'] and list(emb.spaces(only=('joint',))) == ['joint']
    assert list(emb.spaces(only=('tfidf', 'image'))) == ['image', 'tfidf'] and list(emb.spaces(only=('tfidf',))) == ['tfidf']
    assert list(Embeddings({'joint': X}, IDS).spaces()) == ['joint'] and list(Embeddings({'image': X}, IDS).spaces()) == ['image']
    with pytest.raises(InputError, match=r"\['imgae'\]: the embeddings hold \['image', 'title', 'joint'\]"): emb.spaces(only=('imgae',))
    assert set(candidates(got, 3).scores) == {'image', 'title', 'tfidf'}


def test_spaces_refuse_tfidf_without_titles():
    with pytest.raises(InputError, match='tfidf'): Embeddings({'image': X}, IDS).spaces(only=('image', 'tfidf'))


def test_bad_rows_are_named_with_their_modality():
    x = X.copy()
    x[2] = 0
    with pytest.raises(InputError, match='title: rows 2 are all zero'): Embeddings({'image': X, 'title': x}, IDS).spaces()


def test_ids_of_each_modality_must_agree():
    x = {'image': np.eye(3), 'title': np.eye(3)}
    emb = Embeddings(x, {'image': ['a', 'b', 'c'], 'title': np.array(['a', 'b', 'c'])})
    assert emb.ids.tolist() == ['a', 'b', 'c']
    with pytest.raises(InputError, match="title: row 1 is 'c', in image it is 'b': the same listings in another order"):
        Embeddings(x, {'image': ['a', 'b', 'c'], 'title': ['a', 'c', 'b']})
    with pytest.raises(InputError, match='other listings'): Embeddings(x, {'image': ['a', 'b', 'c'], 'title': ['a', 'b', 'd']})
    with pytest.raises(InputError, match='title: 2 ids, image: 3'): Embeddings(x, {'image': ['a', 'b', 'c'], 'title': ['a', 'b']})
