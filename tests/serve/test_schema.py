"Requests made up from the service's own OpenAPI, right ones and wrong ones: no 500, answers as described."
import base64
import itertools
import re

import pytest
import requests

from tests.serve.made import png
from tests.serve.running import running

schemathesis = pytest.importorskip('schemathesis')
CHECKS = ('not_a_server_error', 'status_code_conformance', 'content_type_conformance',
          'response_schema_conformance')
IDS = ('id', 'first', 'second')
NEW = itertools.count()  # numbers of listings that nobody has added yet
GROUP = 1, 'emoji_0000'  # the first listing opened the first group


def figures(port):
    "(bytes of memory, open files) of a service."
    text = requests.get(f'http://127.0.0.1:{port}/metrics', timeout=60).text
    return [float(re.search(rf'^fastmatch_{name} (\S+)$', text, re.M)[1])
            for name in ('memory_bytes', 'open_files')]


def grounded(content, names):
    "What was made up, with ids and pictures that there are: such requests get further."
    if isinstance(content, list): return [grounded(part, names) for part in content]
    if not isinstance(content, dict): return content
    known = {**{name: names[0] for name in IDS if name in content}}
    if 'second' in content: known['second'] = names[1]
    if isinstance(content.get('ids'), list): known['ids'] = [names[2]]
    # parted once, it could not be parted again
    if 'group' in content: known |= {'group': GROUP[0], 'ids': [GROUP[1]], 'dry_run': True}
    if isinstance(content.get('pictures'), list): known['pictures'] = [base64.b64encode(png()).decode()]
    if 'picture' in content: known['picture'] = [png()]
    if 'title' in content: known['title'] = f'face {content["title"]}'[:100]
    if 'columns' in content:
        known['columns'] = {} if isinstance(content['columns'], dict) else '{}'
    content = {name: grounded(part, names) for name, part in content.items()} | known
    if isinstance(content.get('listings'), list):
        whole = {'title': 'face', 'pictures': [base64.b64encode(png()).decode()], 'columns': {}}
        parts = [part for part in content['listings'][:8] if isinstance(part, dict)]
        content['listings'] = [{**part, **whole, **({'id': f'made-up-{next(NEW)}'} if 'id' in part else {})}
                               for part in parts]
    return content


def sender(made_up, session, checks, n, seen):
    "Function that sends n made-up requests and checks each answer."
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    @settings(max_examples=n, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(case=made_up, is_grounded=st.booleans(), place=st.integers(0, 40))
    def send(case, is_grounded, place):
        if is_grounded:
            # the last one may be taken out, the others stay for whoever asks next
            names = [f'emoji_{number:04d}' for number in (place, place + 1, 42 + place % 8)]
            case.body = grounded(case.body, names)
            case.query = grounded(case.query, names)
        # the event that everything came with
        if isinstance(case.body, dict) and case.body.get('event') == 1: case.body['event'] = 2
        answer = case.call(session=session, timeout=60)
        seen.append(answer.status_code)
        case.validate_response(answer, checks=checks)
    return send


def send_all(port, n_each):
    "Send made-up requests to each operation; the statuses that came back by operation."
    from schemathesis import GenerationMode
    from schemathesis.checks import CHECKS as REGISTERED
    from schemathesis.checks import load_all_checks
    load_all_checks()
    checks = [check for check in REGISTERED.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    schema = schemathesis.openapi.from_url(f'http://127.0.0.1:{port}/openapi.json')
    statuses = {}
    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            seen = statuses.setdefault(operation.label, [])
            for mode in GenerationMode:
                # what takes nothing can't be asked wrongly
                parameters = len(operation.query) + len(operation.path_parameters)
                if mode is GenerationMode.NEGATIVE and not operation.body and not parameters: continue
                sender(operation.as_strategy(generation_mode=mode), session, checks, n_each, seen)()
    return statuses


def check(process, port, n_each):
    send_all(port, 2)
    before = figures(port)
    statuses = send_all(port, n_each)
    after = figures(port)
    assert process.poll() is None
    n_sent = sum(map(len, statuses.values()))
    print(f'{n_sent} requests, {len(statuses)} operations; '
          f'memory {before[0] / 1e6:.0f} -> {after[0] / 1e6:.0f} MB')
    assert after[0] - before[0] < 150e6 and after[1] - before[1] < 20, (before, after)
    for operation, seen in statuses.items():
        # which events can be taken back hangs on what was asked before
        assert 200 in seen or operation == 'POST /api/undo', operation
        assert max(seen) < 500
    return n_sent


def test_a_few_hundred(served): assert check(*served[1:], 7) > 200


@pytest.mark.long
def test_ten_thousand(own_shop):
    with running(own_shop, '--limit', 'listings=8') as (process, port):
        assert check(process, port, 330) > 10_000
