"The service as a process: slow clients, a graceful stop, an address that is taken, no address without a key."
import http.client
import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastmatch.catalogue import Catalogue
from tests.serve.made import png
from tests.serve.running import ROOT, command, running, stop

KEY = 'a key of many letters'


def form(**fields):
    "The body and the headers of a form; bytes are a file."
    parts = []
    for name, content in fields.items():
        is_file = isinstance(content, bytes)
        head = f'content-disposition: form-data; name="{name}"' + ('; filename="a"' if is_file else '')
        parts.append(f'--x\r\n{head}\r\n\r\n'.encode() + (content if is_file else content.encode()) + b'\r\n')
    return b''.join(parts) + b'--x--\r\n', {'content-type': 'multipart/form-data; boundary=x'}


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def read_until(connection, wanted):
    content = b''
    while wanted not in content:
        piece = connection.recv(4096)
        assert piece, content
        content += piece


def first_line(connection):
    content = b''
    while (piece := connection.recv(4096)): content += piece
    return content.split(b'\r\n')[0].decode()


HEADS = [b'', b'GET /health HTT', b'GET /health HTTP/1.1\r\nhost: localhost\r\nx: y']


@pytest.mark.parametrize('sent', HEADS)
def test_a_head_that_does_not_end(served, sent):
    with socket.create_connection(('127.0.0.1', served[2]), timeout=20) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        assert first_line(connection) == 'HTTP/1.1 408 Request Timeout'
        assert .5 < time.monotonic() - began < 10


def test_a_body_that_does_not_end(served):
    with socket.create_connection(('127.0.0.1', served[2]), timeout=20) as connection:
        connection.sendall(b'POST /api/undo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"ev')
        assert first_line(connection) == 'HTTP/1.1 408 Request Timeout'


def test_a_second_request_of_a_connection_may_come_late_and_not_slowly(served):
    with socket.create_connection(('127.0.0.1', served[2]), timeout=20) as connection:
        connection.sendall(b'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n')
        read_until(connection, b'"ok"')
        time.sleep(.6)
        connection.sendall(b'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n')
        read_until(connection, b'"ok"')
        connection.sendall(b'GET /hea')
        assert first_line(connection) == 'HTTP/1.1 408 Request Timeout'


def test_many_slow_clients_keep_nobody_out_for_long(served):
    held = [socket.create_connection(('127.0.0.1', served[2]), timeout=20) for _ in range(60)]
    try:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            status, _ = ask(served[2], 'GET', '/health')
            if status == 200: break
            assert status == 503
            time.sleep(.2)
        assert status == 200
    finally:
        for connection in held: connection.close()


def test_what_is_no_http(served):
    with socket.create_connection(('127.0.0.1', served[2]), timeout=20) as connection:
        connection.sendall(b'\x16\x03\x01 hello \r\n\r\n')
        assert first_line(connection).startswith('HTTP/1.1 400')
    assert ask(served[2], 'GET', '/health')[0] == 200


def test_it_stops_gracefully(own_shop):
    """Whatever was asked before the signal is answered, and what was answered is in the catalogue. It listens
    where others reach it, with a key from the environment."""
    bearer = {'authorization': f'Bearer {KEY}'}
    with running(own_shop, '--host', '0.0.0.0', FASTMATCH_KEY=KEY) as (process, port):
        assert ask(port, 'GET', '/api/about')[0] == 401
        status, content = ask(port, 'GET', '/api/about', headers=bearer)
        assert status == 200 and json.loads(content)['listings'] == 50

        def add(number):
            body, headers = form(id=f'n{number}', title=f'title {number}', picture=png(seed=number))
            headers |= bearer
            try: return number, ask(port, 'POST', '/api/add', body, headers)[0]
            # connections that come after the signal are refused
            except (ConnectionError, http.client.HTTPException): return number, None
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(add, number) for number in range(40)]
            while sum(each.done() for each in asked) < 4: time.sleep(.01)
            assert stop(process) == 0
            answers = dict(each.result() for each in asked)
        assert process.stdout.read().strip().endswith('stopped')
    done = {f'n{number}' for number, status in answers.items() if status == 200}
    assert len(done) >= 4 and set(answers.values()) <= {200, None}
    with Catalogue(own_shop.file, own_shop.matcher) as catalogue:
        assert {name for name in catalogue.groups().posting_id if name.startswith('n')} == done
        assert catalogue.check() == []
    kept = len(list((own_shop.images/'uploads').iterdir()))
    assert kept == len(done)


def test_what_it_does_not_start_with(own_shop, served):
    def refused(*options):
        finished = subprocess.run([*command(own_shop), *options], cwd=ROOT, capture_output=True, text=True)
        assert finished.returncode == 2
        return finished.stderr
    assert 'FASTMATCH_KEY' in refused('--host', '0.0.0.0')
    assert 'in use' in refused('--port', str(served[2]))
