"What people wrote comes back cell by cell; what can't be read is named by file, line, row or column."
import codecs
import csv
import gzip
import subprocess
import sys
import zipfile

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.core import InputError, MissingPackage
from fastmatch.data.demo import demo_path
from fastmatch.data.read import check_listings
from fastmatch.data.table import USUAL, Columns, read_table, recognise, unescape

SHOP = 'posting_id,image,image_phash,title,label_group\n'
HEART = r'\xe2\x9d\xa4'


@pytest.fixture
def put(tmp_path):
    "Write text (as UTF-8) or bytes to a file and hand back its path."
    def f(data, name='listings.csv'):
        path = tmp_path/name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path
    return f


def fails(path, **kwargs):
    "The message with which reading `path` ends; it names the file."
    with pytest.raises(InputError) as e: read_table(path, **kwargs)
    assert str(path) in str(e.value)
    return str(e.value)


def cells(df): return [[None if pd.isna(cell) else cell for cell in row] for row in df.to_numpy().tolist()]


# what is read

def test_a_shopee_table_works_as_it_is(put):
    path = put(SHOP + 'train_101,0a1b.jpg,94f0c3a51e2b6d78,Tas kertas polos,249000001\n'
               rf'train_102,0a1c.jpg,af00c2e19d3b5a64,"Selotip 5 cm, {HEART}",2900000002' '\n'
               r'''train_103,0a1d.jpg,1e50000000000000,"b'Caf\xc3\xa9 TTS'",2300000003''' '\n'
               r'''train_104,0a1e.jpg,85c1fc58a9e2b073,"b""Kopi \xc3\x89clair's""",0004000004''' '\n')
    df = read_table(path)
    cols = recognise(df, required=('id_col', 'fn_col', 'text_col', 'label_col'))
    assert cols == Columns('posting_id', 'image', 'title', 'label_group', None, 'image_phash')
    df[cols.title] = unescape(df[cols.title])
    assert df.title.tolist() == ['Tas kertas polos', 'Selotip 5 cm, ❤', 'Café TTS', "Kopi Éclair's"]
    assert df.posting_id.tolist()[2] == 'train_103' and df.image_phash.tolist()[2] == '1e50000000000000'
    assert df.label_group.tolist() == ['249000001', '2900000002', '2300000003', '0004000004']
    assert len(check_listings(df, text_col=cols.title, label_col=cols.group, id_col=cols.id).df) == 4


def test_cells_stay_as_they_were_typed(put):
    row = [
        '0012',
        '12345678901234567890',
        '1e5',
        'NA',
        'null',
        'None',
        'nan',
        ' x ',
        '1.0',
        'True',
        '2026-01-02',
        '-0',
    ]
    df = read_table(put(','.join(f'c{i}' for i in range(12)) + '\n' + ','.join(row) + '\n'))
    assert cells(df) == [row] and df.columns.tolist() == [f'c{i}' for i in range(12)]


def test_only_empty_cells_are_missing_and_only_empty_rows_left_out(put):
    df = read_table(put('\nid, title ,\n\n1,,x\n2,""\n,,\n 3\n\n'))
    assert cells(df) == [['1', None, 'x'], ['2', None, None], [' 3', None, None]]
    assert cells(read_table(put('id,title,x\n1,a\n2\n'))) == [['1', 'a', None], ['2', None, None]]
    assert df.columns.tolist() == ['id', 'title', 'Unnamed: 2'] and isinstance(df.index, pd.RangeIndex)


text = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0\r'))


@given(st.lists(st.tuples(text.filter(bool), text), min_size=1), st.sampled_from([',', ';', '\t']),
       st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
def test_what_a_csv_writer_wrote_comes_back(tmp_path_factory, rows, sep, encoding):
    path = tmp_path_factory.getbasetemp()/'round.csv'
    with path.open('w', newline='', encoding=encoding) as f:
        csv.writer(f, delimiter=sep).writerows([('sku', 'title'), *rows])
    df = read_table(path)
    assert cells(df) == [[i, title or None] for i, title in rows] and df.columns.tolist() == ['sku', 'title']


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_line_ends_of_every_system(put, end):
    path = put(end.join(['id;title', '1;a,b,c,d,e', f'2;"c;{end}d"']))
    assert cells(read_table(path)) == [['1', 'a,b,c,d,e'], ['2', f'c;{end}d']]
    msg = fails(put(end.join(['id;title', '1;tea', '2;café', '3;x']).encode('cp1252')))
    assert 'line 3: not utf-8' in msg and "it reads '2;café'" in msg


def test_packed_and_tab_separated(put, tmp_path):
    want, comma, tab = [['1', 'a, b']], 'id,title\n1,"a, b"\n', 'id\ttitle, long, clear\n1\ta, b\n'
    for data, kind in [(comma, 'CSV'), (tab, 'tsv')]:
        assert (
            cells(read_table(put(data, f'a.{kind}')))
            == cells(read_table(put(gzip.compress(data.encode()), f'a.{kind}.gz')))
            == want
        )
    for inner, data in [('train.csv', comma), ('in/train.TSV', tab)]:
        with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
            for name, content in [(inner, data), ('__MACOSX/._train.csv', 'x'), ('readme.txt', 'x')]:
                z.writestr(name, content)
        assert cells(read_table(str(tmp_path/'a.zip'))) == want


def test_the_size_limit_of_csv_is_as_before_and_does_not_bind(put):
    before = csv.field_size_limit()
    assert len(read_table(put('id,title\n1,' + 'x'*200_000 + '\n')).title[0]) == 200_000
    fails(put('id\n"'))
    assert csv.field_size_limit() == before


# what can't be read

def test_missing_folder_and_unknown_kinds(put, tmp_path):
    assert 'no such file' in fails(tmp_path/'gone.csv')
    (tmp_path/'dir.csv').mkdir()
    assert 'is a folder' in fails(tmp_path/'dir.csv')
    for name in ('a.xls', 'a.ods', 'a.txt', 'csv', 'a.gz'): assert '.csv, .tsv' in fails(put('id\n1\n', name))


@pytest.mark.parametrize('name, pack', [('a.csv', bytes), ('a.csv.gz', gzip.compress)])
def test_empty_and_header_only(put, name, pack):
    for data in (b'', b'\n \n', b'\xef\xbb\xbf', b'\xff\xfe'):
        assert 'is empty' in fails(put(pack(data), name))
    for data in (b'id,title', b'id,title\n,\n\n'): assert 'no listings' in fails(put(pack(data), name))


def test_damaged_packing(put, tmp_path):
    whole = gzip.compress(b'id\n' + bytes(range(32, 127))*9)
    for data in (b'id\n1\n', whole[:-12], whole[:20] + b'\xff\xff' + whole[22:]):
        assert "can't be read" in fails(put(data, 'a.csv.gz'))
    assert "can't be read" in fails(put('id\n1\n', 'a.zip'))
    for inside in ([], ['a.txt'], ['a.csv', 'b.csv']):
        with zipfile.ZipFile(tmp_path/'b.zip', 'w') as z:
            for entry in inside: z.writestr(entry, 'id\n1\n')
        msg = fails(tmp_path/'b.zip')
        assert f"holds {sum(entry.endswith('.csv') for entry in inside)} tables" in msg
        assert all(entry in msg for entry in inside)
    with zipfile.ZipFile(tmp_path/'c.zip', 'w') as z: z.writestr('a.csv', 'id\n1\n')
    data = bytearray((tmp_path/'c.zip').read_bytes())
    for start, flags in [(b'PK\3\4', 6), (b'PK\1\2', 8)]: data[data.index(start) + flags] |= 1
    assert 'encrypted' in fails(put(bytes(data), 'c.zip'))


def test_other_encodings_are_named_with_line_and_reading(put):
    path = put('id,title\r\n1,"two\r\nlines"\r\n2,Café crème\r\n'.encode('cp1252'))
    msg = fails(path)
    assert 'line 4: not utf-8' in msg and 'byte 0xe9; with --encoding cp1252 it reads' in msg
    assert "'2,Café crème'" in msg
    assert cells(read_table(path, encoding='cp1252'))[1] == ['2', 'Café crème']
    assert "it reads '1,café'" in fails(put(b'id,title\n1,caf\xe9\n'))
    path = put(b'id,title\n1,\x81\xe9t\xe9\n')  # 0x81 stands for nothing in cp1252
    assert '--encoding latin-1' in fails(path) and '--encoding latin-1' in fails(path, encoding='cp1252')
    assert 'line 2' in fails(path) and read_table(path, encoding='latin-1').title[0] == '\x81été'
    path = put('id,title\n1,été\n')
    assert "--encoding utf-8 it reads '1,été'" in fails(path, encoding='ascii')
    with pytest.raises(InputError, match="encoding='utf-9' is none"): read_table(path, encoding='utf-9')
    with pytest.raises(InputError, match="encoding='hex' is none"): read_table(path, encoding='hex')


def test_a_byte_order_mark_has_the_last_word(put):
    for bom, encoding in [
        (codecs.BOM_UTF8, 'utf-8'),
        (codecs.BOM_UTF16_LE, 'utf-16-le'),
        (codecs.BOM_UTF16_BE, 'utf-16-be'),
    ]:
        path = put(bom + 'id;title\n1;été\n'.encode(encoding))
        for other in ('utf-8', 'cp1252'): assert cells(read_table(path, encoding=other)) == [['1', 'été']]
    assert fails(put('id\n1\n2'.encode('utf-16')[:-1])).endswith('line 3: not utf-16 (truncated data)')


def test_nul_bytes(put):
    assert 'line 3: a NUL byte' in fails(put('id,title\n1,tea\n2,t\0ea\n'))
    assert 'line 2: a NUL byte' in fails(put('id,title\n1,\0\n'.encode('utf-16')))
    assert 'line 1: a NUL byte' in fails(put(b'PK\x03\x04\xe9\x00\x00'))  # a spreadsheet with another name
    path = put('id,title\n1,été\n'.encode('utf-16-le'))
    assert '--encoding utf-16-le' in fails(path)
    assert cells(read_table(path, encoding='utf-16-le')) == [['1', 'été']]


@pytest.mark.parametrize('rows, line', [
    ('1,"tea\n2,coffee\n', 2),                        # to the end of the file
    ('1,"two\nlines"\n2,tea\n3,"cof\nfee\n', 5),      # lines as an editor counts them, not rows
    ('1,tea\n\n2,"tea\n3,"coffee"\n4,x\n', 4),        # two stray quotes would merge rows
    ('1,"5" nails"\n', 2), ('1,"5\\" nails"\n', 2),   # not doubled
])
def test_unbalanced_quotes(put, rows, line):
    assert f'unbalanced quotes in the row that begins on line {line} ' in fails(put('id,title\n' + rows))


def test_quotes_that_are_no_fault(put):
    df = read_table(put('id,title\n1,5" nails\n2,"5"" nails"\n3,"""best"" tea"\n'))
    assert df.title.tolist() == ['5" nails', '5" nails', '"best" tea']


def test_too_many_cells(put):
    msg = fails(put('id,title\n1,"two\nlines"\n\n2,tea, green\n3,x\n' + '4,a,b,c\n'*9))
    assert "header has 2 cells, line 5 has 3, line 7 has 4" in msg and 'and 5 more' in msg and "','" in msg
    # no column turns into an index
    assert 'line 2 has 3, line 3 has 3' in fails(put('id,title\n1,a,b\n2,a,b\n'))


def test_a_repeated_column(put):
    assert "more than one column named 'title', 'x'" in fails(put('title,id,x, title,x\na,1,2,3,4\n'))
    assert read_table(put(',id,\n0,1,2\n')).columns.tolist() == ['Unnamed: 0', 'id', 'Unnamed: 2']


# parquet

def test_parquet_without_its_reader(put, monkeypatch):
    class Absent:
        def find_spec(self, name, *args):
            if name == 'pyarrow': raise ModuleNotFoundError(name=name)

    for module in ('pyarrow', 'pyarrow.parquet'): monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, 'meta_path', [Absent(), *sys.meta_path])
    with pytest.raises(MissingPackage, match='pip install pyarrow'): read_table(put(b'PAR1', 'a.parquet'))


@pytest.fixture
def pa():
    pytest.importorskip('pyarrow', reason='reading parquet needs pyarrow')
    import pyarrow.parquet
    return pyarrow


def test_parquet_columns_come_as_text(pa, tmp_path):
    big, path = 2**60 + 1, tmp_path/'fold=7'/'a.parquet'  # the folder's name is no column
    path.parent.mkdir()
    pa.parquet.write_table(pa.table(dict(
        id=['0012', 'NA', ''], sku=pa.array([big, None, 3]), label=pa.array([1e9, None, 2.5]),
        group=pa.array(['a', 'a', None]).dictionary_encode(), fold=pa.array([0, 1, 2], type=pa.int8()),
        price=pa.array([1.5, float('nan'), 2], type=pa.float32()))), path)
    df = read_table(path)
    assert cells(df) == [
        ['0012', str(big), '1000000000', 'a', '0', '1.5'],
        ['NA', None, None, 'a', '1', None],
        ['', '3', '2.5', None, '2', '2'],
    ]
    assert df.columns.tolist() == ['id', 'sku', 'label', 'group', 'fold', 'price']


def test_an_index_written_to_parquet_stays_a_column(pa, tmp_path):
    pd.DataFrame(dict(title=['tea', 'milk'], posting_id=['1', '2'])).set_index('posting_id').to_parquet(
        tmp_path / 'a.parquet'
    )
    df = read_table(tmp_path/'a.parquet')
    assert recognise(df).id == 'posting_id' and df.posting_id.tolist() == ['1', '2']
    assert isinstance(df.index, pd.RangeIndex)


def test_a_parquet_and_a_csv_of_the_same_table_are_equal(pa, put, tmp_path):
    pd.DataFrame(dict(id=[1, 2], title=['tea', None])).to_parquet(tmp_path/'a.parquet')
    pd.testing.assert_frame_equal(read_table(tmp_path/'a.parquet'), read_table(put('id,title\n1,tea\n2,\n')))


def test_a_parquet_that_is_none(pa, put, tmp_path):
    pa.parquet.write_table(pa.table(dict(id=['1']*99, title=['x'*50]*99)), tmp_path/'a.parquet')
    whole = (tmp_path/'a.parquet').read_bytes()
    for data in (b'', b'id,title\n1,tea\n', whole[:-9], whole[:8] + b'\xff'*60 + whole[68:]):
        assert "can't be read as parquet" in fails(put(data, 'b.parquet'))
    pa.parquet.write_table(
        pa.table([pa.array(['1']), pa.array(['2'])], names=['id', 'id']), tmp_path / 'c.parquet'
    )
    assert "more than one column named 'id'" in fails(tmp_path/'c.parquet')
    pa.parquet.write_table(pa.table(dict(id=pa.array([], type=pa.string()))), tmp_path/'d.parquet')
    assert 'no listings' in fails(tmp_path/'d.parquet')


# columns

def table(*names):
    return pd.DataFrame([[f'{name} {i}' for name in names] for i in range(2)], columns=list(names))


def test_every_usual_name_is_found_and_the_first_wins():
    for role, names in USUAL.items():
        names = names.split()
        for i, name in enumerate(names):
            for typed in (name, name.upper(), name.replace('_', ' ').title(), name.replace('_', '-')):
                assert getattr(recognise(table('x', typed), required=()), role) == typed
            assert getattr(recognise(table(*names[i:][::-1]), required=()), role) == name
    names = ' '.join(USUAL.values()).split()
    assert len(set(names)) == len(names)  # else a column could play two roles


def test_near_but_other_names_play_no_role():
    assert recognise(
        table('id2', 'image_url', 'subtitle', 'labels2', 'folder', 'Unnamed: 0'), required=()
    ) == Columns(*[None] * 6)


def test_a_name_spelled_as_usual_beats_another_case():
    assert recognise(table('ID', 'id', 'Title', 'TITLE')) == Columns('id', None, 'Title', None, None, None)


def test_given_columns_win_and_play_no_second_role():
    df = table('posting_id', 'code', 'product', 'title')
    cols = recognise(df, id_col='code', text_col='product')
    assert cols == Columns('code', None, 'product', None, None, None)
    assert recognise(df, label_col='title').title is None


def test_a_given_column_must_exist():
    with pytest.raises(InputError) as e:
        recognise(table('posting_id', 'Titel', 'x'), text_col='title', fold_col='zzz')
    assert (
        "title_col='title' (did you mean 'Titel'?), fold_col='zzz'; its columns are: posting_id, Titel, x"
        in str(e.value)
    )


def test_a_required_role_without_a_column():
    with pytest.raises(InputError) as e:
        recognise(table('code', 'title'), required=('id_col', 'text_col', 'fn_col'))
    msg = str(e.value)
    assert (
        '--id-col; looked for posting_id' in msg
        and '--image-col; looked for' in msg
        and '--title-col' not in msg
        and 'code, title' in msg
    )
    assert recognise(table('code', 'title'), required=()).id is None
    with pytest.raises(InputError, match="required=sku: choose from id, image"):
        recognise(table('id'), required=('sku',))


def test_a_frame_with_a_column_twice_and_no_frame():
    twice = pd.concat([table('id', 'title'), table('title')], axis=1)
    with pytest.raises(InputError, match='more than one column named title'): recognise(twice)
    assert recognise(pd.concat([twice[['id']], table('x'), table('x')], axis=1)).id == 'id'
    with pytest.raises(InputError, match='is a str'): recognise('listings.csv')


def test_titles_beyond_all_measure(put):
    df = read_table(
        put(
            'id,title,html\na,tea,\nb,'
            + 'x' * 10_000_000
            + ',\nc,,'
            + 'y' * 20_000
            + '\nd,'
            + 'z' * 10_001
            + ',\n'
        )
    )
    with pytest.raises(InputError) as e: recognise(df)
    msg = str(e.value)
    assert "header): row 1 (id 'b'): 10000000 characters, row 3 (id 'd'): 10001 characters" in msg
    assert 'title has titles of more than max_title=10000 ' in msg and 'counted from 0' in msg
    assert len(msg) < 400
    assert recognise(df[df.id.isin(['a', 'c'])]).title == 'title'  # a long cell elsewhere is no fault
    assert recognise(df, max_title=None).title == 'title'
    with pytest.raises(InputError, match='row 1: 10000000 characters'):
        recognise(df.drop(columns='id'), required=())
    assert recognise(df.iloc[[3]], max_title=10_001).title == 'title'


# titles

@pytest.mark.parametrize(
    'title, want',
    [
        (HEART, '❤'),
        (f'a {HEART}{HEART} b', 'a ❤❤ b'),
        (r'\xE2\x9D\xA4', '❤'),
        (r'caf\xc3\xa9', 'café'),
        ('❤', '❤'),
        ('', ''),
        (r'\xff', r'\xff'),
        (r'\xe2\x9d', r'\xe2\x9d'),
        (r'\xe2\x9d\xa4\xff', r'\xe2\x9d\xa4\xff'),  # a run that isn't UTF-8 stays
        (rf'\xff {HEART}', r'\xff ❤'),
        (r'\xe2\x9', r'\xe2\x9'),
        (r'\x', r'\x'),
        (r'x\n', r'x\n'),
        (r'\u2764', r'\u2764'),
        (rf"b'{HEART} tea'", '❤ tea'),
        (f'b"{HEART}"', '❤'),
        ("b''", ''),
        ("b'", "b'"),
        ("b'a\"", "b'a\""),
        ("ab'a'", "ab'a'"),
        ("b'a' b", "b'a' b"),
        (r"b'it\'s \"5\\x41\"'", r'''it's "5\x41"'''),
        (r"b'\xff'", r'\xff'),
        ("b'é'", 'é'),
        ("b'a\nb'", 'a\nb'),
    ],
)
def test_unescape(title, want):
    assert unescape(pd.Series([title])).tolist() == [want]


@given(text)
def test_unescape_undoes_what_python_prints_for_bytes(title):
    assert unescape(pd.Series([repr(title.encode())])).tolist() == [title]


@given(st.text(st.characters(min_codepoint=128, exclude_categories=['Cs'])))
def test_unescape_undoes_a_run_without_its_wrapper(title):
    assert unescape(pd.Series([f'x {repr(title.encode())[2:-1]} y', title])).tolist() == [
        f'x {title} y',
        title,
    ]


def test_unescape_keeps_index_and_missing_titles():
    titles = pd.Series([HEART, None, float('nan'), 'tea'], index=[3, 1, 7, 5], name='title')
    got = unescape(titles)
    assert got.index.tolist() == [3, 1, 7, 5] and got.name == 'title'
    assert got.isna().tolist() == [False, True, True, False]
    assert titles[3] == HEART and got[3] == '❤' and unescape(titles.iloc[:0]).tolist() == []


def test_reading_a_table_needs_no_torch():
    code = ("import sys, fastmatch.data.table; "
            "print([name for name in ('torch', 'fastai', 'pyarrow.parquet', 'openpyxl') "
            "if name in sys.modules])")
    assert (
        subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == '[]'
    )


def test_the_sample_is_read_whole():
    path = demo_path()
    df = read_table(path/'listings.csv')
    cols = recognise(df)
    assert cols == Columns('posting_id', 'image', 'title', 'label_group', 'fold', None)
    pd.testing.assert_frame_equal(
        df, pd.read_csv(path / 'listings.csv', dtype=str, keep_default_na=False), check_dtype=False
    )
    want = check_listings(pd.read_csv(path/'listings.csv'), path/'images', Columns(fold='fold')).df
    got = check_listings(df, path/'images', cols).df
    assert got.fold.tolist() == want.fold.tolist() and got.posting_id.tolist() == want.posting_id.tolist()
