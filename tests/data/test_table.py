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
def write_file(tmp_path):
    "Write text (as UTF-8) or bytes to a file and hand back its path."
    def write(content, file_name='listings.csv'):
        path = tmp_path/file_name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return write


def fails(path, **kwargs):
    "The message with which reading `path` ends; it names the file."
    with pytest.raises(InputError) as raised: read_table(path, **kwargs)
    assert str(path) in str(raised.value)
    return str(raised.value)


def cells(listings):
    return [[None if pd.isna(cell) else cell for cell in row] for row in listings.to_numpy().tolist()]


# what is read

def test_a_shopee_table_works_as_it_is(write_file):
    path = write_file(SHOP + 'train_101,0a1b.jpg,94f0c3a51e2b6d78,Tas kertas polos,249000001\n'
                      rf'train_102,0a1c.jpg,af00c2e19d3b5a64,"Selotip 5 cm, {HEART}",2900000002' '\n'
                      r'''train_103,0a1d.jpg,1e50000000000000,"b'Caf\xc3\xa9 TTS'",2300000003''' '\n'
                      r'''train_104,0a1e.jpg,85c1fc58a9e2b073,"b""Kopi \xc3\x89clair's""",0004000004''' '\n')
    listings = read_table(path)
    columns = recognise(listings, required=('id_col', 'fn_col', 'text_col', 'label_col'))
    assert columns == Columns('posting_id', 'image', 'title', 'label_group', None, 'image_phash')
    listings[columns.title] = unescape(listings[columns.title])
    assert listings.title.tolist() == ['Tas kertas polos', 'Selotip 5 cm, ❤', 'Café TTS', "Kopi Éclair's"]
    assert listings.posting_id.tolist()[2] == 'train_103'
    assert listings.image_phash.tolist()[2] == '1e50000000000000'
    assert listings.label_group.tolist() == ['249000001', '2900000002', '2300000003', '0004000004']
    checked = check_listings(listings, text_col=columns.title, label_col=columns.group, id_col=columns.id)
    assert len(checked.df) == 4


def test_cells_stay_as_they_were_typed(write_file):
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
    header = [f'c{number}' for number in range(12)]
    listings = read_table(write_file(','.join(header) + '\n' + ','.join(row) + '\n'))
    assert cells(listings) == [row] and listings.columns.tolist() == header


def test_only_empty_cells_are_missing_and_only_empty_rows_left_out(write_file):
    listings = read_table(write_file('\nid, title ,\n\n1,,x\n2,""\n,,\n 3\n\n'))
    assert cells(listings) == [['1', None, 'x'], ['2', None, None], [' 3', None, None]]
    assert cells(read_table(write_file('id,title,x\n1,a\n2\n'))) == [['1', 'a', None], ['2', None, None]]
    assert listings.columns.tolist() == ['id', 'title', 'Unnamed: 2']
    assert isinstance(listings.index, pd.RangeIndex)


text = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0\r'))


@given(st.lists(st.tuples(text.filter(bool), text), min_size=1), st.sampled_from([',', ';', '\t']),
       st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
def test_what_a_csv_writer_wrote_comes_back(tmp_path_factory, rows, separator, encoding):
    path = tmp_path_factory.getbasetemp()/'round.csv'
    with path.open('w', newline='', encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows([('sku', 'title'), *rows])
    listings = read_table(path)
    assert cells(listings) == [[sku, title or None] for sku, title in rows]
    assert listings.columns.tolist() == ['sku', 'title']


@pytest.mark.parametrize('line_end', ['\n', '\r\n', '\r'])
def test_line_ends_of_every_system(write_file, line_end):
    path = write_file(line_end.join(['id;title', '1;a,b,c,d,e', f'2;"c;{line_end}d"']))
    assert cells(read_table(path)) == [['1', 'a,b,c,d,e'], ['2', f'c;{line_end}d']]
    message = fails(write_file(line_end.join(['id;title', '1;tea', '2;café', '3;x']).encode('cp1252')))
    assert 'line 3: not utf-8' in message and "it reads '2;café'" in message


def test_packed_and_tab_separated(write_file, tmp_path):
    expected = [['1', 'a, b']]
    comma_table = 'id,title\n1,"a, b"\n'
    tab_table = 'id\ttitle, long, clear\n1\ta, b\n'
    for table_text, kind in [(comma_table, 'CSV'), (tab_table, 'tsv')]:
        assert (
            cells(read_table(write_file(table_text, f'a.{kind}')))
            == cells(read_table(write_file(gzip.compress(table_text.encode()), f'a.{kind}.gz')))
            == expected
        )
    for table_name, table_text in [('train.csv', comma_table), ('in/train.TSV', tab_table)]:
        with zipfile.ZipFile(tmp_path/'a.zip', 'w') as archive:
            archive.writestr(table_name, table_text)
            for other in ('__MACOSX/._train.csv', 'readme.txt'): archive.writestr(other, 'x')
        assert cells(read_table(str(tmp_path/'a.zip'))) == expected


def test_the_size_limit_of_csv_is_as_before_and_does_not_bind(write_file):
    before = csv.field_size_limit()
    assert len(read_table(write_file('id,title\n1,' + 'x'*200_000 + '\n')).title[0]) == 200_000
    fails(write_file('id\n"'))
    assert csv.field_size_limit() == before


# what can't be read

def test_missing_folder_and_unknown_kinds(write_file, tmp_path):
    assert 'no such file' in fails(tmp_path/'gone.csv')
    (tmp_path/'dir.csv').mkdir()
    assert 'is a folder' in fails(tmp_path/'dir.csv')
    for file_name in ('a.xls', 'a.ods', 'a.txt', 'csv', 'a.gz'):
        assert '.csv, .tsv' in fails(write_file('id\n1\n', file_name))


@pytest.mark.parametrize('file_name, pack', [('a.csv', bytes), ('a.csv.gz', gzip.compress)])
def test_empty_and_header_only(write_file, file_name, pack):
    for content in (b'', b'\n \n', b'\xef\xbb\xbf', b'\xff\xfe'):
        assert 'is empty' in fails(write_file(pack(content), file_name))
    for content in (b'id,title', b'id,title\n,\n\n'):
        assert 'no listings' in fails(write_file(pack(content), file_name))


def test_damaged_packing(write_file, tmp_path):
    whole = gzip.compress(b'id\n' + bytes(range(32, 127))*9)
    for content in (b'id\n1\n', whole[:-12], whole[:20] + b'\xff\xff' + whole[22:]):
        assert "can't be read" in fails(write_file(content, 'a.csv.gz'))
    assert "can't be read" in fails(write_file('id\n1\n', 'a.zip'))
    for members in ([], ['a.txt'], ['a.csv', 'b.csv']):
        with zipfile.ZipFile(tmp_path/'b.zip', 'w') as archive:
            for member in members: archive.writestr(member, 'id\n1\n')
        message = fails(tmp_path/'b.zip')
        assert f"holds {sum(member.endswith('.csv') for member in members)} tables" in message
        assert all(member in message for member in members)
    with zipfile.ZipFile(tmp_path/'c.zip', 'w') as archive: archive.writestr('a.csv', 'id\n1\n')
    content = bytearray((tmp_path/'c.zip').read_bytes())
    for start, flags in [(b'PK\3\4', 6), (b'PK\1\2', 8)]: content[content.index(start) + flags] |= 1
    assert 'encrypted' in fails(write_file(bytes(content), 'c.zip'))


def test_other_encodings_are_named_with_line_and_reading(write_file):
    path = write_file('id,title\r\n1,"two\r\nlines"\r\n2,Café crème\r\n'.encode('cp1252'))
    message = fails(path)
    assert 'line 4: not utf-8' in message and 'byte 0xe9; with --encoding cp1252 it reads' in message
    assert "'2,Café crème'" in message
    assert cells(read_table(path, encoding='cp1252'))[1] == ['2', 'Café crème']
    assert "it reads '1,café'" in fails(write_file(b'id,title\n1,caf\xe9\n'))
    path = write_file(b'id,title\n1,\x81\xe9t\xe9\n')  # 0x81 stands for nothing in cp1252
    assert '--encoding latin-1' in fails(path) and '--encoding latin-1' in fails(path, encoding='cp1252')
    assert 'line 2' in fails(path) and read_table(path, encoding='latin-1').title[0] == '\x81été'
    path = write_file('id,title\n1,été\n')
    assert "--encoding utf-8 it reads '1,été'" in fails(path, encoding='ascii')
    with pytest.raises(InputError, match="encoding='utf-9' is none"): read_table(path, encoding='utf-9')
    with pytest.raises(InputError, match="encoding='hex' is none"): read_table(path, encoding='hex')


def test_a_byte_order_mark_has_the_last_word(write_file):
    for mark, encoding in [
        (codecs.BOM_UTF8, 'utf-8'),
        (codecs.BOM_UTF16_LE, 'utf-16-le'),
        (codecs.BOM_UTF16_BE, 'utf-16-be'),
    ]:
        path = write_file(mark + 'id;title\n1;été\n'.encode(encoding))
        for other in ('utf-8', 'cp1252'): assert cells(read_table(path, encoding=other)) == [['1', 'été']]
    assert fails(write_file('id\n1\n2'.encode('utf-16')[:-1])).endswith('line 3: not utf-16 (truncated data)')


def test_nul_bytes(write_file):
    assert 'line 3: a NUL byte' in fails(write_file('id,title\n1,tea\n2,t\0ea\n'))
    assert 'line 2: a NUL byte' in fails(write_file('id,title\n1,\0\n'.encode('utf-16')))
    # a spreadsheet with another name
    assert 'line 1: a NUL byte' in fails(write_file(b'PK\x03\x04\xe9\x00\x00'))
    path = write_file('id,title\n1,été\n'.encode('utf-16-le'))
    assert '--encoding utf-16-le' in fails(path)
    assert cells(read_table(path, encoding='utf-16-le')) == [['1', 'été']]


@pytest.mark.parametrize('rows, line', [
    ('1,"tea\n2,coffee\n', 2),                        # to the end of the file
    ('1,"two\nlines"\n2,tea\n3,"cof\nfee\n', 5),      # lines as an editor counts them, not rows
    ('1,tea\n\n2,"tea\n3,"coffee"\n4,x\n', 4),        # two stray quotes would merge rows
    ('1,"5" nails"\n', 2), ('1,"5\\" nails"\n', 2),   # not doubled
])
def test_unbalanced_quotes(write_file, rows, line):
    message = fails(write_file('id,title\n' + rows))
    assert f'unbalanced quotes in the row that begins on line {line} ' in message


def test_quotes_that_are_no_fault(write_file):
    listings = read_table(write_file('id,title\n1,5" nails\n2,"5"" nails"\n3,"""best"" tea"\n'))
    assert listings.title.tolist() == ['5" nails', '5" nails', '"best" tea']


def test_too_many_cells(write_file):
    message = fails(write_file('id,title\n1,"two\nlines"\n\n2,tea, green\n3,x\n' + '4,a,b,c\n'*9))
    assert "header has 2 cells, line 5 has 3, line 7 has 4" in message and 'and 5 more' in message
    assert "','" in message
    # blanks before a quote make it a part of the cell
    assert "no blank between ','" in fails(write_file('id,title\n1,x\n2, "a, b"\n'))
    # no column turns into an index
    assert 'line 2 has 3, line 3 has 3' in fails(write_file('id,title\n1,a,b\n2,a,b\n'))


@pytest.mark.parametrize('above', ['My listings\n', '# exported, 2024\n', 'My listings\n\n'])
def test_a_line_above_the_header_is_told(write_file, above):
    message = fails(write_file(above + 'id,title,price\n1,tea,2\n'))
    assert 'Is ' in message and 'Delete what stands above the header' in message and '"..."' not in message


@pytest.mark.parametrize('content', [
    'sep=;\nid;title\n1;tea, green\n', 'sep=;;\r\nid;title\r\n1;tea, green\r\n',
    '"SEP=|"\nid|title\n1|tea, green\n', 'sep=\t\nid\ttitle\n1\ttea, green\n',
    'id|title\n1|tea, green\n', 'id,title\n1,"tea, green",,\n', '"id";"title"\n1;tea, green;\n'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'])
def test_what_a_spreadsheet_exports(write_file, content, encoding):
    assert cells(read_table(write_file(content.encode(encoding)))) == [['1', 'tea, green']]
    assert cells(read_table(write_file(gzip.compress(content.encode(encoding)), 'a.csv.gz'))) == [
        ['1', 'tea, green']]


def test_separators_in_a_quoted_header_and_lines_behind_a_separator_line(write_file):
    listings = read_table(write_file('"id";"title, as, shown, here"\n1;tea\n'))
    assert listings.columns.tolist() == ['id', 'title, as, shown, here']
    assert 'line 4 has 3' in fails(write_file('sep=;\nid;title\n1;tea\n2;tea;green\n'))
    assert fails(write_file('sep=;\n')).endswith('is empty')
    # a column may be called so
    assert read_table(write_file('sep,id\n1,2\n')).columns.tolist() == ['sep', 'id']


def test_a_repeated_column(write_file):
    assert "more than one column named 'title', 'x'" in fails(write_file('title,id,x, title,x\na,1,2,3,4\n'))
    assert read_table(write_file(',id,\n0,1,2\n')).columns.tolist() == ['Unnamed: 0', 'id', 'Unnamed: 2']


# parquet

def test_parquet_without_its_reader(write_file, monkeypatch):
    class Absent:
        def find_spec(self, name, *args):
            if name == 'pyarrow': raise ModuleNotFoundError(name=name)

    for module in ('pyarrow', 'pyarrow.parquet'): monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, 'meta_path', [Absent(), *sys.meta_path])
    with pytest.raises(MissingPackage, match='pip install pyarrow'):
        read_table(write_file(b'PAR1', 'a.parquet'))


@pytest.fixture
def pyarrow():
    pytest.importorskip('pyarrow', reason='reading parquet needs pyarrow')
    import pyarrow.parquet
    return pyarrow


def test_parquet_columns_come_as_text(pyarrow, tmp_path):
    big_number, path = 2**60 + 1, tmp_path/'fold=7'/'a.parquet'  # the folder's name is no column
    path.parent.mkdir()
    pyarrow.parquet.write_table(pyarrow.table(dict(
        id=['0012', 'NA', ''],
        sku=pyarrow.array([big_number, None, 3]),
        label=pyarrow.array([1e9, None, 2.5]),
        group=pyarrow.array(['a', 'a', None]).dictionary_encode(),
        fold=pyarrow.array([0, 1, 2], type=pyarrow.int8()),
        price=pyarrow.array([1.5, float('nan'), 2], type=pyarrow.float32()))), path)
    listings = read_table(path)
    assert cells(listings) == [
        ['0012', str(big_number), '1000000000', 'a', '0', '1.5'],
        ['NA', None, None, 'a', '1', None],
        ['', '3', '2.5', None, '2', '2'],
    ]
    assert listings.columns.tolist() == ['id', 'sku', 'label', 'group', 'fold', 'price']


def test_an_index_written_to_parquet_stays_a_column(pyarrow, tmp_path):
    pd.DataFrame(dict(title=['tea', 'milk'], posting_id=['1', '2'])).set_index('posting_id').to_parquet(
        tmp_path / 'a.parquet'
    )
    listings = read_table(tmp_path/'a.parquet')
    assert recognise(listings).id == 'posting_id' and listings.posting_id.tolist() == ['1', '2']
    assert isinstance(listings.index, pd.RangeIndex)


def test_a_parquet_and_a_csv_of_the_same_table_are_equal(pyarrow, write_file, tmp_path):
    pd.DataFrame(dict(id=[1, 2], title=['tea', None])).to_parquet(tmp_path/'a.parquet')
    csv_path = write_file('id,title\n1,tea\n2,\n')
    pd.testing.assert_frame_equal(read_table(tmp_path/'a.parquet'), read_table(csv_path))


def test_a_parquet_that_is_none(pyarrow, write_file, tmp_path):
    pyarrow.parquet.write_table(pyarrow.table(dict(id=['1']*99, title=['x'*50]*99)), tmp_path/'a.parquet')
    whole = (tmp_path/'a.parquet').read_bytes()
    for content in (b'', b'id,title\n1,tea\n', whole[:-9], whole[:8] + b'\xff'*60 + whole[68:]):
        assert "can't be read as parquet" in fails(write_file(content, 'b.parquet'))
    twice = pyarrow.table([pyarrow.array(['1']), pyarrow.array(['2'])], names=['id', 'id'])
    pyarrow.parquet.write_table(twice, tmp_path/'c.parquet')
    assert "more than one column named 'id'" in fails(tmp_path/'c.parquet')
    no_rows = pyarrow.table(dict(id=pyarrow.array([], type=pyarrow.string())))
    pyarrow.parquet.write_table(no_rows, tmp_path/'d.parquet')
    assert 'no listings' in fails(tmp_path/'d.parquet')


# columns

def table(*names):
    return pd.DataFrame([[f'{name} {number}' for name in names] for number in range(2)], columns=list(names))


def test_every_usual_name_is_found_and_the_first_wins():
    for role, names in USUAL.items():
        names = names.split()
        for position, name in enumerate(names):
            for typed in (name, name.upper(), name.replace('_', ' ').title(), name.replace('_', '-')):
                assert getattr(recognise(table('x', typed), required=()), role) == typed
            assert getattr(recognise(table(*names[position:][::-1]), required=()), role) == name
    names = ' '.join(USUAL.values()).split()
    assert len(set(names)) == len(names)  # else a column could play two roles


def test_near_but_other_names_play_no_role():
    assert recognise(
        table('id2', 'image_url', 'subtitle', 'labels2', 'folder', 'Unnamed: 0'), required=()
    ) == Columns(*[None] * 6)


def test_a_name_spelled_as_usual_beats_another_case():
    assert recognise(table('ID', 'id', 'Title', 'TITLE')) == Columns('id', None, 'Title', None, None, None)


def test_given_columns_win_and_play_no_second_role():
    listings = table('posting_id', 'code', 'product', 'title')
    columns = recognise(listings, id_col='code', text_col='product')
    assert columns == Columns('code', None, 'product', None, None, None)
    assert recognise(listings, label_col='title').title is None


def test_a_given_column_must_exist():
    with pytest.raises(InputError) as raised:
        recognise(table('posting_id', 'Titel', 'x'), text_col='title', fold_col='zzz')
    assert (
        "title_col='title' (did you mean 'Titel'?), fold_col='zzz'; its columns are: posting_id, Titel, x"
        in str(raised.value)
    )


def test_a_required_role_without_a_column():
    with pytest.raises(InputError) as raised:
        recognise(table('code', 'title'), required=('id_col', 'text_col', 'fn_col'))
    message = str(raised.value)
    assert (
        '--id-col; looked for posting_id' in message
        and '--image-col; looked for' in message
        and '--title-col' not in message
        and 'code, title' in message
    )
    assert recognise(table('code', 'title'), required=()).id is None
    with pytest.raises(InputError, match="required=sku: choose from id, image"):
        recognise(table('id'), required=('sku',))


def test_a_frame_with_a_column_twice_and_no_frame():
    twice = pd.concat([table('id', 'title'), table('title')], axis=1)
    with pytest.raises(InputError, match='more than one column named title'): recognise(twice)
    assert recognise(pd.concat([twice[['id']], table('x'), table('x')], axis=1)).id == 'id'
    with pytest.raises(InputError, match='is a str'): recognise('listings.csv')


def test_titles_beyond_all_measure(write_file):
    listings = read_table(
        write_file(
            'id,title,html\na,tea,\nb,'
            + 'x' * 10_000_000
            + ',\nc,,'
            + 'y' * 20_000
            + '\nd,'
            + 'z' * 10_001
            + ',\n'
        )
    )
    with pytest.raises(InputError) as raised: recognise(listings)
    message = str(raised.value)
    assert "header): row 1 (id 'b'): 10000000 characters, row 3 (id 'd'): 10001 characters" in message
    assert 'title has titles of more than max_title=10000 ' in message and 'counted from 0' in message
    assert len(message) < 400
    # a long cell elsewhere is no fault
    assert recognise(listings[listings.id.isin(['a', 'c'])]).title == 'title'
    assert recognise(listings, max_title=None).title == 'title'
    with pytest.raises(InputError, match='row 1: 10000000 characters'):
        recognise(listings.drop(columns='id'), required=())
    assert recognise(listings.iloc[[3]], max_title=10_001).title == 'title'


# titles

@pytest.mark.parametrize(
    'title, expected',
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
def test_unescape(title, expected):
    assert unescape(pd.Series([title])).tolist() == [expected]


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
    unescaped = unescape(titles)
    assert unescaped.index.tolist() == [3, 1, 7, 5] and unescaped.name == 'title'
    assert unescaped.isna().tolist() == [False, True, True, False]
    assert titles[3] == HEART and unescaped[3] == '❤' and unescape(titles.iloc[:0]).tolist() == []


def test_reading_a_table_needs_no_torch():
    program = ("import sys, fastmatch.data.table; "
               "print([name for name in ('torch', 'fastai', 'pyarrow.parquet', 'openpyxl') "
               "if name in sys.modules])")
    assert (
        subprocess.run(
            [sys.executable, '-c', program], capture_output=True, text=True, check=True
        ).stdout.strip()
        == '[]'
    )


def test_the_sample_is_read_whole():
    folder = demo_path()
    listings = read_table(folder/'listings.csv')
    columns = recognise(listings)
    assert columns == Columns('posting_id', 'image', 'title', 'label_group', 'fold', None)
    pd.testing.assert_frame_equal(
        listings, pd.read_csv(folder / 'listings.csv', dtype=str, keep_default_na=False), check_dtype=False
    )
    expected = check_listings(pd.read_csv(folder/'listings.csv'), folder/'images', Columns(fold='fold')).df
    checked = check_listings(listings, folder/'images', columns).df
    assert checked.fold.tolist() == expected.fold.tolist()
    assert checked.posting_id.tolist() == expected.posting_id.tolist()
