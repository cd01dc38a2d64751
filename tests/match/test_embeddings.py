"Embeddings: what is known of the listings, row by row, how they were made, and the spaces they give."
import copy
import pickle

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, Keys, Tfidf, Units, candidates
from tests.match.cases import noisy

VECTORS = noisy(4, 3, 0)
IDS = ['p0', 'p1', 'p2', 'p3']


@pytest.mark.parametrize('argument, arguments', [
    ('image', {'vectors': {'image': VECTORS[:3]}}),
    ('title', {'vectors': {'image': VECTORS, 'title': VECTORS[:1]}}),
    ('titles', {'titles': ['a']}), ('groups', {'groups': [1] * 5}), ('labels', {'labels': [1] * 5}),
    ('trained_on', {'trained_on': [True]}), ('phash', {'phash': ['x']})])
def test_wrong_lengths(argument, arguments):
    with pytest.raises(InputError, match=f'^{argument}: . rows for 4 ids'):
        Embeddings(**{'vectors': {'image': VECTORS}, 'ids': IDS, **arguments})


def test_holds_what_it_was_given():
    embeddings = Embeddings({'image': VECTORS.astype(np.float64)}, IDS, groups=list('aabb'))
    assert len(embeddings) == 4 and list(embeddings) == ['image'] and embeddings['image'].dtype == np.float32
    assert embeddings.titles is None and not embeddings.trained_on.any()
    assert embeddings.groups.tolist() == list('aabb')
    assert repr(embeddings) == 'Embeddings(4 listings: image 3-d)'


def test_labels_are_an_earlier_name_of_groups():
    embeddings = Embeddings({'image': VECTORS}, IDS, labels=list('aabb'))
    assert embeddings.groups.tolist() == embeddings.labels.tolist() == list('aabb')
    assert Embeddings({'image': VECTORS}, IDS).labels is None


def test_missing_titles_are_named():
    mixed = np.array(['', 7, 'c', 'd'], object)
    assert Embeddings({'image': VECTORS}, IDS, titles=mixed).titles == ['', '7', 'c', 'd']
    for missing in (None, float('nan'), pd.NA):
        with pytest.raises(InputError, match='titles: rows 1 '):
            Embeddings({'image': VECTORS}, IDS, titles=['a', missing, 'c', 'd'])


def test_refuse_trained_on():
    embeddings = Embeddings({'image': VECTORS}, IDS)
    assert embeddings.refuse_trained_on('x') is embeddings
    embeddings = Embeddings({'image': VECTORS}, IDS, trained_on=[False, True, False, True])
    message = r'2 of 4 listings were trained on \(p1, p3\): choosing a rule needs'
    with pytest.raises(InputError, match=message): embeddings.refuse_trained_on('choosing a rule')


def test_made_with_is_kept_by_copies():
    settings = {'tta': True, 'size': [104, 104]}
    embeddings = Embeddings({'image': VECTORS}, IDS, made_with=settings)
    derived = Embeddings(embeddings, embeddings.ids, groups=list('aabb'))
    unpickled = pickle.loads(pickle.dumps(embeddings))
    for same in (embeddings, derived, copy.copy(embeddings), copy.deepcopy(embeddings), unpickled):
        assert same.made_with == settings and len(same) == 4
    # what it was given is not changed with it
    derived.made_with['tta'] = False
    assert settings['tta'] and embeddings.made_with['tta']
    assert Embeddings(embeddings, embeddings.ids, made_with={}).made_with == {}
    assert Embeddings(dict(embeddings), embeddings.ids).made_with is None



def test_spaces():
    vectors = {'image': VECTORS, 'title': VECTORS * 2, 'joint': VECTORS + 1}
    embeddings = Embeddings(vectors, IDS, titles=['kaos merah', 'kaos', '', 'susu'])
    spaces = embeddings.spaces()
    assert list(spaces) == ['image', 'title', 'tfidf']
    assert [type(space) for space in spaces.values()] == [Dense, Dense, Tfidf]
    assert {len(space) for space in spaces.values()} == {4}
    np.testing.assert_array_equal(spaces['title'].vectors, Dense(VECTORS * 2).vectors)
    assert list(embeddings.spaces(tfidf=False)) == ['image', 'title']
    assert list(embeddings.spaces(only=('joint',))) == ['joint']
    assert list(embeddings.spaces(only=('tfidf', 'image'))) == ['image', 'tfidf']
    assert list(embeddings.spaces(only=('tfidf',))) == ['tfidf']
    assert list(Embeddings({'joint': VECTORS}, IDS).spaces()) == ['joint']
    assert list(Embeddings({'image': VECTORS}, IDS).spaces()) == ['image']
    message = r"\['imgae'\]: the embeddings hold \['image', 'title', 'joint'\]"
    with pytest.raises(InputError, match=message): embeddings.spaces(only=('imgae',))
    assert set(candidates(spaces, 3).scores) == {'image', 'title', 'tfidf'}


def test_spaces_from_titles_and_hashes():
    texts = ['susu 1 l', 'Susu  1 L', '', 'kaos']
    embeddings = Embeddings({'image': VECTORS}, IDS, titles=texts, phash=['p', None, 'p', 'q'])
    assert list(embeddings.spaces()) == ['image', 'tfidf', 'phash']
    spaces = embeddings.spaces(only=('same_title', 'units', 'phash'))
    kinds = {modality: type(space) for modality, space in spaces.items()}
    assert kinds == {'phash': Keys, 'units': Units, 'same_title': Keys}
    assert spaces['same_title'].scores([0, 2], [1, 3]).tolist() == [1, 0]
    assert spaces['phash'].scores([0, 1], [2, 3]).tolist() == [1, 0]


@pytest.mark.parametrize(
    'modality, message',
    [
        ('tfidf', "'tfidf' needs titles"),
        ('units', "'units' needs titles"),
        ('same_title', 'needs titles'),
        ('phash', "'phash' needs perceptual hashes"),
    ],
)
def test_spaces_refuse_what_they_have_nothing_for(modality, message):
    embeddings = Embeddings({'image': VECTORS}, IDS)
    with pytest.raises(InputError, match=message): embeddings.spaces(only=('image', modality))


def test_bad_rows_are_named_with_their_modality():
    zero_row = VECTORS.copy()
    zero_row[2] = 0
    embeddings = Embeddings({'image': VECTORS, 'title': zero_row}, IDS)
    with pytest.raises(InputError, match='title: rows 2 are all zero'): embeddings.spaces()


def test_ids_of_each_modality_must_agree():
    vectors = {'image': np.eye(3), 'title': np.eye(3)}
    embeddings = Embeddings(vectors, {'image': ['a', 'b', 'c'], 'title': np.array(['a', 'b', 'c'])})
    assert embeddings.ids.tolist() == ['a', 'b', 'c']
    for title_ids, message in [
            (['a', 'c', 'b'], "title: row 1 is 'c', in image it is 'b': the same listings in another order"),
            (['a', 'b', 'd'], 'other listings'), (['a', 'b'], 'title: 2 ids, image: 3')]:
        with pytest.raises(InputError, match=message):
            Embeddings(vectors, {'image': ['a', 'b', 'c'], 'title': title_ids})
