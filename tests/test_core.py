"What is written whole is there whole or not at all, and a place is judged before the work."
import os

import pytest

from fastmatch.core import InputError, atomic_folder, check_device, check_new_folder


def names(path): return sorted(o.name for o in path.iterdir())


def test_a_whole_folder_takes_the_place_of_the_old(tmp_path):
    for text in ('one', 'two'):
        with atomic_folder(tmp_path/'deep'/'out') as tmp: (tmp/'x').write_text(text)
        assert (tmp_path/'deep'/'out'/'x').read_text() == text and names(tmp_path/'deep') == ['out']


def test_what_fails_leaves_the_old(tmp_path):
    with atomic_folder(tmp_path/'out') as tmp: (tmp/'x').write_text('old')
    with pytest.raises(KeyError), atomic_folder(tmp_path/'out') as tmp:
        (tmp/'x').write_text('half')
        raise KeyError
    assert names(tmp_path) == ['out'] and (tmp_path/'out'/'x').read_text() == 'old'


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_interrupt_between_the_two_renames_leaves_the_old(tmp_path, monkeypatch, error):
    with atomic_folder(tmp_path/'out') as tmp: (tmp/'x').write_text('old')
    real = type(tmp_path).rename

    def rename(self, to):
        if to.name == 'out' and (self/'x').read_text() == 'new': raise error
        return real(self, to)
    monkeypatch.setattr(type(tmp_path), 'rename', rename)
    with pytest.raises(error), atomic_folder(tmp_path/'out') as tmp: (tmp/'x').write_text('new')
    assert names(tmp_path) == ['out'] and (tmp_path/'out'/'x').read_text() == 'old'


def test_places(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    (tmp_path/'out').mkdir()
    check_new_folder(tmp_path/'new'/'deeper'), check_new_folder(tmp_path/'out')
    monkeypatch.chdir(tmp_path/'out')
    check_new_folder('.')
    (tmp_path/'out'/'a').write_text('')
    for path, ours, force, word in ((tmp_path/'file', None, 0, 'is a file'), (tmp_path/'file'/'x', None, 0, 'file is a file'), ('/proc', None, 1, 'mount point'),
                                    (tmp_path/'out', None, 1, 'something else .a.'), (tmp_path/'out', lambda o: o == 'a', 0, '--force')):
        with pytest.raises(InputError, match=word): check_new_folder(path, *([ours] if ours else []), force=bool(force))
    check_new_folder(tmp_path/'out', lambda o: o == 'a', True)
    monkeypatch.setattr(os, 'access', lambda *_: False)
    with pytest.raises(InputError, match='no right'): check_new_folder(tmp_path/'new')


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'cpu:x', 3.5])
def test_no_such_device(device):
    with pytest.raises(InputError, match='device='): check_device(device)
    check_device('cpu')
