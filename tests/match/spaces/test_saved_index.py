"Saved indexes: the way there and back, every flipped bit seen, and vectors that don't fit refused."
import json

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Index
from fastmatch.match.spaces.faiss_index import KINDS
from fastmatch.store import fingerprint, read_sealed, write_sealed
from tests.match.spaces.promises import assert_same, clustered


def assert_same_index(actual, expected, k=6):
    assert_same(actual.search(k), expected.search(k))
    assert repr(actual) == repr(expected)


@pytest.mark.parametrize('index_kind', KINDS)
def test_save_and_load(index_kind, tmp_path):
    vectors = clustered()
    index = Index(vectors, 'pics', index_kind, recall=.9, memory=2., seed=3)
    index.save(tmp_path/'fresh')
    assert Index.load(tmp_path/'fresh')._faiss_index is None
    index.search(6)
    index.remove([3, 4])
    index.add(vectors[3:5])
    for folder in (tmp_path/'a', tmp_path/'fresh'):
        index.save(folder)
        assert ('index.faiss' in {file.name for file in folder.iterdir()}) == (index_kind != 'exact')
        for loaded in (Index.load(folder), Index.load(folder, np.concatenate([vectors, vectors[3:5]]))):
            settings = loaded.kind, loaded.requested_kind, loaded.target_recall, loaded.memory, loaded.seed
            assert settings == (index_kind, index_kind, .9, 2., 3)
            assert_same_index(loaded, index)
            np.testing.assert_array_equal(loaded.vectors, index.vectors)
    # and goes on from there
    loaded = Index.load(tmp_path/'a')
    loaded.remove([10])
    loaded.add(vectors[10:11])
    assert 702 in loaded.search(6).ids[702] and 10 not in loaded.search(6).ids[9]


def test_the_format_of_the_settings(tmp_path):
    "The names that folders saved by earlier versions hold."
    index = Index(clustered(280, 4), 'pics', 'ivf')
    index.search(5)
    index.remove([7])
    index.save(tmp_path/'index')
    content = json.loads((tmp_path/'index'/'index.json').read_text())
    assert set(content) == {
        'format', 'name', 'kind', 'built', 'recall', 'memory', 'seed', 'effort', 'reached', 'removed',
        'shape', 'fingerprint', 'files', 'sha256'}
    assert content['format'] == 1 and content['removed'] == [7] and content['shape'] == [280, 4]
    assert set(content['effort']) == {'5'} and set(content['reached'][0]) == {'k', 'mean', 'se', 'rows'}


@pytest.mark.parametrize('index_kind', KINDS)
def test_a_flipped_bit_is_seen(index_kind, tmp_path):
    index = Index(clustered(280, 4), kind=index_kind)
    index.search(5)
    index.save(tmp_path/'index')
    rng = np.random.default_rng(0)
    for file in sorted((tmp_path/'index').iterdir()):
        content = file.read_bytes()
        # headers are where faiss reads on
        for place in {*range(0, 60), *rng.integers(0, len(content), 60).tolist()}:
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.integers(8)
            file.write_bytes(flipped)
            with pytest.raises(InputError, match=file.name): Index.load(tmp_path/'index')
        for damaged in (content[:-1], content[:50], b'', content + b' '):
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=file.name): Index.load(tmp_path/'index')
        file.unlink()
        with pytest.raises(InputError, match=file.name): Index.load(tmp_path/'index')
        file.write_bytes(content)
        assert len(Index.load(tmp_path/'index')) == 280


def test_an_index_of_other_vectors_is_refused(tmp_path):
    vectors = clustered()
    index = Index(vectors, kind='hnsw')
    index.search(5)
    index.save(tmp_path/'index')
    changed = vectors.copy()
    changed[5] += 1e-3
    wrong_size = 'an index of 12 dimensions, the vectors are of shape'
    for other_vectors, message in [
        (changed, r'made from other vectors \(700 x 12\)'),
        (vectors[::-1], 'other vectors'),
        (vectors[:-1], 'other vectors'),
        (vectors[:, :5], wrong_size),
        (vectors[0], '12 dimensions'),
    ]:
        with pytest.raises(InputError, match=message): Index.load(tmp_path/'index', other_vectors)
    # the length of the vectors does not matter
    assert_same_index(Index.load(tmp_path/'index', 2 * vectors), index)


def test_another_index_under_its_right_hash_is_refused(tmp_path):
    "The numbers of listings tell."
    for name, listing_count in (('index', 700), ('small', 300)):
        index = Index(clustered()[:listing_count], kind='hnsw')
        index.search(5)
        index.save(tmp_path/name)
    content, _ = read_sealed(tmp_path/'index', 'index.json', 1)
    vectors = (tmp_path/'index'/'vectors.safetensors').read_bytes()
    files = {'index.faiss': (tmp_path/'small'/'index.faiss').read_bytes(),
             'vectors.safetensors': lambda file: file.write_bytes(vectors)}
    settings = {name: value for name, value in content.items() if name != 'files'}
    write_sealed(tmp_path/'mixed', 'index.json', settings, files)
    with pytest.raises(InputError, match='index.faiss: holds 300 x 12'): Index.load(tmp_path/'mixed')


def test_places(tmp_path):
    index = Index(clustered(30))
    with pytest.raises(InputError, match='missing'): Index.load(tmp_path/'nothing')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.docx').write_text('x')
    with pytest.raises(InputError, match='something else'): index.save(tmp_path/'mine')
    index.save(tmp_path/'index')
    file = tmp_path/'index'/'index.json'
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, 'format': 99}))
    with pytest.raises(InputError, match='saved in format 99, this version of fastmatch reads 1'):
        Index.load(tmp_path/'index')
    file.write_text('[]')
    with pytest.raises(InputError, match='index.json: damaged'): Index.load(tmp_path/'index')


def test_fingerprints():
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    alike = [vectors, vectors.copy(), np.asfortranarray(vectors), vectors.reshape(4, 6).reshape(6, 4)]
    different = [
        vectors.reshape(4, 6),
        vectors[::-1],
        vectors[:, ::-1],
        vectors + np.float32(1e-7),
        vectors[:5],
        vectors.view(np.int32),
    ]
    assert len({fingerprint(array) for array in alike}) == 1
    assert len({fingerprint(array) for array in [vectors, *different]}) == 7
