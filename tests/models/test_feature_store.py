"A store of features: what was put in comes out, and what is damaged or another's is named."
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.models import feature_store
from fastmatch.models.feature_store import FeatureStore

PROBE = np.arange(1, 4, dtype=np.float32)
VECTORS = {bytes([number]) * 32: np.full(3, number / 3, np.float32) for number in range(1, 8)}


def store_of(folder, **options): return FeatureStore(folder/'features.sqlite', {'size': 8}, PROBE, **options)


def test_what_was_put_in_comes_out(tmp_path):
    store = store_of(tmp_path/'new'/'folder')
    store.put(VECTORS)
    # what is there stays
    store.put({next(iter(VECTORS)): PROBE})
    again = store_of(tmp_path/'new'/'folder')
    found = again.get([*VECTORS, b'unknown'])
    assert len(again) == len(VECTORS) and found.keys() == VECTORS.keys()
    for content, vector in found.items(): np.testing.assert_array_equal(vector, VECTORS[content])
    # more than one query can take
    many = [*VECTORS, *(number.to_bytes(32, 'big') for number in range(3000))]
    assert store.get(many[::-1]).keys() == VECTORS.keys() and store.get([]) == {}
    assert [path.name for path in (tmp_path/'new'/'folder').iterdir()] == ['features.sqlite']


def test_all_or_nothing(tmp_path):
    store = store_of(tmp_path)
    with pytest.raises(InputError, match='features.sqlite'): store.put({**VECTORS, ('no', 'content'): PROBE})
    assert len(store) == 0


def test_another_encoders_file_is_refused(tmp_path):
    store_of(tmp_path).put(VECTORS)
    with pytest.raises(InputError, match='features.sqlite: holds features made with {"size": 8}'):
        FeatureStore(tmp_path/'features.sqlite', {'size': 9}, PROBE)
    with pytest.raises(InputError, match=r'features.sqlite: holds what these weights.*0\.05 of the largest'):
        FeatureStore(tmp_path/'features.sqlite', {'size': 8}, PROBE + [0, 0, .15])
    with pytest.raises(InputError, match='holds what these weights'):
        FeatureStore(tmp_path/'features.sqlite', {'size': 8}, PROBE * np.nan)


@pytest.mark.parametrize('damage', ['overwritten', 'no database', 'cut'])
def test_a_damaged_file_is_named(tmp_path, damage):
    store = store_of(tmp_path)
    store.put({number.to_bytes(32, 'big'): PROBE for number in range(2000)})
    content = store.file.read_bytes()
    random = np.random.default_rng(0)
    if damage == 'no database': store.file.write_bytes(b'a text, and a longer one than any header' * 9)
    elif damage == 'cut': store.file.write_bytes(content[:len(content) // 2])
    else: store.file.write_bytes(content[:4096] + random.bytes(len(content) - 4096))
    with pytest.raises(InputError, match='features.sqlite: damaged.*remove the file'):
        again = store_of(tmp_path)
        again.get([number.to_bytes(32, 'big') for number in range(2000)])


def test_a_vector_of_another_length_is_named(tmp_path):
    store = store_of(tmp_path)
    store.put(VECTORS)
    connection = sqlite3.connect(store.file)
    with connection: connection.execute('UPDATE features SET vector = ?', [b'1234'])
    connection.close()
    with pytest.raises(InputError, match='features.sqlite: damaged: holds a vector of 4 bytes and not 12'):
        store.get(list(VECTORS))


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path/'file').touch()
    with pytest.raises(InputError, match='folder=.*file'): store_of(tmp_path/'file')
    store_of(tmp_path).put(VECTORS)
    can_access = os.access
    monkeypatch.setattr(feature_store.os, 'access',
                        lambda path, mode: mode != os.W_OK and can_access(path, mode))
    store = store_of(tmp_path)
    assert len(store) == len(VECTORS) and store.get(list(VECTORS)).keys() == VECTORS.keys()
    with pytest.raises(InputError, match='features.sqlite: lacks 1 pictures and can not be written: copy'):
        store.put({b'new': PROBE})


def test_who_waits_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, 'WAIT', .05)
    store = store_of(tmp_path)
    connection = sqlite3.connect(store.file, isolation_level=None)
    connection.execute('BEGIN IMMEDIATE')
    with pytest.raises(InputError, match='features.sqlite: SQLite: database is locked'): store.put(VECTORS)
    # others can read meanwhile
    assert len(store) == 0
    connection.close()
    store.put(VECTORS)
    assert len(store) == len(VECTORS)


def test_several_processes_make_and_write_one_file(tmp_path):
    program = '''
import sys
import numpy as np
from fastmatch.models.feature_store import FeatureStore
number = int(sys.argv[2])
store = FeatureStore(sys.argv[1], {'size': 8}, np.arange(1, 4, dtype=np.float32))
for start in range(60):
    # half of the contents are everybody's
    store.put({(start * 2).to_bytes(32, 'big'): np.full(3, start, np.float32),
               (start * 2 + 1 + 1000 * number).to_bytes(32, 'big'): np.full(3, number, np.float32)})
'''
    file = tmp_path/'features.sqlite'
    jobs = [subprocess.Popen([sys.executable, '-W', 'ignore', '-c', program, str(file), str(number)],
                             stderr=subprocess.PIPE, text=True) for number in (1, 2, 3)]
    for each in jobs: assert each.communicate()[1] == '' and each.returncode == 0
    store = store_of(tmp_path)
    assert len(store) == 60 + 3 * 60
    found = store.get([(2 * start + 1 + 1000 * number).to_bytes(32, 'big')
                       for number in (1, 2, 3) for start in range(60)])
    np.testing.assert_array_equal(sorted(vector[0] for vector in found.values()), np.repeat([1., 2., 3.], 60))
