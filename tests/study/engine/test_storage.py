"Opening storages: what can't be opened says why, and never a password."
import io
import json
import socket

import numpy as np
import pytest

from fastmatch.core import InputError, MissingPackage
from fastmatch.study import open_study, search_space, work
from fastmatch.study.engine.storage import open_storage, pack_array, unpack_array


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def test_a_server_that_isnt_there():
    address = f'postgresql://me:secret@127.0.0.1:{free_port()}/x'
    with pytest.raises(InputError, match='refused') as error: open_study('s', address)
    assert 'secret' not in str(error.value) and 'me:***@127.0.0.1' in str(error.value)


def test_a_file_that_is_something_else(tmp_path):
    (tmp_path/'a.db').write_text('posting_id,title\n' * 500)
    with pytest.raises(InputError, match='not a database'): open_study('s', tmp_path/'a.db')
    (tmp_path/'a.log').write_text('posting_id,title\n' * 5)
    with pytest.raises(InputError, match='journal'): open_study('s', tmp_path/'a.log')


@pytest.mark.parametrize('wrong_address, error_type, message', [
    ('studies', InputError, '.db'), ('none/here/a.db', InputError, 'no folder'),
    ('fish://a/b', InputError, 'fish'), ('mysql+nodriver://a:secret@b/c', InputError, 'nodriver'),
    ('oracle://me:secret@h/x', MissingPackage, 'oracle')])
def test_storages_that_cant_be(wrong_address, error_type, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error_type, match=message) as error: open_study('s', wrong_address)
    assert 'secret' not in str(error.value) and not list(tmp_path.iterdir())


def test_arrays_are_packed_and_unpacked():
    numbers = np.random.default_rng(0).normal(size=50).astype(np.float32)
    unpacked = unpack_array(pack_array(numbers))
    assert unpacked.dtype == np.float64
    np.testing.assert_array_equal(unpacked, numbers)
    # as stored studies hold it
    assert unpack_array('eJxjYAADewaGBnsAAoYA/w==').tolist() == [0., .5, 1.]


@pytest.mark.parametrize('file_name', ['a.db', 'a.log'])
def test_the_dashboard_opens_the_storage_as_it_is(file_name, tmp_path):
    dashboard = pytest.importorskip('optuna_dashboard')
    space = search_space('margin', lr=(1e-4, 1e-2, 'log'))
    study = open_study('mine', tmp_path/file_name, space=space)
    work(study, lambda trial: trial.suggest_float('margin', 0, .8), 3)
    app, statuses = dashboard.wsgi(open_storage(tmp_path/file_name).storage), []

    def get_json(path):
        environment = {
            'REQUEST_METHOD': 'GET', 'PATH_INFO': path, 'SERVER_NAME': 'x', 'SERVER_PORT': '80',
            'wsgi.input': io.BytesIO(), 'wsgi.errors': io.StringIO(), 'wsgi.url_scheme': 'http',
            'QUERY_STRING': ''}
        response = app(environment, lambda status, headers, error=None: statuses.append(error or status))
        return json.loads(b''.join(response))
    summary = get_json('/api/studies')['study_summaries'][0]
    trials = get_json(f'/api/studies/{summary["study_id"]}')['trials']
    assert summary['study_name'] == 'mine' and [trial['state'] for trial in trials] == ['Complete'] * 3
    assert statuses == ['200 OK'] * 2
