"`fastmatch train`, `match` and `inspect` as a user meets them: the competition's table, one modality or both, and everything that can be wrong with input."
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.data.sample import demo_path
from fastmatch.data.table import unescape
from fastmatch.matcher import load_matcher
from fastmatch.matcher.folder import MANIFEST, _sealed
from fastmatch.models.weights import IMAGE_PACKAGES, TITLE_PACKAGES

IMAGES = demo_path()/'images'
pytestmark = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None or IMAGE_PACKAGES['tf_efficientnet_lite0'].find() is None,
                                reason='the weights packages of the extra [demo] are not installed')


def call(*args): return CliRunner().invoke(app, [str(o) for o in args], catch_exceptions=False)


def escaped(title): return ''.join(c if c.isascii() else ''.join(f'\\x{b:02x}' for b in c.encode()) for c in title)


@pytest.fixture(scope='module')
def tables(tmp_path_factory):
    "The competition's columns: a table to train on, and new listings (some of the same products, one the very picture of a known one)."
    path, df = tmp_path_factory.mktemp('tables'), pd.read_csv(demo_path()/'listings.csv')
    df = df[df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:9]))].reset_index(drop=True)
    df['title'] = [escaped(o) for o in df.title]
    df['image_phash'] = [f'{0xf0f0f0f000000000 + i:016x}' for i in range(len(df))]
    new = df.groupby('label_group').head(1)
    new = new[new.label_group.map(df.label_group.value_counts()) > 2].head(12)
    old = df.drop(new.index)
    # a new listing that nothing but its picture's hash ties to a known one
    new = pd.concat([new, pd.DataFrame([{'posting_id': 'twin', 'image': old.image.iloc[3], 'title': 'zzz', 'image_phash': old.image_phash.iloc[3]}])])
    cols = ['posting_id', 'image', 'image_phash', 'title']
    old[[*cols, 'label_group']].to_csv(path/'train.csv', index=False)
    new[cols].to_csv(path/'new.csv', index=False)
    return path


@pytest.fixture(scope='module')
def titles_only(tables):
    res = call('train', tables/'train.csv', '--out', tables/'titles', '--epochs', 1, '--bs', 32)
    assert res.exit_code == 0, res.output
    return tables/'titles', res.output


@pytest.fixture(scope='module')
def both(tables):
    # its own column names, and semicolons, as a spreadsheet exports them
    df = pd.read_csv(tables/'train.csv').rename(columns={'posting_id': 'SKU', 'image': 'photo', 'title': 'Product Name', 'label_group': 'group'})
    df.drop(columns='image_phash').to_csv(tables/'own.csv', index=False, sep=';')
    res = call('train', tables/'own.csv', '--images', IMAGES, '--out', tables/'both', '--epochs', 1, '--bs', 32, '--size', 32, '--folds', 4)
    assert res.exit_code == 0, res.output
    return tables/'both'


def test_titles_of_the_competition(titles_only, tables):
    out, said = titles_only
    assert {o.name for o in out.iterdir()} >= {'manifest.json', 'matches.csv', 'summary.json', 'report.html'} and not list(tables.glob('.*'))
    m, df = load_matcher(out), pd.read_csv(tables/'train.csv')
    assert sorted(m.ids) == sorted(df.posting_id) and m.inputs == ['title'] and m.rule.join == ('phash',)
    at = dict(zip(m.ids, m.titles))
    assert [at[i] for i in df.posting_id] == unescape(df.title).tolist() and any(not o.isascii() for o in m.titles)
    s = json.loads((out/'summary.json').read_text())
    assert list(s['heldout'])[0] == 'alone' and {'title', 'tfidf', 'phash', 'fused', 'untrained_title', 'untrained_fused'} <= set(s['heldout'])
    assert not {'untrained_tfidf', 'untrained_phash'} & set(s['heldout'])
    assert 'phash: image_phash' in said and 'alone' in said and f'wrote {out}' in said
    # flags say what was trained on: all but the held-out fold
    assert m.trained_on.sum() == s['listings']['train'] == len(df) - s['listings']['heldout']


def test_match_joins_the_equal_picture(titles_only, tables, tmp_path):
    out, _ = titles_only
    res = call('match', out, tables/'new.csv', '-o', tmp_path/'m.csv', '--scores')
    assert res.exit_code == 0, res.output
    found, new = pd.read_csv(tmp_path/'m.csv'), pd.read_csv(tables/'new.csv')
    assert found.posting_id.tolist() == new.posting_id.tolist() and (found.matches.str.split().str[0] == found.posting_id).all()
    pairs = pd.read_csv(tmp_path/'m.pairs.csv')
    assert list(pairs.columns) == ['posting_id', 'match', 'where', 'score', 'title', 'tfidf', 'phash', 'why']
    twin = pairs[pairs.posting_id == 'twin']
    assert pd.read_csv(tables/'train.csv').posting_id.iloc[3] in set(twin[twin.why == 'phash'].match)
    want = {i: set(o.split()) - {i} for i, o in found.to_numpy()}
    assert pairs.groupby('posting_id').match.apply(set).to_dict() == {k: v for k, v in want.items() if v}
    alone = call('match', out, tables/'new.csv', '-o', tmp_path/'a.csv', '--alone')
    assert alone.exit_code == 0 and {o for m in pd.read_csv(tmp_path/'a.csv').matches for o in m.split()} <= set(new.posting_id)


def test_both_modalities_under_other_names(both, tables, tmp_path):
    m = load_matcher(both)
    assert m.columns.id == 'SKU' and m.columns.title == 'Product Name' and sorted(m.inputs) == ['image', 'title']
    # the competition's names are found as well
    res = call('match', both, tables/'new.csv', '--images', IMAGES, '-o', tmp_path/'m.csv')
    assert res.exit_code == 0, res.output
    df = pd.read_csv(tables/'new.csv')
    direct = m.match(df.assign(title=unescape(df.title)).rename(columns={'posting_id': 'SKU', 'image': 'photo', 'title': 'Product Name'}), IMAGES)
    assert pd.read_csv(tmp_path/'m.csv').equals(direct.to_frame())


def test_parquet(both, tables, tmp_path):
    pytest.importorskip('pyarrow')
    pd.read_csv(tables/'new.csv').to_parquet(tmp_path/'new.parquet')
    for name, ext in (('a', tables/'new.csv'), ('b', tmp_path/'new.parquet')):
        assert call('match', both, ext, '--images', IMAGES, '-o', tmp_path/f'{name}.csv').exit_code == 0
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()


def test_a_title_column_of_ones_own(both, tables, tmp_path):
    "Named as the matcher's own column, but not meant: the named one counts, the other is left alone."
    df = pd.read_csv(tables/'new.csv')
    df.assign(**{'short': df.title, 'Product Name': 'x' * 20_000}).to_csv(tmp_path/'two.csv', index=False)
    for name, table, more in (('a', tables/'new.csv', ()), ('b', tmp_path/'two.csv', ('--title-col', 'short'))):
        res = call('match', both, table, '--images', IMAGES, '-o', tmp_path/f'{name}.csv', *more)
        assert res.exit_code == 0, res.output
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()


def test_a_role_can_be_left_out(tables, tmp_path):
    res = call('train', tables/'train.csv', '--out', tmp_path/'t', '--epochs', 1, '--bs', 32, '--phash-col', 'none')
    assert res.exit_code == 0 and load_matcher(tmp_path/'t').rule.join == (), res.output
    res = call('train', tables/'train.csv', '--out', tmp_path/'n', '--title-col', 'none')
    assert res.exit_code == 2 and '--images' in res.output


def test_inspect(both, tables):
    res = call('inspect', both)
    assert res.exit_code == 0 and 'every hash right' in res.output and 'tf_efficientnet_lite0' in res.output and '32x32' in res.output
    assert re.search(r'alone +0\.\d{3}', res.output) and 'SKU' in res.output


def test_an_earlier_result_is_kept_unless_forced(titles_only, tables):
    out, _ = titles_only
    before = (out/'manifest.json').read_bytes()
    res = call('train', tables/'train.csv', '--out', out, '--epochs', 1)
    assert res.exit_code == 2 and '--force' in res.output and (out/'manifest.json').read_bytes() == before


def test_embeddings_from_elsewhere(titles_only, tables, tmp_path):
    out, _ = titles_only
    m, df = load_matcher(out), pd.read_csv(tables/'new.csv')
    df['title'] = unescape(df.title)
    emb, _ = m.embed(df)
    np.savez(tmp_path/'e.npz', **emb)
    for name, more in (('a', ()), ('b', ('--embeddings', tmp_path/'e.npz'))):
        res = call('match', out, tables/'new.csv', '-o', tmp_path/f'{name}.csv', *more)
        assert res.exit_code == 0, res.output
    assert (tmp_path/'a.csv').read_text() == (tmp_path/'b.csv').read_text()
    np.savez(tmp_path/'narrow.npz', **{k: v[:, :9] for k, v in emb.items()})
    np.savez(tmp_path/'short.npz', **{k: v[:3] for k, v in emb.items()})
    np.savez(tmp_path/'pickled.npz', title=np.array([{}], dtype=object))
    (tmp_path/'text.npz').write_text('no')
    (tmp_path/'empty.npz').write_bytes(b'')
    (tmp_path/'cut.npz').write_bytes((tmp_path/'e.npz').read_bytes()[:200])
    np.save(tmp_path/'plain.npy', emb['title'])
    (tmp_path/'plain.npy').rename(tmp_path/'plain.npz')
    np.savez(tmp_path/'flat.npz', title=np.zeros(3))
    for name, word in (('empty', 'empty.npz'), ('cut', 'cut.npz'), ('plain', 'plain.npz'), ('flat', '(3,)'), ('narrow', '9 dimensions'), ('short', '3 rows'), ('pickled', 'pickled.npz'), ('text', 'text.npz'), ('none', 'none.npz')):
        res = call('match', out, tables/'new.csv', '-o', tmp_path/'c.csv', '--embeddings', tmp_path/f'{name}.npz')
        assert res.exit_code == 2 and word in res.output, res.output
    assert not (tmp_path/'c.csv').exists()


def text_table(rows, header='posting_id,image,title,label_group'): return (header + '\n' + '\n'.join(rows) + '\n').encode()


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
    for i in range(6): Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path/f'{i}.png')
    (path/'broken.png').write_bytes((path/'0.png').read_bytes()[:300])
    (path/'empty.png').write_bytes(b'')
    # 20,000 x 20,000 pixels in a few kB: a picture bomb
    Image.new('1', (20_000, 20_000)).save(path/'giant.png')
    return path


@pytest.mark.parametrize('case', BAD)
def test_bad_tables(case, pictures, tmp_path):
    data, words = BAD[case]
    (tmp_path/'bad.csv').write_bytes(data)
    res = call('train', tmp_path/'bad.csv', '--images', pictures, '--out', tmp_path/'out', '--epochs', 1, '--size', 32)
    assert res.exit_code == 2, res.output
    assert all(o in res.output for o in words), res.output
    assert sorted(o.name for o in tmp_path.iterdir()) == ['bad.csv']


@pytest.mark.parametrize('args, words', [
    (['--image-arch', 'resnet19'], ['image_arch', 'resnet']), (['--text-arch', 'no/such-model'], ['no/such-model', 'local folder']), (['--lr', 'fast'], ['lr', 'fast']),
    (['--lr', '-1'], ['lr=-1']), (['--lr', 'inf'], ['lr=inf']), (['--device', 'gpu'], ["device='gpu'"]), (['--bs', '11'], ['bs=11', 'listings to train on']), (['--epochs', '0'], ['epochs=0']), (['--size', '2'], ['size=2']), (['--aug', 'wild'], ['wild']), (['--valid-fold', '9'], ['valid_fold=9']),
    (['--folds', '1'], ['n_folds=1']), (['--on-error', 'hide'], ['hide']), (['--title-col', 'titel'], ['titel', 'title']), (['--images', 'nowhere'], ['nowhere']),
    (['--encoding', 'klingon'], ['klingon']), (['--seed', '-3'], ['seed=-3'])])
def test_bad_options(args, words, pictures, tmp_path):
    (tmp_path/'ok.csv').write_bytes(text_table(ROWS))
    res = call('train', tmp_path/'ok.csv', '--images', pictures, '--out', tmp_path/'out', '--epochs', 1, '--size', 32, '--folds', 2, *args)
    assert res.exit_code == 2 and all(o in res.output for o in words), res.output
    assert not (tmp_path/'out').exists()


def test_places_that_are_taken(tmp_path):
    (tmp_path/'ok.csv').write_bytes(text_table(ROWS))
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'thesis.tex').write_text('important')
    # a result with something of one's own in it is no result to replace
    (tmp_path/'half').mkdir()
    for o in ('summary.json', 'manifest.json', 'notes.txt'): (tmp_path/'half'/o).write_text('{}')
    for out, word in (('mine', 'thesis.tex'), ('half', 'notes.txt'), ('ok.csv', 'is a file'), ('ok.csv/deeper', 'is a file')):
        res = call('train', tmp_path/'ok.csv', '--out', tmp_path/out, '--force')
        assert res.exit_code == 2 and word in res.output
    assert (tmp_path/'mine'/'thesis.tex').read_text() == 'important' and (tmp_path/'ok.csv').read_bytes() == text_table(ROWS)
    assert len(list((tmp_path/'half').iterdir())) == 3


def test_a_bom_is_no_column(tmp_path, titles_only, tables):
    (tmp_path/'bom.csv').write_bytes(b'\xef\xbb\xbf' + (tables/'new.csv').read_bytes())
    res = call('match', titles_only[0], tmp_path/'bom.csv', '-o', tmp_path/'m.csv')
    assert res.exit_code == 0 and pd.read_csv(tmp_path/'m.csv').columns[0] == 'posting_id'


def test_bad_matches(both, tables, tmp_path):
    new, out = tables/'new.csv', tmp_path/'m.csv'
    cases = [((both, new, '-o', out), '--images'), ((both, new, '--images', tmp_path/'none', '-o', out), 'not a folder'),
             ((both, tmp_path/'none.csv', '--images', IMAGES, '-o', out), 'none.csv'), ((tmp_path, new, '--images', IMAGES, '-o', out), 'manifest.json'),
             ((tmp_path/'none', new, '--images', IMAGES, '-o', out), 'no such folder'), ((both, new, '--images', IMAGES, '-o', tmp_path), 'folder'),
             ((both, new, '--images', IMAGES, '-o', tmp_path/'no'/'m.csv'), 'no folder'), ((both, new, '--images', tmp_path, '-o', out), 'none of the'),
             ((both, new, '--images', IMAGES, '-o', new), 'itself'), ((both, new, '--images', IMAGES, '-o', out, '--bs', 0), 'bs=0'),
             ((both, new, '--images', IMAGES, '-o', out, '--device', 'gpu'), "device='gpu'"),
             ((both, tables/'bare.csv', '--images', IMAGES, '-o', out), '--image-col')]
    pd.read_csv(new).drop(columns='image').to_csv(tables/'bare.csv', index=False)
    for args, word in cases:
        res = call('match', *args)
        assert res.exit_code == 2 and word in res.output, (args, res.output)
    assert not out.exists()
    df = pd.read_csv(new)
    df.loc[2, 'image'] = 'gone.png'
    df.to_csv(tmp_path/'gone.csv', index=False)
    res = call('match', both, tmp_path/'gone.csv', '--images', IMAGES, '-o', out)
    assert res.exit_code == 2 and 'row 2' in res.output and 'gone.png' in res.output and not out.exists()
    res = call('match', both, tmp_path/'gone.csv', '--images', IMAGES, '-o', out, '--on-error', 'skip')
    assert res.exit_code == 0 and 'skipped row 2' in res.output and len(pd.read_csv(out)) == len(df) - 1


def test_a_damaged_matcher(both, tables, tmp_path):
    file = next(o for o in both.rglob('vectors.safetensors'))
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for args in (('match', both, tables/'new.csv', '--images', IMAGES, '-o', tmp_path/'m.csv'), ('inspect', both)):
        res = call(*args)
        assert res.exit_code == 2 and 'vectors.safetensors' in res.output and 'damaged' in res.output
    file.write_bytes(good)


def test_a_matcher_of_another_version(both, tables, tmp_path):
    file = both/MANIFEST
    good = file.read_bytes()
    file.write_bytes(_sealed({**{k: v for k, v in json.loads(good).items() if k != 'sha256'}, 'format': 2, 'made_with': {'fastmatch': '9.0'}}))
    for args in (('match', both, tables/'new.csv', '--images', IMAGES, '-o', tmp_path/'m.csv'), ('inspect', both)):
        res = call(*args)
        assert res.exit_code == 2 and 'format 2' in res.output and '9.0' in res.output
    file.write_bytes(good)


def test_skipped_rows_are_reported(pictures, tmp_path):
    rows = [f'p{i},{i % 6}.png,title {i},{i // 2}' for i in range(40)]
    (tmp_path/'t.csv').write_bytes(text_table([*rows, 'q,none.png,t,1']))
    res = call('train', tmp_path/'t.csv', '--images', pictures, '--title-col', 'title', '--out', tmp_path/'out', '--epochs', 1, '--size', 32, '--on-error', 'skip', '--folds', 2,
               '--bs', 8)
    assert res.exit_code == 0, res.output
    skipped = json.loads((tmp_path/'out'/'summary.json').read_text())['listings']['skipped']
    assert [o['id'] for o in skipped] == ['q'] and 'none.png' in skipped[0]['reason']
    assert 'q' not in load_matcher(tmp_path/'out').ids and os.path.exists(tmp_path/'out'/'report.html')
