"Who may ask: the key, names under which the service is reached, pages of other sites; and what is too large."
import asyncio

import pytest

from fastmatch.serve import Limits, Settings
from fastmatch.serve.guard import Guard, page_token
from fastmatch.serve.metrics import Metrics
from tests.serve.made import png

KEY = 'a key of many letters'
BEARER = {'authorization': f'Bearer {KEY}'}
READ = ['/api/about', '/api/groups', '/api/events', '/metrics', '/openapi.json', '/api/picture?id=emoji_0001']


def test_the_key(make_client):
    client = make_client(key=KEY)
    for path in READ:
        for headers in ({}, {'authorization': 'Bearer wrong'}, {'authorization': KEY},
                        {'cookie': f'fastmatch={KEY}'}, {'authorization': f'Bearer {KEY.upper()}'},
                        {'authorization': f'Basic {KEY}'}, {'authorization': 'Bearer'}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers['www-authenticate'] == 'Bearer'
        assert client.get(path, headers=BEARER).status_code == 200
    assert client.get('/health').status_code == client.get('/').status_code == 200
    assert client.get('/static/page.js').status_code == 200 and 'emoji' not in client.get('/').text
    assert client.post('/api/undo', json={'event': 1}).status_code == 401


def test_the_page_asks_once(make_client):
    client = make_client(key=KEY)
    assert client.post('/api/session', json={'key': 'wrong'}).status_code == 401
    assert client.get('/api/about').status_code == 401
    answer = client.post('/api/session', json={'key': KEY})
    cookie = answer.headers['set-cookie']
    assert 'HttpOnly' in cookie and 'SameSite=strict' in cookie and KEY not in cookie
    assert client.get('/api/about').status_code == 200
    assert page_token(KEY) != page_token(KEY + '!') and page_token(KEY) in cookie


@pytest.mark.parametrize('host, status', [
    ('127.0.0.1', 200), ('localhost:8000', 200), ('[::1]:8000', 200), ('LOCALHOST', 200),
    ('evil.example', 421),
    ('evil.example:127', 421), ('127.0.0.1.evil.example', 421), ('', 421), ('localhost.', 421)])
def test_names_that_lead_here(client, host, status):
    assert client.get('/api/about', headers={'host': host}).status_code == status


@pytest.mark.parametrize('origin, status', [
    ('http://127.0.0.1', 404), ('http://evil.example', 403), ('null', 403), ('http://127.0.0.1:81', 403),
    ('http://127.0.0.1@evil.example', 403), ('http://[', 403)])
def test_pages_of_other_sites_change_nothing(client, origin, status):
    headers = {'origin': origin}
    assert client.post('/api/undo', json={'event': 99}, headers=headers).status_code == status
    form = client.post('/api/add', data={'id': 'a', 'title': 'b'}, files={'picture': ('a', png())},
                       headers=headers)
    assert form.status_code == (200 if status == 404 else 403)


def test_every_answer_has_its_policy(client):
    for path in ('/', '/health', '/api/nothing', '/api/about'):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers['content-security-policy'], path
        assert headers['x-content-type-options'] == 'nosniff'


def test_a_body_that_is_too_large(make_client):
    client = make_client(limits=Limits(body=1000))
    def pieces():
        for _ in range(30): yield b'x' * 100
    for content in (b'x' * 1001, pieces()):
        answer = client.post('/api/undo', content=content)
        assert answer.status_code == 413 and '1,000 bytes' in answer.json()['detail']
    assert client.post('/api/undo', content=b'x' * 1000).status_code == 422


def asked(app, messages, limits, headers=()):
    "The status with which the guard answers a request whose messages come as they are given."
    sent, waiting = [], list(messages)

    async def receive():
        if not waiting: await asyncio.sleep(60)
        return waiting.pop(0)

    async def send(message): sent.append(message)
    guard = Guard(app, Settings(limits=limits), Metrics())
    scope = {'type': 'http', 'method': 'POST', 'path': '/api/x',
             'headers': [(b'host', b'localhost'), *headers]}
    asyncio.run(guard(scope, receive, send))
    return sent[0]['status'], guard


def test_a_body_that_comes_too_slowly():
    piece = {'type': 'http.request', 'body': b'a', 'more_body': True}
    status, _ = asked(None, [piece], Limits(body_seconds=.05))
    assert status == 408


def test_an_answer_that_takes_too_long():
    async def slow(scope, receive, send): await asyncio.sleep(60)
    whole = {'type': 'http.request', 'body': b'a' * 10}
    status, guard = asked(slow, [whole], Limits(seconds=.05))
    assert status == 503 and guard.bytes_held == 0


def test_a_fault_of_the_service_is_told_and_raised():
    async def broken(scope, receive, send): raise RuntimeError('a bug')
    sent = []

    async def receive(): return {'type': 'http.request', 'body': b''}

    async def send(message): sent.append(message)
    metrics = Metrics()
    scope = {'type': 'http', 'method': 'GET', 'path': '/api/x', 'headers': [(b'host', b'localhost')]}
    with pytest.raises(RuntimeError): asyncio.run(Guard(broken, Settings(), metrics)(scope, receive, send))
    assert sent[0]['status'] == 500 and b'a bug' not in sent[1]['body']
    assert b'fastmatch_requests_total{route="other",status="500"} 1.0' in metrics.text()


def test_too_much_at_once():
    status, _ = asked(None, [], Limits(waiting_bytes=100), [(b'content-length', b'101')])
    assert status == 503
