"What a service is told at its start, and what it refuses."
import sys

import pytest

from fastmatch.core import InputError, MissingPackage
from fastmatch.serve import Limits, Settings
from fastmatch.serve.settings import is_loopback, key_from

KEY = 'a key of many letters'


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '::1', '[::1]', '127.3.4.5', 'LOCALHOST'])
def test_a_loopback_address_needs_no_key(host):
    assert is_loopback(host) and Settings(host).key is None


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.168.1.4', 'shop.example', '127.0.0.1.example', ''])
def test_any_other_needs_one(host):
    assert not is_loopback(host)
    with pytest.raises(InputError, match='FASTMATCH_KEY'): Settings(host)
    assert Settings(host, key=KEY).known_hosts is None


def test_a_key_that_can_be_guessed():
    with pytest.raises(InputError, match='16 or more'): Settings(key='short')


def test_the_key_may_be_in_the_environment(monkeypatch):
    monkeypatch.delenv('FASTMATCH_KEY', raising=False)
    assert key_from(None) is None and key_from('') is None
    monkeypatch.setenv('FASTMATCH_KEY', KEY)
    assert key_from(None) == KEY and key_from('another one') == 'another one'
    monkeypatch.setenv('FASTMATCH_KEY', '')
    assert key_from(None) is None


def test_limits_in_words():
    assert Limits.from_words(['pixels=5', 'seconds=.5']) == Limits(pixels=5, seconds=.5)
    assert Limits.from_words(None) == Limits()
    with pytest.raises(InputError, match='did you mean pixels'): Limits.from_words(['pixel=5'])
    for words in ('pixels', 'pixels=many', 'pixels=1.5'):
        with pytest.raises(InputError, match='--limit'): Limits.from_words([words])
    for value in (0, -1, float('nan'), True, 'x'):
        with pytest.raises(InputError, match='limit body'): Limits(body=value)


def test_without_the_extra(monkeypatch):
    import fastmatch.serve
    monkeypatch.setitem(sys.modules, 'fastapi', None)
    with pytest.raises(MissingPackage, match=r"'fastapi': pip install fastmatch\[serve\]"):
        fastmatch.serve.make_app  # noqa: B018
    with pytest.raises(AttributeError): fastmatch.serve.no_such_name  # noqa: B018


def test_a_port_and_a_folder(tmp_path):
    with pytest.raises(InputError, match='--port 70000'): Settings(port=70000)
    with pytest.raises(InputError, match='is not a folder'): Settings(images=tmp_path/'none')
