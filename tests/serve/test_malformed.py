"Damaged and hostile uploads: each is answered with a status that says why, and nothing of it stays."
import random
import re

import pytest
import requests

from tests.serve.made import png
from tests.serve.running import running
from tests.serve.test_run import form
from tests.serve.test_schema import figures
from tests.serve.test_uploads import bomb


def damaged(rng):
    "The bytes of a picture that is none, in one of many ways."
    kind = rng.choice(['PNG', 'JPEG', 'WEBP', 'GIF', 'BMP'])
    content = bytearray(png((rng.randint(1, 60), rng.randint(1, 60)), rng.randint(0, 9), kind=kind))
    way = rng.randrange(6)
    if way == 0: content = content[:rng.randrange(len(content))]
    elif way == 1:
        for _ in range(rng.randint(1, 40)): content[rng.randrange(len(content))] = rng.randrange(256)
    elif way == 2:
        start = rng.randrange(len(content))
        content[start:start + rng.randint(1, 200)] = rng.randbytes(rng.randint(0, 300))
    elif way == 3: content = rng.randbytes(rng.randint(0, 3000))
    elif way == 4: content = bomb(rng.choice([1, 40_000, 2**31 - 1]), rng.choice([1, 40_000, 2**31 - 1]))
    else: content = content[:40] + rng.randbytes(rng.randint(0, 4000))
    return bytes(content)


def mangled(rng, body):
    "A form that is broken itself, once in a while."
    way = rng.randrange(8)
    if way == 0: return body[:rng.randrange(len(body))]
    if way == 1:
        return body.replace(b'name="picture"', rng.choice([b'name=picture', b'', b'name="', b'name="title"']))
    if way == 2: return body.replace(b'filename="a"', b'filename="' + rng.choice(
        [b'../../etc/passwd', b'/etc/shadow', b'a\0b', b'..\\..\\a', b'x' * 5000, b'\xff\xfe', b'']) + b'"')
    if way == 3: return body.replace(b'--x', rng.choice([b'-x', b'--y', b'--x--']), 1)
    return body


def send_all(port, n, seed):
    rng, statuses = random.Random(seed), []
    with requests.Session() as session:
        for number in range(n):
            title = rng.choice(['face', '', '\0', 'x' * 3000, '\u202e\U0001f435'])
            fields = {'title': title, 'picture': damaged(rng)}
            path = rng.choice(['match', 'add'])
            if path == 'add': fields['id'] = rng.choice([f'm{number}', '', '../x', 'a b', 'x' * 300])
            body, headers = form(**fields)
            answer = session.post(f'http://127.0.0.1:{port}/api/{path}', mangled(rng, body), headers=headers,
                                  timeout=60)
            statuses.append(answer.status_code)
            assert answer.status_code < 500, (number, answer.text)
            if answer.status_code != 200: assert answer.json()['detail']
    return statuses


def check(shop, process, port, n):
    send_all(port, n // 10, 1)
    before = figures(port)
    statuses = send_all(port, n, 2)
    after = figures(port)
    text = requests.get(f'http://127.0.0.1:{port}/metrics', timeout=60).text
    # the request for the figures itself
    assert float(re.search(r'^fastmatch_requests_open (\S+)$', text, re.M)[1]) == 1
    assert process.poll() is None
    print(f'{n} uploads: {({status: statuses.count(status) for status in sorted(set(statuses))})}, '
          f'memory {before[0] / 1e6:.0f} -> {after[0] / 1e6:.0f} MB')
    assert {413, 415, 422} <= set(statuses)
    assert after[0] - before[0] < 60e6 and after[1] - before[1] < 10
    # what is kept belongs to listings that were added
    kept = {file.name for file in (shop.images/'uploads').iterdir()}
    assert kept == set(_added(shop))


def _added(shop):
    from fastmatch.catalogue import Catalogue
    with Catalogue(shop.file, shop.matcher) as catalogue:
        assert catalogue.check() == []
        table = catalogue.listings(catalogue.groups().posting_id)
    return [name.split('/')[1] for names in table.pictures for name in names if name.startswith('uploads/')]


def test_some(served): check(*served, 200)


@pytest.mark.long
def test_two_thousand(own_shop):
    with running(own_shop) as (process, port): check(own_shop, process, port, 2000)
