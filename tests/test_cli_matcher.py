"`fastmatch train`, `match` and `inspect` as a user meets them: real tables, and everything wrong with input."
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.data.demo import demo_path
from fastmatch.data.table import unescape
from fastmatch.match import Embeddings, Rule
from fastmatch.match.words import rule_in_words
from fastmatch.matcher import Matcher, load_matcher
from fastmatch.matcher.folder import MANIFEST
from fastmatch.models.weights import IMAGE_PACKAGES, TITLE_PACKAGES
from fastmatch.store import seal

IMAGES = demo_path()/'images'
packages = (TITLE_PACKAGES['all-MiniLM-L6-v2'], IMAGE_PACKAGES['tf_efficientnet_lite0'])
pytestmark = pytest.mark.skipif(any(package.find() is None for package in packages),
                                reason='the weights packages of the extra [demo] are not installed')


def call(*args): return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


def match(matcher, table, out, *args):
    "`fastmatch match`, with or without pictures by the arguments."
    return call('match', matcher, table, '-o', out, *args)


def escaped(title):
    "As Kaggle's table has it: each byte of a character beyond ASCII typed out."
    return ''.join(c if c.isascii() else ''.join(f'\\x{byte:02x}' for byte in c.encode()) for c in title)


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    "A table to train on, and new listings: some of the same groups, one the very picture of a known one."
    path = tmp_path_factory.mktemp('tables')
    df = pd.read_csv(demo_path()/'listings.csv')
    first = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:9]))
    df = df[first].reset_index(drop=True)
    df['title'] = [escaped(title) for title in df.title]
    df['image_phash'] = [f'{0xf0f0f0f000000000 + i:016x}' for i in range(len(df))]
    new = df.groupby('label_group').head(1)
    new = new[new.label_group.map(df.label_group.value_counts()) > 2].head(12)
    old = df.drop(new.index)
    # a new listing that nothing but its picture's hash ties to a known one
    twin = {'posting_id': 'twin', 'image': old.image.iloc[3], 'title': 'zzz',
            'image_phash': old.image_phash.iloc[3]}
    new = pd.concat([new, pd.DataFrame([twin])])
    columns = ['posting_id', 'image', 'image_phash', 'title']
    old[[*columns, 'label_group']].to_csv(path/'train.csv', index=False)
    new[columns].to_csv(path/'new.csv', index=False)
    return path


@pytest.fixture(scope='module')
def titles_only(tables):
    result = call('train', tables/'train.csv', '--out', tables/'titles', '--epochs', 1, '--bs', 32)
    assert result.exit_code == 0, result.output
    return tables/'titles', result.output


@pytest.fixture(scope='module')
def both(tables):
    # its own column names, and semicolons, as a spreadsheet exports them
    names = {'posting_id': 'SKU', 'image': 'photo', 'title': 'Product Name', 'label_group': 'group'}
    df = pd.read_csv(tables/'train.csv').rename(columns=names)
    df.drop(columns='image_phash').to_csv(tables/'own.csv', index=False, sep=';')
    result = call('train', tables/'own.csv', '--images', IMAGES, '--out', tables/'both', '--epochs', 1,
                  '--bs', 32, '--size', 32, '--folds', 4)
    assert result.exit_code == 0, result.output
    return tables/'both'


def test_titles_of_the_competition(titles_only, tables):
    out, said = titles_only
    names = {file.name for file in out.iterdir()}
    assert names >= {'manifest.json', 'matches.csv', 'summary.json', 'report.html'}
    assert not list(tables.glob('.*'))
    matcher = load_matcher(out)
    df = pd.read_csv(tables/'train.csv')
    assert sorted(matcher.ids) == sorted(df.posting_id)
    assert matcher.inputs == ['title'] and matcher.rule.join == ('phash',)
    title_of = dict(zip(matcher.ids, matcher.titles))
    assert [title_of[posting_id] for posting_id in df.posting_id] == unescape(df.title).tolist()
    assert any(not title.isascii() for title in matcher.titles)
    summary = json.loads((out/'summary.json').read_text())
    rows = list(summary['heldout'])
    assert rows[0] == 'alone'
    assert {'title', 'tfidf', 'phash', 'fused', 'rule', 'untrained_title', 'untrained_fused'} <= set(rows)
    assert summary['promised']['setting'] == 'in the catalogue' and summary['promised']['pool'] == len(df)
    n_listings = summary['promised']['n']
    assert f'in the catalogue: {n_listings} listings, each looked up among {len(df)}' in said
    assert all(sentence in said for sentence in summary['rule_in_words'])
    assert not {'untrained_tfidf', 'untrained_phash'} & set(rows)
    assert 'phash: image_phash' in said and 'alone' in said and f'wrote {out}' in said
    # flags say what was trained on: all but the held-out fold
    listings = summary['listings']
    assert matcher.trained_on.sum() == listings['train'] == len(df) - listings['heldout']


def test_match_joins_the_equal_picture(titles_only, tables, tmp_path):
    out, _ = titles_only
    result = match(out, tables/'new.csv', tmp_path/'m.csv', '--scores')
    assert result.exit_code == 0, result.output
    found = pd.read_csv(tmp_path/'m.csv')
    new = pd.read_csv(tables/'new.csv')
    assert found.posting_id.tolist() == new.posting_id.tolist()
    assert (found.matches.str.split().str[0] == found.posting_id).all()
    pairs = pd.read_csv(tmp_path/'m.pairs.csv')
    assert list(pairs.columns) == ['posting_id', 'match', 'where', 'score', 'title', 'tfidf', 'phash', 'why']
    twin = pairs[pairs.posting_id == 'twin']
    assert pd.read_csv(tables/'train.csv').posting_id.iloc[3] in set(twin[twin.why == 'phash'].match)
    want = {listing: set(matches.split()) - {listing} for listing, matches in found.to_numpy()}
    got = pairs.groupby('posting_id').match.apply(set).to_dict()
    assert got == {listing: matches for listing, matches in want.items() if matches}
    rule, pool = load_matcher(out).rule, len(new) + len(pd.read_csv(tables/'train.csv'))
    assert (
        f'threshold {rule.at(pool).threshold:.3f} for a pool of {pool} (chosen in the catalogue'
        in result.output
    )
    alone = match(out, tables/'new.csv', tmp_path/'a.csv', '--alone')
    assert f'threshold {rule.at(len(new)).threshold:.3f} for a pool of {len(new)} (' in alone.output
    named = {name for matches in pd.read_csv(tmp_path/'a.csv').matches for name in matches.split()}
    assert alone.exit_code == 0 and named <= set(new.posting_id)


def test_both_modalities_under_other_names(both, tables, tmp_path):
    matcher = load_matcher(both)
    assert matcher.columns.id == 'SKU' and matcher.columns.title == 'Product Name'
    assert sorted(matcher.inputs) == ['image', 'title']
    # the competition's names are found as well
    result = match(both, tables/'new.csv', tmp_path/'m.csv', '--images', IMAGES)
    assert result.exit_code == 0, result.output
    df = pd.read_csv(tables/'new.csv')
    own = {'posting_id': 'SKU', 'image': 'photo', 'title': 'Product Name'}
    direct = matcher.match(df.assign(title=unescape(df.title)).rename(columns=own), IMAGES)
    assert pd.read_csv(tmp_path/'m.csv').equals(direct.to_frame())


def test_parquet(both, tables, tmp_path):
    pytest.importorskip('pyarrow')
    pd.read_csv(tables/'new.csv').to_parquet(tmp_path/'new.parquet')
    for name, table in (('a', tables/'new.csv'), ('b', tmp_path/'new.parquet')):
        assert match(both, table, tmp_path/f'{name}.csv', '--images', IMAGES).exit_code == 0
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()


def test_a_title_column_of_ones_own(both, tables, tmp_path):
    "Named as the matcher's own column, but not meant: the named one counts, the other is left alone."
    df = pd.read_csv(tables/'new.csv')
    df.assign(**{'short': df.title, 'Product Name': 'x' * 20_000}).to_csv(tmp_path/'two.csv', index=False)
    cases = ('a', tables/'new.csv', ()), ('b', tmp_path/'two.csv', ('--title-col', 'short'))
    for name, table, more in cases:
        result = match(both, table, tmp_path/f'{name}.csv', '--images', IMAGES, *more)
        assert result.exit_code == 0, result.output
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()


def test_a_role_can_be_left_out(tables, tmp_path):
    result = call('train', tables/'train.csv', '--out', tmp_path/'t', '--epochs', 1, '--bs', 32,
                  '--phash-col', 'none')
    assert result.exit_code == 0 and load_matcher(tmp_path/'t').rule.join == (), result.output
    result = call('train', tables/'train.csv', '--out', tmp_path/'n', '--title-col', 'none')
    assert result.exit_code == 2 and '--images' in result.output


def test_a_matcher_of_an_earlier_version_warns(tmp_path):
    "Its threshold is used as it is; the matches are written, and stderr says what the threshold was for."
    known = Embeddings({}, ['t1', 't2', 't3'], ['red bag', 'a lamp', 'blue shoe'])
    info = {'heldout': {'fused': {'n': 463}}}
    Matcher(Rule('mean', {'tfidf': 1.}, .5), known, info=info).save(tmp_path/'old')
    (tmp_path/'new.csv').write_text('posting_id,title\nq,the red bag\n')
    result = match(tmp_path/'old', tmp_path/'new.csv', tmp_path/'m.csv')
    assert result.exit_code == 0 and (tmp_path/'m.csv').exists()
    assert 'threshold 0.500 for a pool of 4, taken as it was chosen, among 463 listings' in result.stderr
    assert 'threshold' not in result.stdout
    assert 'It knows no thresholds for other numbers' in call('inspect', tmp_path/'old').output


def test_inspect(both, tables):
    result = call('inspect', both)
    words = ('every hash right', 'tf_efficientnet_lite0', '32x32', 'SKU')
    assert result.exit_code == 0 and all(word in result.output for word in words)
    assert re.search(r'alone +0\.\d{3}', result.output)
    assert all(sentence in result.output for sentence in rule_in_words(load_matcher(both).rule))


def test_an_earlier_result_is_kept_unless_forced(titles_only, tables):
    out, _ = titles_only
    before = (out/'manifest.json').read_bytes()
    result = call('train', tables/'train.csv', '--out', out, '--epochs', 1)
    assert result.exit_code == 2 and '--force' in result.output
    assert (out/'manifest.json').read_bytes() == before


def test_embeddings_from_elsewhere(titles_only, tables, tmp_path):
    out, _ = titles_only
    matcher = load_matcher(out)
    df = pd.read_csv(tables/'new.csv')
    df['title'] = unescape(df.title)
    embeddings, _ = matcher.embed(df)
    np.savez(tmp_path/'e.npz', **embeddings)
    for name, more in (('a', ()), ('b', ('--embeddings', tmp_path/'e.npz'))):
        result = match(out, tables/'new.csv', tmp_path/f'{name}.csv', *more)
        assert result.exit_code == 0, result.output
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()
    np.savez(tmp_path/'narrow.npz', **{modality: vectors[:, :9] for modality, vectors in embeddings.items()})
    np.savez(tmp_path/'short.npz', **{modality: vectors[:3] for modality, vectors in embeddings.items()})
    np.savez(tmp_path/'pickled.npz', title=np.array([{}], dtype=object))
    (tmp_path/'text.npz').write_text('no')
    (tmp_path/'empty.npz').write_bytes(b'')
    (tmp_path/'cut.npz').write_bytes((tmp_path/'e.npz').read_bytes()[:200])
    np.save(tmp_path/'plain.npy', embeddings['title'])
    (tmp_path/'plain.npy').rename(tmp_path/'plain.npz')
    np.savez(tmp_path/'flat.npz', title=np.zeros(3))
    words = {'flat': '(3,)', 'narrow': '9 dimensions', 'short': '3 rows'}
    for name in ('empty', 'cut', 'plain', 'flat', 'narrow', 'short', 'pickled', 'text', 'none'):
        result = match(out, tables/'new.csv', tmp_path/'c.csv', '--embeddings', tmp_path/f'{name}.npz')
        assert result.exit_code == 2 and words.get(name, f'{name}.npz') in result.output, result.output
    assert not (tmp_path/'c.csv').exists()


def text_table(rows, header='posting_id,image,title,label_group'):
    return (header + '\n' + '\n'.join(rows) + '\n').encode()


ROWS = [f'p{i},{i % 6}.png,title {i},{i // 2}' for i in range(12)]
BAD = {
    'missing column': (text_table(ROWS, 'posting_id,image,title,colour'), ['group', '--group-col']),
    'duplicate id': (text_table([*ROWS, 'p3,1.png,again,1']), ["'p3'", 'rows']),
    'blanks in an id': (text_table([*ROWS, 'q 1,1.png,t,1']), ["'q 1'", 'blanks']),
    'missing image': (text_table([*ROWS, 'q,none.png,t,1']), ['row 12', 'none.png', 'no such file']),
    'broken image': (text_table([*ROWS, 'q,broken.png,t,1']), ['row 12', 'broken.png']),
    'empty image': (text_table([*ROWS, 'q,empty.png,t,1']), ['row 12', '0 bytes']),
    'giant image': (text_table([*ROWS, 'q,giant.png,t,1']), ['row 12', 'giant.png', 'DecompressionBomb']),
    'empty title': (text_table([*ROWS, 'q,1.png,,1', 'r,1.png,  ,1']), ['row 12', 'row 13', 'blank title']),
    'long title': (text_table([*ROWS, f'q,1.png,{"x" * 10_000_000},1']), ['row 12', '10000000 characters']),
    'one listing': (text_table(ROWS[:1]), ['1 listing', 'at least 2']),
    'one group': (text_table([f'p{i},{i % 6}.png,t {i},1' for i in range(6)]), ['one group']),
    'fewer groups than folds': (text_table(ROWS[:4]), ['folds']),
    'quotes': (text_table([*ROWS[:3], 'q,1.png,"never closed,1', *ROWS[4:]]), ['line']),
    'encoding': (text_table(ROWS) + 'q,1.png,caf\xe9,1\n'.encode('latin-1'), ['line 14', '--encoding']),
    'header only': (text_table([]).strip(), ['no listings']),
    'nothing': (b'', ['bad.csv']),
}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    path = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path/f'{i}.png')
    (path/'broken.png').write_bytes((path/'0.png').read_bytes()[:300])
    (path/'empty.png').write_bytes(b'')
    # 20,000 x 20,000 pixels in a few kB: a picture bomb
    Image.new('1', (20_000, 20_000)).save(path/'giant.png')
    return path


@pytest.mark.parametrize('case', BAD)
def test_bad_tables(case, pictures, tmp_path):
    data, words = BAD[case]
    (tmp_path/'bad.csv').write_bytes(data)
    result = call('train', tmp_path/'bad.csv', '--images', pictures, '--out', tmp_path/'out', '--epochs', 1,
                  '--size', 32)
    assert result.exit_code == 2, result.output
    assert all(word in result.output for word in words), result.output
    assert sorted(file.name for file in tmp_path.iterdir()) == ['bad.csv']


@pytest.mark.parametrize('args, words', [
    (['--image-arch', 'resnet19'], ['image_arch', 'resnet']),
    (['--text-arch', 'no/such-model'], ['no/such-model', 'local folder']),
    (['--lr', 'fast'], ['lr', 'fast']), (['--lr', '-1'], ['lr=-1']), (['--lr', 'inf'], ['lr=inf']),
    (['--device', 'gpu'], ["device='gpu'"]), (['--bs', '11'], ['bs=11', 'listings to train on']),
    (['--epochs', '0'], ['epochs=0']), (['--size', '2'], ['size=2']), (['--aug', 'wild'], ['wild']),
    (['--valid-fold', '9'], ['valid_fold=9']), (['--folds', '1'], ['n_folds=1']),
    (['--on-error', 'hide'], ['hide']), (['--title-col', 'titel'], ['titel', 'title']),
    (['--images', 'nowhere'], ['nowhere']), (['--encoding', 'klingon'], ['klingon']),
    (['--seed', '-3'], ['seed=-3'])])
def test_bad_options(args, words, pictures, tmp_path):
    (tmp_path/'ok.csv').write_bytes(text_table(ROWS))
    result = call('train', tmp_path/'ok.csv', '--images', pictures, '--out', tmp_path/'out', '--epochs', 1,
                  '--size', 32, '--folds', 2, *args)
    assert result.exit_code == 2 and all(word in result.output for word in words), result.output
    assert not (tmp_path/'out').exists()


def test_places_that_are_taken(tmp_path):
    (tmp_path/'ok.csv').write_bytes(text_table(ROWS))
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.tex').write_text('important')
    # a result with something of one's own in it is no result to replace
    (tmp_path/'half').mkdir()
    for name in ('summary.json', 'manifest.json', 'notes.txt'): (tmp_path/'half'/name).write_text('{}')
    for out, word in (('mine', 'thesis.tex'), ('half', 'notes.txt'), ('ok.csv', 'is a file'),
                      ('ok.csv/deeper', 'is a file')):
        result = call('train', tmp_path/'ok.csv', '--out', tmp_path/out, '--force')
        assert result.exit_code == 2 and word in result.output
    assert (tmp_path/'mine'/'thesis.tex').read_text() == 'important'
    assert (tmp_path/'ok.csv').read_bytes() == text_table(ROWS)
    assert len(list((tmp_path/'half').iterdir())) == 3


def test_a_bom_is_no_column(tmp_path, titles_only, tables):
    (tmp_path/'bom.csv').write_bytes(b'\xef\xbb\xbf' + (tables/'new.csv').read_bytes())
    result = match(titles_only[0], tmp_path/'bom.csv', tmp_path/'m.csv')
    assert result.exit_code == 0 and pd.read_csv(tmp_path/'m.csv').columns[0] == 'posting_id'


def test_bad_matches(both, tables, tmp_path):
    new = tables/'new.csv'
    out = tmp_path/'m.csv'
    df = pd.read_csv(new)
    df.drop(columns='image').to_csv(tables/'bare.csv', index=False)
    pictures = '--images', IMAGES
    cases = [
        (both, new, out, (), '--images'),
        (both, new, out, ('--images', tmp_path/'none'), 'not a folder'),
        (both, tmp_path/'none.csv', out, pictures, 'none.csv'),
        (tmp_path, new, out, pictures, 'manifest.json'),
        (tmp_path/'none', new, out, pictures, 'no such folder'),
        (both, new, tmp_path, pictures, 'folder'),
        (both, new, tmp_path/'no'/'m.csv', pictures, 'no folder'),
        (both, new, out, ('--images', tmp_path), 'none of the'),
        (both, new, new, pictures, 'itself'),
        (both, new, out, (*pictures, '--bs', 0), 'bs=0'),
        (both, new, out, (*pictures, '--device', 'gpu'), "device='gpu'"),
        (both, tables/'bare.csv', out, pictures, '--image-col')]
    for matcher, table, where, args, word in cases:
        result = match(matcher, table, where, *args)
        assert result.exit_code == 2 and word in result.output, (args, result.output)
    assert not out.exists()
    df.loc[2, 'image'] = 'gone.png'
    df.to_csv(tmp_path/'gone.csv', index=False)
    result = match(both, tmp_path/'gone.csv', out, *pictures)
    assert result.exit_code == 2 and 'row 2' in result.output and 'gone.png' in result.output
    assert not out.exists()
    result = match(both, tmp_path/'gone.csv', out, *pictures, '--on-error', 'skip')
    assert result.exit_code == 0 and 'skipped row 2' in result.output and len(pd.read_csv(out)) == len(df) - 1


def refusals(both, tables, tmp_path):
    "What `match` and `inspect` say of a matcher that they refuse."
    results = (match(both, tables/'new.csv', tmp_path/'m.csv', '--images', IMAGES), call('inspect', both))
    assert [result.exit_code for result in results] == [2, 2]
    return [result.output for result in results]


def test_a_damaged_matcher(both, tables, tmp_path):
    file = next(both.rglob('vectors.safetensors'))
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for said in refusals(both, tables, tmp_path): assert 'vectors.safetensors' in said and 'damaged' in said
    file.write_bytes(good)


def test_a_matcher_of_another_version(both, tables, tmp_path):
    file = both/MANIFEST
    good = file.read_bytes()
    content = {name: value for name, value in json.loads(good).items() if name != 'sha256'}
    file.write_bytes(seal({**content, 'format': 9, 'made_with': {'fastmatch': '9.0'}}))
    for said in refusals(both, tables, tmp_path): assert 'format 9' in said and '9.0' in said
    file.write_bytes(good)


def test_skipped_rows_are_reported(pictures, tmp_path):
    rows = [f'p{i},{i % 6}.png,title {i},{i // 2}' for i in range(40)]
    (tmp_path/'t.csv').write_bytes(text_table([*rows, 'q,none.png,t,1']))
    result = call('train', tmp_path/'t.csv', '--images', pictures, '--title-col', 'title',
                  '--out', tmp_path/'out', '--epochs', 1, '--size', 32, '--on-error', 'skip',
                  '--folds', 2, '--bs', 8)
    assert result.exit_code == 0, result.output
    skipped = json.loads((tmp_path/'out'/'summary.json').read_text())['listings']['skipped']
    assert [row['id'] for row in skipped] == ['q'] and 'none.png' in skipped[0]['reason']
    assert 'q' not in load_matcher(tmp_path/'out').ids and os.path.exists(tmp_path/'out'/'report.html')


@pytest.fixture(scope='module')
def two_texts(tables):
    "The tables with the titles' first words in a column of their own, and a matcher trained on both."
    for name in ('train', 'new'):
        df = pd.read_csv(tables/f'{name}.csv')
        df['brand'] = [title.split()[0] for title in df.title]
        df['title'] = [' '.join(title.split()[1:]) for title in df.title]
        df.to_csv(tables/f'two-{name}.csv', index=False)
    result = call('train', tables/'two-train.csv', '--out', tables/'two', '--epochs', 1, '--bs', 32,
                  '--rule', 'plain', '--title-col', 'brand', '--title-col', 'title')
    assert result.exit_code == 0, result.output
    assert 'title: brand + title' in result.output
    return tables/'two'


def test_titles_of_several_columns(tables, two_texts, tmp_path):
    new = pd.read_csv(tables/'two-new.csv')
    matcher = load_matcher(two_texts)
    assert matcher.columns.title == ['brand', 'title']
    known = pd.read_csv(tables/'two-train.csv')
    row = int(known.title.notna().argmax())
    assert matcher.titles[row] == f'{unescape(known.brand)[row]}. {unescape(known.title)[row]}'
    assert 'title: brand + title' in call('inspect', two_texts).output
    out = tmp_path/'m.csv'
    assert match(two_texts, tables/'two-new.csv', out).exit_code == 0
    found = pd.read_csv(out)
    # under other names they are given in the order of the training
    new.rename(columns={'brand': 'maker', 'title': 'words'}).to_csv(tmp_path/'other.csv', index=False)
    result = match(two_texts, tmp_path/'other.csv', out, '--title-col', 'maker', '--title-col', 'words')
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(pd.read_csv(out), found)
    # one under another name, the other under its own
    new.rename(columns={'brand': 'maker'}).to_csv(tmp_path/'half.csv', index=False)
    assert match(two_texts, tmp_path/'half.csv', out, '--title-col', 'maker').exit_code == 0
    pd.testing.assert_frame_equal(pd.read_csv(out), found)


def test_titles_of_several_columns_that_are_not_there(tables, two_texts, titles_only, tmp_path):
    columns = '--title-col', 'brand', '--title-col', 'titel'
    result = call('train', tables/'two-train.csv', '--out', tmp_path/'out', *columns)
    assert result.exit_code == 2 and "title_col[1]='titel' (did you mean 'title'?)" in result.output
    result = call('tune', tables/'two-train.csv', *columns)
    assert result.exit_code == 2 and "title_col[1]='titel'" in result.output
    result = match(two_texts, tables/'two-new.csv', tmp_path/'m.csv', *columns)
    assert result.exit_code == 2 and "title_col[1]='titel'" in result.output
    columns = '--title-col', 'brand', '--title-col', 'title'
    result = match(titles_only[0], tables/'two-new.csv', tmp_path/'m.csv', *columns)
    assert result.exit_code == 2
    assert '--title-col: 2 are given, and this matcher reads 1 (title)' in ' '.join(result.output.split())


def test_a_study_of_titles_of_several_columns(tables, two_texts, tmp_path):
    result = call('tune', tables/'two-train.csv', '--storage', tmp_path/'studies.db', '--n-trials', 1,
                  '--epochs', 1, '--bs', 32, '--folds', 3, '--title-col', 'brand', '--title-col', 'title')
    assert result.exit_code == 0, result.output


def test_a_threshold_of_ones_own(tables, titles_only, tmp_path):
    lengths = []
    for threshold in ('-1', '1.01'):
        result = match(titles_only[0], tables/'new.csv', tmp_path/f'{threshold}.csv', '--alone',
                       '--threshold', threshold)
        assert result.exit_code == 0, result.output
        assert f'threshold {threshold}, as it was given' in result.output
        lengths.append(pd.read_csv(tmp_path/f'{threshold}.csv').matches.str.split().str.len())
    n = len(pd.read_csv(tables/'new.csv'))
    assert lengths[0].tolist() == [n] * n and lengths[1].lt(3).all()
    result = match(titles_only[0], tables/'new.csv', tmp_path/'m.csv', '--rows', 5, '--threshold', .5)
    assert result.exit_code == 2 and '--threshold' in result.output


def test_matches_that_are_cut_are_told(tables, titles_only, tmp_path):
    matcher = load_matcher(titles_only[0])
    cut = Rule('mean', {'title': 1.}, -1., k=6, max_matches=4, made_with=matcher.rule.made_with)
    Matcher(cut, matcher.catalogue, matcher.encoder, matcher.columns).save(tmp_path/'cut')
    result = match(tmp_path/'cut', tables/'new.csv', tmp_path/'m.csv')
    assert result.exit_code == 0, result.output
    n = len(pd.read_csv(tables/'new.csv'))
    assert (f'{n} listings have as many matches as max_matches=4 allows, and may have more: only the nearest '
            'are given') in ' '.join(result.output.split())
    assert pd.read_csv(tmp_path/'m.csv').matches.str.split().str.len().tolist() == [4] * n
