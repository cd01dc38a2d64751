"What is written is there whole or not at all, and sealed folders are read only when every hash is right."
import hashlib
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fastmatch import store
from fastmatch.core import InputError
from fastmatch.match import Index
from fastmatch.store import (
    atomic_folder,
    check_new_folder,
    fingerprint,
    read_sealed,
    seal,
    table_text,
    write_atomically,
    write_sealed,
    write_state,
    write_text,
)

SAVED = Path(__file__).parent/'saved'  # folders that the code wrote before there was one format


def names(path): return sorted(file.name for file in path.iterdir())


# --- files and folders, whole or not at all

def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    file = tmp_path/'file'
    write_atomically(file, 'old')
    with pytest.raises(UnicodeEncodeError): write_atomically(file, 'new \ud800')
    monkeypatch.setattr(os, 'fsync', lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError): write_atomically(file, 'new')
    assert file.read_text() == 'old' and names(tmp_path) == ['file']
    monkeypatch.undo()
    write_atomically(file, 'ü')
    assert file.read_bytes() == 'ü'.encode()
    write_atomically(file, b'\x00')
    assert file.read_bytes() == b'\x00' and names(tmp_path) == ['file']


def test_a_whole_folder_takes_the_place_of_the_old(tmp_path):
    for text in ('one', 'two'):
        with atomic_folder(tmp_path/'deep'/'out') as folder: (folder/'x').write_text(text)
        assert (tmp_path/'deep'/'out'/'x').read_text() == text and names(tmp_path/'deep') == ['out']


def test_what_fails_leaves_the_old(tmp_path):
    with atomic_folder(tmp_path/'out') as folder: (folder/'x').write_text('old')
    with pytest.raises(KeyError), atomic_folder(tmp_path/'out') as folder:
        (folder/'x').write_text('half')
        raise KeyError
    assert names(tmp_path) == ['out'] and (tmp_path/'out'/'x').read_text() == 'old'


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_interrupt_between_the_two_renames_leaves_the_old(tmp_path, monkeypatch, error):
    with atomic_folder(tmp_path/'out') as folder: (folder/'x').write_text('old')
    real = type(tmp_path).rename

    def rename(self, to):
        if to.name == 'out' and (self/'x').read_text() == 'new': raise error
        return real(self, to)
    monkeypatch.setattr(type(tmp_path), 'rename', rename)
    with pytest.raises(error), atomic_folder(tmp_path/'out') as folder: (folder/'x').write_text('new')
    assert names(tmp_path) == ['out'] and (tmp_path/'out'/'x').read_text() == 'old'


def test_places(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    (tmp_path/'out').mkdir()
    check_new_folder(tmp_path/'new'/'deeper')
    check_new_folder(tmp_path/'out')
    monkeypatch.chdir(tmp_path/'out')
    check_new_folder('.')
    (tmp_path/'out'/'a').write_text('')

    def is_ours(name): return name == 'a'
    with pytest.raises(InputError, match='is a file'): check_new_folder(tmp_path/'file')
    with pytest.raises(InputError, match='file is a file'): check_new_folder(tmp_path/'file'/'x')
    with pytest.raises(InputError, match='mount point'): check_new_folder('/proc', force=True)
    with pytest.raises(InputError, match='something else .a.'): check_new_folder(tmp_path/'out', force=True)
    with pytest.raises(InputError, match='--force'): check_new_folder(tmp_path/'out', is_ours)
    check_new_folder(tmp_path/'out', is_ours, True)
    monkeypatch.setattr(os, 'access', lambda *_: False)
    with pytest.raises(InputError, match='no right'): check_new_folder(tmp_path/'new')


# --- sealed folders

CONTENT = {'format': 1, 'name': 'ü', 'numbers': [1, 2.5]}
FILES = {'a.txt': b'first', 'b.onnx': b'\x00second'}


@pytest.fixture(params=[write_sealed, write_state])
def write(request): return request.param


def test_what_was_written_is_read(write, tmp_path):
    write(tmp_path/'x', 'index.json', CONTENT, FILES)
    write(tmp_path/'x', 'index.json', {**CONTENT, 'name': 'again'}, {'a.txt': b'other'})
    content, files = read_sealed(tmp_path/'x', 'index.json', 1)
    assert {key: content[key] for key in CONTENT} == {**CONTENT, 'name': 'again'}
    assert files == {'a.txt': b'other'}
    # nothing of the earlier one is left
    assert len(names(tmp_path/'x')) == 2 and names(tmp_path) == ['x']


def test_every_bit_counts(write, tmp_path):
    write(tmp_path/'x', 'index.json', CONTENT, FILES)
    rng = random.Random(0)
    for file in (file for file in (tmp_path/'x').rglob('*') if file.is_file()):
        good = file.read_bytes()
        flipped = []
        for at in range(len(good)):
            flipped.append(good[:at] + bytes([good[at] ^ 1 << rng.randrange(8)]) + good[at + 1:])
        for bad in (*flipped, good + b' ', good[:-1], b''):
            file.write_bytes(bad)
            with pytest.raises(InputError, match=file.name): read_sealed(tmp_path/'x', 'index.json', 1)
        file.unlink()
        with pytest.raises(InputError, match=f'{file.name}: missing'):
            read_sealed(tmp_path/'x', 'index.json', 1)
        file.write_bytes(good)
    assert read_sealed(tmp_path/'x', 'index.json', 1)[1] == FILES


def test_another_format_is_named(write, tmp_path):
    write(tmp_path/'x', 'index.json', {**CONTENT, 'format': 7, 'made_with': {'fastmatch': '9.0'}}, FILES)
    with pytest.raises(InputError, match="format 7, this version of fastmatch reads 1.*9.0"):
        read_sealed(tmp_path/'x', 'index.json', 1)
    with pytest.raises(InputError, match='missing: no such folder'):
        read_sealed(tmp_path/'y', 'index.json', 1)
    with pytest.raises(InputError, match='pair.json: missing'): read_sealed(tmp_path/'x', 'pair.json', 1)


@pytest.mark.parametrize('content, word', [
    ({'format': 1, 'files': ['a']}, 'no list of files'), ({'format': 1}, 'no list of files'),
    ({'format': 1, 'files': {}, 'folder': '..'}, 'no name of a saved state'),
    ({'format': 1, 'files': {}, 'folder': None}, 'no name of a saved state'), ([1], 'damaged')])
def test_a_manifest_that_was_sealed_and_makes_no_sense(content, word, tmp_path):
    data = seal(content) if isinstance(content, dict) else json.dumps(content).encode()
    (tmp_path/'index.json').write_bytes(data)
    with pytest.raises(InputError, match=word): read_sealed(tmp_path, 'index.json', 1)


def test_other_things_are_not_overwritten(write, tmp_path):
    (tmp_path/'file').write_text('mine')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.tex').write_text('important')
    with pytest.raises(InputError, match='is a file'): write(tmp_path/'file', 'index.json', CONTENT, FILES)
    with pytest.raises(InputError, match='something else.*thesis.tex'):
        write(tmp_path/'mine', 'index.json', CONTENT, FILES)
    assert names(tmp_path/'mine') == ['thesis.tex'] and (tmp_path/'file').read_text() == 'mine'


def test_a_state_leaves_what_is_beside_it(tmp_path):
    write_state(tmp_path/'x', 'manifest.json', CONTENT, {'deep/a.txt': b'one'})
    (tmp_path/'x'/'report.html').write_text('mine')
    write_state(tmp_path/'x', 'manifest.json', CONTENT, {'deep/a.txt': b'two'})
    assert (tmp_path/'x'/'report.html').read_text() == 'mine' and len(names(tmp_path/'x')) == 3
    assert read_sealed(tmp_path/'x', 'manifest.json', 1)[1] == {'deep/a.txt': b'two'}


def test_a_write_that_fails_leaves_the_old(write, tmp_path, monkeypatch):
    write(tmp_path/'x', 'index.json', CONTENT, FILES)
    before = names(tmp_path/'x')
    real = store._write_to_disk

    def fail(file, data):
        if 'index.json' in file.name: raise KeyboardInterrupt
        real(file, data)
    monkeypatch.setattr(store, '_write_to_disk', fail)
    with pytest.raises(KeyboardInterrupt): write(tmp_path/'x', 'index.json', CONTENT, {'a.txt': b'new'})
    assert read_sealed(tmp_path/'x', 'index.json', 1)[1] == FILES and names(tmp_path/'x') == before
    assert names(tmp_path) == ['x']


# --- folders of the code before there was one format

def canonical(content): return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True).encode()


def sha256(data): return hashlib.sha256(data).hexdigest()


def test_the_bytes_are_those_of_earlier_versions(tmp_path):
    "A manifest beside its files, written as `write_sealed` always did."
    unhashed = {'v.safetensors': lambda file: file.write_bytes(b'v')}
    write_sealed(tmp_path/'x', 'index.json', CONTENT, {**FILES, **unhashed})
    content = {**CONTENT, 'files': {name: sha256(data) for name, data in FILES.items()}}
    want = canonical({**content, 'sha256': sha256(canonical(content))})
    assert (tmp_path/'x'/'index.json').read_bytes() == want == seal(content)
    assert names(tmp_path/'x') == ['a.txt', 'b.onnx', 'index.json', 'v.safetensors']


def test_an_index_of_an_earlier_version_loads(tmp_path):
    index = Index.load(SAVED/'index')
    assert len(index.search(3).ids) == 6 and index.removed.tolist() == [False] * 4 + [True, False]
    np.testing.assert_array_equal(index.search(3).ids[:3], [[0, 1, 3], [1, 0, 5], [2, 3, 0]])
    index.save(tmp_path/'again')
    for file in (SAVED/'index').iterdir():
        assert (tmp_path/'again'/file.name).read_bytes() == file.read_bytes()


def test_a_fingerprint_tells_arrays_apart():
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = [vectors + 1, vectors.reshape(3, 2), vectors.astype(np.float64), vectors[:, ::-1]]
    assert fingerprint(vectors) == fingerprint(vectors.copy('F'))
    assert fingerprint(vectors) not in map(fingerprint, others)


def test_a_table_has_one_line_end_on_every_system(tmp_path, monkeypatch):
    "pandas takes that of the system, and text files on Windows double it."
    table = pd.DataFrame({'id': ['a', 'b'], 'title': ['one\r\ntwo', 'x,y']})
    here = table_text(table)
    monkeypatch.setattr(os, 'linesep', '\r\n')
    assert table_text(table) == here == 'id,title\na,"one\r\ntwo"\nb,"x,y"\n'
    write_text(tmp_path/'table.csv', here)
    assert (tmp_path/'table.csv').read_bytes() == here.encode()
    assert pd.read_csv(tmp_path/'table.csv', lineterminator='\n').equals(table)


def test_no_table_is_written_past_the_door():
    "Every table and text file of the package goes through `table_text`, and is written as bytes."
    package = Path(store.__file__).parent
    written = [f'{path.name}: {line.strip()}' for path in package.rglob('*.py') for line in
               path.read_text(encoding='utf-8').splitlines()
               if re.search(r'\.to_csv\((?!index=False, lineterminator)|\.write_text\(', line)]
    assert written == []


def test_files_that_nobody_wants_are_checked_all_the_same(tmp_path):
    write_sealed(tmp_path/'x', 'index.json', {'format': 1}, {'small.txt': b'small', 'large.onnx': b'large'})
    _, files = read_sealed(tmp_path/'x', 'index.json', 1, wanted=lambda name: name == 'small.txt')
    assert files == {'small.txt': b'small'}
    (tmp_path/'x'/'large.onnx').write_bytes(b'Large')
    with pytest.raises(InputError, match='large.onnx'):
        read_sealed(tmp_path/'x', 'index.json', 1, wanted=lambda name: name == 'small.txt')
