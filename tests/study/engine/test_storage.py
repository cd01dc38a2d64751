"Opening studies: the same again goes on, another of the name is refused, and what can't be opened says why."
import io
import json
import socket
import threading

import optuna
import pytest

from fastmatch.core import InputError, MissingPackage
from fastmatch.study import open_study, spaces, work

SPACE = spaces('margin', lr=(1e-4, 1e-2, 'log'))


@pytest.fixture(params=['a.db', 'a.sqlite', 'a.log', 'url'])
def storage(request, tmp_path): return f'sqlite:///{tmp_path}/b.db' if request.param == 'url' else tmp_path/request.param


def test_the_same_call_goes_on(storage):
    s = open_study('s', storage, space=SPACE)
    work(s, lambda t: t.suggest_float('margin', 0, .8), 3)
    again = open_study('s', storage, space=SPACE)
    assert [t.value for t in again.trials] == [t.value for t in s.trials] and len(again.trials) == 3
    # the first is the kit as it comes, and was queued once
    assert again.trials[0].params == {'margin': .3} and again.trials[0].user_attrs['default'] and again.trials[0].user_attrs['given'] == {'margin': .3, 'lr': 2e-3}
    # another name is another study; a name alone opens what there is
    assert len(open_study('t', storage, space=SPACE).trials) == 1
    assert open_study('s', storage, None).direction.name == 'MAXIMIZE'


@pytest.mark.parametrize('change, words', [
    (dict(direction='minimize'), ['to maximize', 'to minimize']), (dict(space=spaces('margin')), ["'lr'", '0.0001 to 0.01 log', 'space']),
    (dict(space=spaces('margin', lr=(1e-4, 1e-1, 'log'))), ['0.0001 to 0.1 log', '0.0001 to 0.01 log']), (dict(about={'monitor': 'map@r'}), ['recall@1', 'map@r'])])
def test_another_study_of_the_name_is_refused(storage, change, words):
    call = dict(space=SPACE, about={'monitor': 'recall@1'})
    open_study('s', storage, **call)
    with pytest.raises(InputError) as e: open_study('s', storage, **{**call, **change})
    assert all(o in str(e.value) for o in ["'s'", *words])


def test_a_first_trial_that_draws_is_not_the_kit_as_it_comes():
    s = open_study('s', space=spaces('margin', lr=(1e-2, 1e-1, 'log')))
    assert s.trials[0].user_attrs == {'given': {'margin': .3}}
    assert open_study('s', space=spaces('margin', 'image_pool')).trials[0].user_attrs['default']


def test_a_study_half_made_is_completed(tmp_path):
    "Whoever made it was killed before it queued its first trial, or right after."
    for file, queued in (('a.db', False), ('b.db', True)):
        half = optuna.create_study(study_name='s', storage=f'sqlite:///{tmp_path}/{file}', direction='maximize')
        if queued: half.enqueue_trial({'margin': .3, 'lr': 2e-3}, user_attrs={'given': {}, 'default': True})
        s = open_study('s', tmp_path/file, space=SPACE)
        assert [t.system_attrs['fixed_params'] for t in s.trials] == [{'margin': .3, 'lr': 2e-3}] and s.user_attrs['kept']['space']


def test_a_study_of_several_objectives_is_refused(tmp_path):
    optuna.create_study(study_name='s', storage=f'sqlite:///{tmp_path}/a.db', directions=['minimize', 'maximize'])
    with pytest.raises(InputError, match='2 objectives'): open_study('s', tmp_path/'a.db', space=SPACE)


def test_who_only_looks_leaves_nothing_behind(storage):
    assert open_study('s', storage).trials == []
    assert len(open_study('s', storage, space=SPACE, about={'monitor': 'map@r'}).trials) == 1
    s = open_study('s', storage)
    assert s.user_attrs['kept']['monitor'] == 'map@r' and len(s.trials) == 1
    with pytest.raises(InputError, match='space'): open_study('s', storage, space=spaces('lr'))


def test_many_open_at_once(tmp_path):
    "One of them makes the study and queues the first trial."
    studies, errors = [], []
    def go():
        try: studies.append(open_study('s', tmp_path/'a.db', space=SPACE))
        except Exception as e: errors.append(e)
    threads = [threading.Thread(target=go) for _ in range(6)]
    for o in threads: o.start()
    for o in threads: o.join()
    assert not errors and len(studies) == 6 and len(studies[0].trials) == 1


def test_memory_is_a_study_each():
    a, b = open_study('s', space=SPACE), open_study('s', space=SPACE)
    work(a, lambda t: 1., 2)
    assert len(a.trials) == 2 and len(b.trials) == 1


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_a_server_that_isnt_there():
    with pytest.raises(InputError, match='refused') as e: open_study('s', f'postgresql://me:secret@127.0.0.1:{free_port()}/x')
    assert 'secret' not in str(e.value) and 'me:***@127.0.0.1' in str(e.value)


def test_a_file_that_is_something_else(tmp_path):
    (tmp_path/'a.db').write_text('posting_id,title\n' * 500)
    with pytest.raises(InputError, match='not a database'): open_study('s', tmp_path/'a.db')
    (tmp_path/'a.log').write_text('posting_id,title\n' * 5)
    with pytest.raises(InputError, match='journal'): open_study('s', tmp_path/'a.log')


@pytest.mark.parametrize('bad, error, word', [
    ('studies', InputError, '.db'), ('none/here/a.db', InputError, 'no folder'), ('fish://a/b', InputError, 'fish'), ('mysql+nodriver://a:secret@b/c', InputError, 'nodriver'),
    ('oracle://me:secret@h/x', MissingPackage, 'oracle')])
def test_storages_that_cant_be(bad, error, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=word) as e: open_study('s', bad)
    assert 'secret' not in str(e.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize('kw, word', [(dict(sampler='tpee'), 'tpee'), (dict(pruner='axe'), 'axe'), (dict(pruner='hyperband'), 'epochs'), (dict(direction='up'), 'up'), (dict(space={}), 'empty')])
def test_options_that_cant_be(kw, word):
    with pytest.raises(InputError, match=word): open_study('s', **kw)


@pytest.mark.parametrize('sampler', ['tpe', 'cmaes', 'gp', 'random'])
def test_samplers_by_name_draw_the_same_again(sampler):
    if sampler == 'cmaes': pytest.importorskip('cmaes')
    def run(seed, parts=(14,)):
        s = open_study('s', space=SPACE, sampler=sampler, seed=seed)
        for n in parts:
            # a resumed study has a sampler that has forgotten everything
            from fastmatch.study.engine.sampler import make_sampler
            s.sampler = make_sampler(sampler, seed)
            work(s, lambda t: -(t.suggest_float('margin', 0, .8) - .5)**2 - t.suggest_float('lr', 1e-4, 1e-2, log=True), n)
        return [tuple(t.params.values()) for t in s.trials]
    a = run(0)
    assert a == run(0, (3, 9, 14)) and a != run(1) and len(set(a)) == 14


def test_hyperband_knows_its_resource():
    s = open_study('s', pruner='hyperband', epochs=9)
    s.pruner._try_initialization(s)
    assert s.pruner._n_brackets == 3
    assert type(open_study('s', pruner='asha').pruner).__name__ == 'SuccessiveHalvingPruner' and type(open_study('s').pruner).__name__ == 'NopPruner'


@pytest.mark.parametrize('file', ['a.db', 'a.log'])
def test_the_dashboard_opens_the_storage_as_it_is(file, tmp_path):
    dashboard = pytest.importorskip('optuna_dashboard')
    from fastmatch.study.engine.storage import open_storage
    work(open_study('mine', tmp_path/file, space=SPACE), lambda t: t.suggest_float('margin', 0, .8), 3)
    app, said = dashboard.wsgi(open_storage(tmp_path/file)[0]), []
    def get(path):
        env = {'REQUEST_METHOD': 'GET', 'PATH_INFO': path, 'SERVER_NAME': 'x', 'SERVER_PORT': '80', 'wsgi.input': io.BytesIO(), 'wsgi.errors': io.StringIO(),
               'wsgi.url_scheme': 'http', 'QUERY_STRING': ''}
        return json.loads(b''.join(app(env, lambda status, headers, error=None: said.append(error or status))))
    study = get('/api/studies')['study_summaries'][0]
    trials = get(f'/api/studies/{study["study_id"]}')['trials']
    assert study['study_name'] == 'mine' and [t['state'] for t in trials] == ['Complete'] * 3 and said == ['200 OK'] * 2
