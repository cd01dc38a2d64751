"A table in pieces: the answers of `match`, in the same bytes after real kills; embeddings made once."
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.data.pieces import table_pieces
from fastmatch.data.table import read_table
from fastmatch.match import Embeddings, Rule
from fastmatch.matcher import Matcher, load_matcher, match_file
from fastmatch.matcher.stored import StoredEncoder

ROWS = 40


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    "A saved matcher by character n-grams, and a table of new listings as CSV and Parquet."
    listings = pd.read_csv(demo_path()/'listings.csv')
    known, new = listings[listings.fold == 0], listings[listings.fold != 0].head(10 * ROWS - 7)
    rule = Rule('mean', {'tfidf': 1.}, .4)
    embeddings = Embeddings({'image': np.eye(len(known))}, known.posting_id, known.title.tolist())
    folder = tmp_path_factory.mktemp('shop')
    Matcher(rule, embeddings, columns=Columns(image=None)).save(folder/'matcher')
    new.to_csv(folder/'new.csv', index=False)
    pd.read_csv(folder/'new.csv', dtype=str).to_parquet(folder/'new.parquet', index=False)
    return folder


@pytest.fixture(scope='module')
def whole(shop):
    "The output of a run that nobody stops."
    done = match_file(load_matcher(shop/'matcher'), shop/'new.csv', shop/'whole.csv', rows=ROWS)
    assert (done.pieces, done.listings) == (10, 10 * ROWS - 7) and done.matches > 20
    return (shop/'whole.csv').read_bytes()


def test_answers_are_those_of_match(shop, whole):
    matcher, table = load_matcher(shop/'matcher'), read_table(shop/'new.csv')
    expected = matcher.match(table, within=False).to_frame()
    found = pd.read_csv(shop/'whole.csv', dtype=str)
    assert found.posting_id.tolist() == expected.posting_id.tolist()
    assert [set(ids.split()) for ids in found.matches] == [set(ids.split()) for ids in expected.matches]
    assert sorted(file.name for file in shop.iterdir()) == ['matcher', 'new.csv', 'new.parquet', 'whole.csv']


def test_parquet_in_and_out(shop, whole, tmp_path):
    matcher = load_matcher(shop/'matcher')
    match_file(matcher, shop/'new.parquet', tmp_path/'a.csv', rows=ROWS)
    assert (tmp_path/'a.csv').read_bytes() == whole
    match_file(matcher, shop/'new.parquet', tmp_path/'a.parquet', rows=ROWS)
    match_file(matcher, shop/'new.csv', tmp_path/'b.parquet', rows=ROWS)
    assert (tmp_path/'a.parquet').read_bytes() == (tmp_path/'b.parquet').read_bytes()
    assert pd.read_parquet(tmp_path/'a.parquet').equals(pd.read_csv(shop/'whole.csv', dtype=str))


RUN = f"""
import sys, time
import fastmatch.matcher.stream as stream
from fastmatch.matcher import load_matcher
matcher, table, out = sys.argv[1:4]
stream.csv_text = lambda *args, own=stream.csv_text, **kwargs: (time.sleep(.03), own(*args, **kwargs))[1]
matcher = load_matcher(matcher)
print('ready', flush=True)
stream.match_file(matcher, table, out, rows={ROWS})
"""


@pytest.mark.parametrize('kind', ['csv', pytest.param('parquet', marks=pytest.mark.slow)])
def test_killed_at_random_it_ends_in_the_same_bytes(shop, whole, tmp_path, kind):
    expected = tmp_path/f'expected.{kind}'
    match_file(load_matcher(shop/'matcher'), shop/'new.csv', expected, rows=ROWS)
    rng, out, kills = random.Random(0), tmp_path/f'out.{kind}', 0
    command = [sys.executable, '-c', RUN, str(shop/'matcher'), str(shop/'new.csv'), str(out)]
    while not out.exists():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == 'ready\n'
        if kills < 2:
            time.sleep(rng.uniform(.02, .3))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        else: assert process.wait() == 0
        process.stdout.close()
    assert kills == 2 and out.read_bytes() == expected.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([expected.name, out.name])


def test_half_a_piece_is_written_again(shop, whole, tmp_path):
    # as a kill between writing a piece and counting it leaves the files
    matcher, out, table = load_matcher(shop/'matcher'), tmp_path/'out.csv', shop/'new.csv'

    seen = []

    def stop_at_third(piece):
        seen.append(piece)
        if len(seen) == 3: raise KeyboardInterrupt
        return piece
    with pytest.raises(KeyboardInterrupt): match_file(matcher, table, out, rows=ROWS, prepare=stop_at_third)
    part = tmp_path/'out.csv.part'
    with open(part, 'ab') as stream: stream.write(b'emoji_0001,half a li')
    (tmp_path/'.out.csv.part.json.4711').write_bytes(b'{"half')
    said = []
    match_file(matcher, table, out, rows=ROWS, echo=said.append)
    assert out.read_bytes() == whole and said == [f'going on after {2 * ROWS} listings']
    assert os.listdir(tmp_path) == ['out.csv']


def test_another_run_is_not_gone_on_with(shop, tmp_path):
    matcher, out = load_matcher(shop/'matcher'), tmp_path/'out.csv'

    def stop(piece): raise KeyboardInterrupt
    seen = iter([lambda piece: piece, stop])
    with pytest.raises(KeyboardInterrupt):
        match_file(matcher, shop/'new.csv', out, rows=ROWS, prepare=lambda piece: next(seen)(piece))
    with pytest.raises(InputError, match='half of another run'):
        match_file(matcher, shop/'new.csv', out, rows=ROWS + 1)
    with pytest.raises(InputError, match='.csv or .parquet'):
        match_file(matcher, shop/'new.csv', tmp_path/'out.txt')


# --- embeddings by content

class Counting:
    "An encoder of titles that counts what it embeds."
    inputs, widths, made_with = ['title'], {'title': 2}, {'max_len': 8}

    def __init__(self): self.seen = []

    def embed(self, pictures=None, titles=None, bs=64, hashes=False, stop=False):
        self.seen += titles
        return {'title': np.array([[len(title), 1.] for title in titles], np.float32)}, {}, None

    def embed_probe(self): return {'title': np.ones((2, 2), np.float32)}


def test_each_title_is_embedded_once(tmp_path):
    plain = Counting()
    encoder = StoredEncoder(plain, tmp_path/'kept.db')
    vectors, unreadable, hashes = encoder.embed(None, ['ab', 'c', 'ab', ''])
    np.testing.assert_array_equal(vectors['title'], [[2, 1], [1, 1], [2, 1], [0, 1]])
    assert plain.seen == ['ab', 'c', ''] and not unreadable and hashes is None
    again = StoredEncoder(Counting(), tmp_path/'kept.db')
    np.testing.assert_array_equal(again.embed(None, ['c', 'new'])[0]['title'], [[1, 1], [3, 1]])
    assert again.encoder.seen == ['new']
    other = Counting()
    other.made_with = {'max_len': 9}
    with pytest.raises(InputError, match='kept.db: holds features made with'):
        StoredEncoder(other, tmp_path/'kept.db').embed(None, ['c'])


def test_pictures_are_known_by_their_bytes(trained, tmp_path):
    from fastmatch.matcher import Encoder
    encoder = trained.matcher.encoder
    assert isinstance(encoder, Encoder)
    names = trained.learn.dls.valid_df.image.head(5).tolist()
    files = [demo_path()/'images'/name for name in [*names, names[0]]] + [tmp_path/'none.png', None]
    (tmp_path/'broken.png').write_bytes(b'no picture')
    files += [tmp_path/'broken.png'] * 2
    titles = None if 'title' not in encoder.inputs else ['a bag'] * len(files)
    expected = encoder.embed(files, titles, hashes=True)
    for _ in range(2):
        found = StoredEncoder(encoder, tmp_path/'kept.db').embed(files, titles, hashes=True)
        for modality, vectors in expected[0].items():
            np.testing.assert_allclose(found[0][modality], vectors, atol=1e-5)
        assert found[1] == expected[1] and found[2].tolist() == expected[2].tolist()


# --- reading in pieces

@pytest.mark.parametrize('content', [
    'id,title\n1,"a, b"\n\n2,\n3,"two\nlines"\n', 'sep=;\nid;title\n1;x\n2;y\n', 'id\ttitle\n1\tx\n',
    '\ufeffid|title\n0012|NA\n,\n5|x|\n'])
def test_pieces_are_the_table(tmp_path, content):
    file = tmp_path/'table.csv'
    file.write_text(content, encoding='utf-8')
    for rows in (1, 2, 9):
        pieces = list(table_pieces(file, rows))
        assert all(len(piece) == rows for piece in pieces[:-1])
        # a piece without a title is of another type
        found, expected = (table.astype(object).fillna('(missing)')
                           for table in (pd.concat(pieces, ignore_index=True), read_table(file)))
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize('content, message', [
    ('id,title\n1,x\n2,y,z\n', 'line 3 has 3'), ('id,title\n1,"x\n', 'can not be read'),
    ('id,id\n1,2\n', 'more than one column'), ('', 'holds no listings'), ('id,title\n', 'holds no listings')])
def test_what_cant_be_read_in_pieces(tmp_path, content, message):
    (tmp_path/'table.csv').write_text(content)
    with pytest.raises(InputError, match=message): list(table_pieces(tmp_path/'table.csv', 10))
    with pytest.raises(InputError, match='no such file'): list(table_pieces(tmp_path/'none.csv', 10))
    (tmp_path/'table.xlsx').write_text(content)
    with pytest.raises(InputError, match='piece by piece'): list(table_pieces(tmp_path/'table.xlsx', 10))


def test_the_command_matches_in_pieces(shop, whole, tmp_path):
    from typer.testing import CliRunner

    from fastmatch.cli import app

    def call(*arguments): return CliRunner().invoke(app, ['match', *map(str, arguments)])
    out = tmp_path/'out.csv'
    done = call(shop/'matcher', shop/'new.csv', '-o', out, '--rows', ROWS)
    assert done.exit_code == 0 and '393 listings (0 skipped)' in done.stdout, done.output
    assert out.read_bytes() == whole
    for given, message in ((('--rows', ROWS, '--scores'), 'takes no --scores'),
                           (('--store', tmp_path/'kept.db'), 'in pieces, --rows')):
        refused = call(shop/'matcher', shop/'new.csv', '-o', out, *given)
        assert refused.exit_code == 2 and message in refused.output
