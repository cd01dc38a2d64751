"Each route against the catalogue and the matcher themselves, and what is refused with which status."
import base64
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastmatch.catalogue import Catalogue
from fastmatch.match import Rule
from fastmatch.matcher import Matcher
from fastmatch.serve import Limits
from tests.serve.made import png


def ask(client, shop, row, **form):
    "Match a listing of the shop's table."
    listing = shop.listings.iloc[row]
    return client.post('/api/match', data={'title': listing.title, **form},
                       files={'picture': ('a.png', shop.picture(row), 'image/png')})


def told(answer): return [(match['listing']['id'], match['score']) for match in answer['matches']]


def by_catalogue(shop, row):
    "What the catalogue itself says of one listing."
    with Catalogue(shop.file, shop.matcher) as catalogue:
        found = catalogue.match(shop.listings.iloc[[row]].assign(posting_id='new'), shop.images)
    return found


def test_a_match_is_the_catalogues(client, own_shop):
    for row in range(46, 60):
        answer, found = ask(client, own_shop, row), by_catalogue(own_shop, row)
        assert answer.status_code == 200
        assert [name for name, _ in told(answer.json())] == found['match'].tolist()
        assert np.allclose([score for _, score in told(answer.json())], found.score, atol=1e-5)
        for match, row_wanted in zip(answer.json()['matches'], found.to_dict('records')):
            assert match['listing']['group'] == row_wanted['group'] and match['why'] == row_wanted['why']
            for name in ('image', 'tfidf', 'phash'):
                assert abs(match['scores'][name] - row_wanted[name]) < 1e-5
    # those that are there are found by themselves
    assert told(ask(client, own_shop, 3).json())[0] == ('emoji_0003', 1.)


def test_asked_together_they_are_answered_as_alone(client, own_shop):
    rows = list(range(40, 60)) * 2
    alone = {row: ask(client, own_shop, row).json() for row in set(rows)}
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda row: ask(client, own_shop, row), rows))
    for row, answer in zip(rows, together):
        assert [name for name, _ in told(answer.json())] == [name for name, _ in told(alone[row])]
        assert np.allclose([score for _, score in told(answer.json())],
                           [score for _, score in told(alone[row])], atol=1e-5)
    sizes = [line for line in client.get('/metrics').text.splitlines()
             if line.startswith('fastmatch_batch_listings_count{stage="embed"}')]
    # 20 alone and 40 together: some of these were in one batch
    assert 21 <= float(sizes[0].split()[-1]) < 60
    listings = [{'title': own_shop.listings.title[row],
                 'pictures': [base64.b64encode(own_shop.picture(row)).decode()]} for row in rows[:20]]
    many = client.post('/api/match/many', json={'listings': listings}).json()['listings']
    assert [[name for name, _ in told(each)] for each in many] == [
        [name for name, _ in told(alone[row])] for row in rows[:20]]


def test_one_that_can_not_be_read_spoils_no_other(client, own_shop):
    whole = own_shop.picture(50)
    # its header is whole, so that only the decoder sees it
    broken = png((60, 60), kind='JPEG')[:900]
    def one(content):
        return client.post('/api/match', data={'title': own_shop.listings.title[50]},
                           files={'picture': ('a', content)})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, [whole, broken] * 8))
    assert [answer.status_code for answer in found] == [200, 422] * 8
    assert 'truncated' in found[1].json()['detail']
    assert len({str(told(each.json())) for each in found[::2]}) == 1


@pytest.mark.parametrize('step', ['min2', 'augment'])
def test_a_rule_that_looks_at_all_listings_is_carried_out_one_by_one(own_shop, step):
    from fastapi.testclient import TestClient

    from fastmatch.serve import make_app
    from fastmatch.serve.service import Service
    from tests.serve.made import OWN
    rule = Rule('mean', {'image': .3, 'tfidf': .7}, .5, steps=[step])
    matcher, _ = Matcher.from_df(own_shop.listings.head(30), own_shop.images, rule, own_shop.matcher.encoder)
    service = Service(matcher)
    assert not service.together
    with TestClient(make_app(service), base_url=OWN) as client:
        listings = [{'title': own_shop.listings.title[row],
                     'pictures': [base64.b64encode(own_shop.picture(row)).decode()]} for row in range(28, 40)]
        answer = client.post('/api/match/many', json={'listings': listings}).json()['listings']
    file = own_shop.folder/f'{step}.db'
    with Catalogue.create(file, matcher) as catalogue:
        catalogue.add(own_shop.listings.head(30), own_shop.images)
    with TestClient(make_app(Service(matcher, file)), base_url=OWN) as client:
        assert client.post('/api/match', data={'title': listings[0]['title']},
                           files={'picture': own_shop.picture(28)}).status_code == 200
    for row, found in zip(range(28, 40), answer):
        wanted = matcher.match(own_shop.listings.iloc[[row]].assign(posting_id='new'), own_shop.images)
        assert [name for name, _ in told(found)] == wanted.pairs()['match'].tolist()


def test_add_why_verdict_undo_remove(client, own_shop):
    title, content = own_shop.listings.title[55], own_shop.picture(55)
    def add(**form):
        return client.post('/api/add', data={'id': 'fresh', 'title': title, 'who': 'ana', **form},
                           files=[('picture', ('a.png', content)), ('picture', ('b.png', png()))])
    tried = add(dry_run='true').json()
    assert tried['event'] is None and not (own_shop.images/'uploads').exists()
    added = add().json()
    assert added['event'] == 2 and added['moved'] == tried['moved'] and added['moved'][0]['id'] == 'fresh'
    files = sorted((own_shop.images/'uploads').iterdir())
    assert {file.read_bytes() for file in files} == {content, png()}
    found = client.get('/api/search', params={'text': 'fresh'}).json()['listings'][0]
    assert found['title'] == title and len(found['pictures']) == 2
    assert client.get(found['pictures'][1]).headers['content-type'] == 'image/webp'
    assert add().status_code == 409
    assert add(on_known='skip').json()['known'] == ['fresh']
    assert add(on_known='replace').json()['event'] == 3
    with Catalogue(own_shop.file) as reader:
        group = reader.group_of('fresh')
        other = next(name for name in reader.groups().posting_id if reader.group_of(name) != group)
    said = client.post('/api/verdict', json={'first': 'fresh', 'second': other, 'same': True, 'who': 'bo'})
    assert said.json()['merged'] and {'first', 'second'} <= set(client.get(
        '/api/why', params={'first': 'fresh', 'second': other}).json()['pairs'][0])
    why = client.get('/api/why', params={'first': 'fresh', 'second': other}).json()
    assert why['pairs'][0]['why'].startswith('bo called them the same') and why['pairs'][0]['score'] is None
    assert client.post('/api/undo', json={'event': said.json()['event']}).status_code == 200
    with Catalogue(own_shop.file) as reader: assert reader.group_of('fresh') != reader.group_of(other)
    assert client.post('/api/remove', json={'ids': ['fresh', other]}).json()['words'].startswith('2 went')
    events = client.get('/api/events').json()['events']
    assert [event['kind'] for event in events] == ['remove', 'undo', 'verdict', 'add', 'add', 'add']
    assert events[-2]['who'] == 'ana'


def test_added_as_json_is_as_added_by_the_catalogue(client, own_shop, shop, tmp_path):
    listings = [{'id': f'n{row}', 'title': own_shop.listings.title[row],
                 'pictures': [base64.b64encode(own_shop.picture(row)).decode()]} for row in range(50, 60)]
    assert client.post('/api/add/many', json={'listings': listings}).json()['words'].startswith('10 ')
    other = shop.copy(tmp_path/'other')
    new = own_shop.listings.iloc[50:60]
    with Catalogue(other.file, shop.matcher) as catalogue, Catalogue(own_shop.file) as served:
        catalogue.add(new.assign(posting_id=[f'n{row}' for row in range(50, 60)]), other.images)
        assert served.groups().equals(catalogue.groups()) and catalogue.check() == served.check() == []
    twice = client.post('/api/add/many', json={'listings': listings[:1] * 2})
    assert twice.status_code == 422 and twice.json()['detail'] == 'ids given twice'


def test_what_fails_leaves_no_file(client, own_shop):
    form = {'data': {'id': 'x y', 'title': 'a'}, 'files': {'picture': ('a', png())}}
    assert client.post('/api/add', **form).status_code == 422
    form['data'] = {'id': 'x', 'title': 'a', 'columns': '{"price": 1}'}
    answer = client.post('/api/add', **form)
    assert answer.status_code == 422 and 'no column price is read' in answer.json()['detail']
    assert not (own_shop.images/'uploads').exists()


def test_groups_and_close_calls_are_the_catalogues(client, own_shop):
    with Catalogue(own_shop.file) as reader:
        table, calls = reader.groups(), reader.close_calls(5)
        threshold = reader.threshold
    sizes = table.group.value_counts()
    answer = client.get('/api/groups', params={'n': 3, 'least': 1}).json()
    assert [group['size'] for group in answer['groups']] == sizes.head(3).tolist() and answer['more']
    first = answer['groups'][0]
    assert [shown['id'] for shown in first['listings']] == sorted(
        table.posting_id[table.group == first['group']])[:24]
    assert client.get(f'/api/groups/{first["group"]}').json()['size'] == first['size']
    everything = client.get('/api/groups', params={'n': 200, 'start': 0, 'least': 1}).json()
    assert sum(group['size'] for group in everything['groups']) == 50 and not everything['more']
    found = client.get('/api/close-calls', params={'n': 5}).json()
    assert [(pair['first']['id'], pair['second']['id'], pair['score'], pair['matches'])
            for pair in found['pairs']] == list(
                zip(calls['first'], calls['second'], calls.score, calls.matches))
    assert found['threshold'] == threshold
    assert set(found['pairs'][0]['scores']) == {'image', 'tfidf', 'phash'}
    split = client.post('/api/split', json={'group': first['group'], 'ids': [first['listings'][0]['id']]})
    assert split.json()['kind'] == 'split' and len(split.json()['opened']) == 1
    about = client.get('/api/about').json()
    assert about['listings'] == 50 and about['inputs'] == ['image', 'title'] and about['event'] == 2


def test_words_of_a_title_are_searched_as_they_are_typed(client, own_shop):
    def search(text): return [shown['id'] for shown in client.get(
        '/api/search', params={'text': text}).json()['listings']]
    table = own_shop.listings.head(50)
    wanted = {name for name, title in zip(table.posting_id, table.title)
              if 'face' in title.lower() and 'animal' in title.lower()}
    assert set(search('Face ANIMAL')) == wanted and wanted
    assert search('%') == search('_') == search('\\') == search('no such words') == search('  ') == []
    assert search('emoji_0007')[0] == 'emoji_0007'


MISSING = [('get', '/api/why?first=nobody', None), ('get', '/api/groups/99999', None),
           ('get', '/api/picture?id=nobody', None), ('get', '/api/picture?id=emoji_0001&place=5', None),
           ('post', '/api/remove', {'ids': ['nobody']}), ('post', '/api/undo', {'event': 77}),
           ('post', '/api/verdict', {'first': 'emoji_0001', 'second': 'nobody', 'same': True}),
           ('post', '/api/split', {'group': 999, 'ids': ['a']}), ('get', '/api/nothing', None)]


@pytest.mark.parametrize('method, path, given', MISSING)
def test_what_is_not_there(client, method, path, given):
    answer = client.request(method, path, json=given)
    assert answer.status_code == 404 and answer.json()['detail']


SAME = {'first': 'emoji_0001', 'second': 'emoji_0002', 'same': True}
WRONG = [('/api/verdict', {'first': 'emoji_0001', 'second': 'emoji_0001', 'same': True}),
         ('/api/remove', {'ids': ['\ud800']}), ('/api/remove', {'ids': ['a b']}),
         ('/api/remove', {'ids': []}),
         ('/api/remove', {'ids': ['a\0b']}), ('/api/undo', {'event': 2**70}), ('/api/undo', {'event': -1}),
         ('/api/undo', {'event': 1, 'more': 2}), ('/api/match/many', {'listings': [{'pictures': ['!!']}]}),
         ('/api/match/many', {'listings': [{'title': 'a'}]}), ('/api/split', {'group': 1, 'ids': ['nobody']}),
         ('/api/verdict', {**SAME, 'who': '\ud800'})]


@pytest.mark.parametrize('path, given', WRONG)
def test_what_can_not_be_used(client, path, given):
    answer = client.post(path, content=json.dumps(given), headers={'content-type': 'application/json'})
    assert answer.status_code == 422 and answer.json()['detail']


def test_limits(make_client, own_shop):
    client = make_client(limits=Limits(listings=2, pictures=1, pixels=10_000, title=20))
    picture = base64.b64encode(png()).decode()
    def many(*listings): return client.post('/api/match/many', json={'listings': list(listings)})
    assert many(*[{'title': 'a', 'pictures': [picture]}] * 3).status_code == 413
    assert many({'title': 'a', 'pictures': [picture] * 2}).status_code == 413
    assert many({'title': 'a' * 21, 'pictures': [picture]}).status_code == 422
    large = client.post('/api/match', data={'title': 'a'}, files={'picture': ('a', png((101, 100)))})
    assert large.status_code == 413 and '101 x 100 pixels, 10,000 are taken' in large.json()['detail']


def test_without_a_catalogue_it_only_matches(make_client, own_shop):
    client = make_client(catalogue=False)
    answer = ask(client, own_shop, 3).json()
    asked = own_shop.listings.iloc[[3]].assign(posting_id='new')
    wanted = own_shop.matcher.match(asked, own_shop.images).pairs()
    assert [name for name, _ in told(answer)] == wanted['match'].tolist()
    assert answer['matches'][0]['listing'] == {'id': 'emoji_0003', 'title': own_shop.listings.title[3],
                                               'group': None, 'pictures': []}
    assert client.get('/api/about').json()['groups'] is None
    refused = client.get('/api/groups')
    assert refused.status_code == 404 and 'without --catalogue' in refused.json()['detail']
    assert client.get('/metrics').status_code == 200


def test_pictures_are_kept_only_where_there_is_a_folder(make_client):
    client = make_client(images=None)
    answer = client.post('/api/add', data={'id': 'a', 'title': 'b'}, files={'picture': ('a', png())})
    assert answer.status_code == 409 and '--images' in answer.json()['detail']


def test_a_file_outside_of_the_folder_is_never_shown(make_client, own_shop):
    (own_shop.folder/'secret.png').write_bytes(png())
    (own_shop.images/'link.png').symlink_to(own_shop.folder/'secret.png')
    embeddings, _ = own_shop.matcher.embed(own_shop.listings.iloc[55:57], own_shop.images)
    names = {'emoji_0055': '../secret.png', 'emoji_0056': 'link.png'}
    with Catalogue(own_shop.file, own_shop.matcher) as catalogue: catalogue.add(embeddings, pictures=names)
    client = make_client()
    for name in names: assert client.get('/api/picture', params={'id': name}).status_code == 404
    assert client.get('/api/picture', params={'id': 'emoji_0001'}).status_code == 200


def test_another_process_that_writes_is_named(make_client, own_shop):
    from fastmatch.catalogue.schema import connect, writing
    client = make_client(limits=Limits(write_seconds=.2))
    with writing(connect(own_shop.file), own_shop.file):
        answer = client.post('/api/undo', json={'event': 1})
        assert answer.status_code == 503 and 'is being written by process' in answer.json()['detail']
        assert client.get('/api/groups').status_code == 200
    assert client.post('/api/undo', json={'event': 1}).status_code == 200
