"Spreadsheets come back cell by cell as text; what can't be read is named by file, sheet or column."
import datetime
import sys

import pandas as pd
import pytest

from fastmatch.core import InputError, MissingPackage
from fastmatch.data.table import read_table, recognise

openpyxl = pytest.importorskip('openpyxl', reason='reading .xlsx needs openpyxl')


def write(path, *sheets):
    "A spreadsheet with these sheets: (name, rows)."
    book = openpyxl.Workbook()
    book.remove(book.active)
    for sheet_name, rows in sheets:
        sheet = book.create_sheet(sheet_name)
        for row in rows: sheet.append(row)
    book.save(path)
    return path


def fails(path):
    "The message with which reading `path` ends; it names the file."
    with pytest.raises(InputError) as error: read_table(path)
    assert str(path) in str(error.value)
    return str(error.value)


def cells(listings):
    return [[None if pd.isna(cell) else cell for cell in row] for row in listings.to_numpy().tolist()]


def test_cells_are_text_as_they_stand(tmp_path):
    day = datetime.datetime(2024, 3, 1)
    path = write(tmp_path/'a.xlsx', ('Sheet1', [
        ['posting_id', ' title ', 'price', 'day', 'sold'],
        ['0012', 'NA', 12, day, True], ['null', 'tea, "green"\nleaf', 1.5, None, False],
        [1234567890123, None, 3.0, '1/2', 'nan'], ['é ☕', '', '007', None, None]]))
    listings = read_table(path)
    assert listings.columns.tolist() == ['posting_id', 'title', 'price', 'day', 'sold']
    assert cells(listings) == [
        ['0012', 'NA', '12', '2024-03-01 00:00:00', 'True'],
        ['null', 'tea, "green"\nleaf', '1.5', None, 'False'],
        ['1234567890123', None, '3', '1/2', 'nan'],
        ['é ☕', None, '007', None, None],
    ]
    assert recognise(listings).title == 'title' and isinstance(listings.index, pd.RangeIndex)


def test_a_spreadsheet_and_a_csv_of_the_same_table_are_equal(tmp_path):
    (tmp_path/'a.csv').write_text('id,title\n1,tea\n2,\n')
    path = write(tmp_path/'A.XLSX', ('x', [['id', 'title'], [1, 'tea'], [2, None]]))
    pd.testing.assert_frame_equal(read_table(path), read_table(tmp_path/'a.csv'), check_dtype=False)
    assert cells(read_table(str(path))) == [['1', 'tea'], ['2', None]]


def test_empty_rows_are_left_out_and_columns_without_a_name_kept(tmp_path):
    rows = [[], [None, None], ['id', None, 'title'], [None], [1, 'x', 'tea'], [], [2, None, 'milk']]
    listings = read_table(write(tmp_path/'a.xlsx', ('x', rows)))
    assert listings.columns.tolist() == ['id', 'Unnamed: 1', 'title']
    assert cells(listings) == [['1', 'x', 'tea'], ['2', None, 'milk']]


def test_only_one_sheet_may_hold_something(tmp_path):
    table = [['id', 'title'], [1, 'tea']]
    path = write(tmp_path/'a.xlsx', ('notes', []), ('listings', table), ('Sheet3', [[None, None]]))
    listings = read_table(path)
    assert cells(listings) == [['1', 'tea']]
    message = fails(write(tmp_path/'b.xlsx', ('January', table), ('empty', []), ('May', table)))
    assert "2 sheets" in message and "'January', 'May'" in message and 'empty' not in message


def test_the_values_of_formulas_are_read_and_errors_are_missing(tmp_path):
    path = write(
        tmp_path / 'a.xlsx', ('x', [['id', 'title', 'price'], [1, 'tea', '=1+1'], [2, 'milk', '#N/A']])
    )
    # nobody has computed the formula: a program that shows spreadsheets stores its value beside it
    assert cells(read_table(path)) == [['1', 'tea', None], ['2', 'milk', None]]


def test_empty_and_header_only(tmp_path):
    assert 'is empty' in fails(write(tmp_path/'a.xlsx', ('x', []), ('y', [[None]])))
    assert 'has a header but no listings' in fails(write(tmp_path/'b.xlsx', ('x', [['id', 'title'], [None]])))


def test_a_repeated_column(tmp_path):
    path = write(tmp_path/'a.xlsx', ('x', [['title', 'id', 'title '], ['a', 1, 'b']]))
    assert "more than one column named 'title'" in fails(path)
    listings = read_table(write(tmp_path/'b.xlsx', ('x', [['id', '#N/A', 'title'], [1, 2, 'tea']])))
    assert listings.columns.tolist() == ['id', 'Unnamed: 1', 'title']


def test_damaged_files(tmp_path):
    whole = write(tmp_path/'a.xlsx', ('x', [['id'], *([number] for number in range(99))])).read_bytes()
    for content in (
        b'',
        b'id,title\n1,tea\n',
        whole[:-200],
        whole[: len(whole) // 2],
        b'\xd0\xcf\x11\xe0' + b'\0' * 600,
    ):
        (tmp_path/'b.xlsx').write_bytes(content)
        assert "can't be read as a spreadsheet" in fails(tmp_path/'b.xlsx')


def test_a_spreadsheet_without_its_reader(tmp_path, monkeypatch):
    path = write(tmp_path/'a.xlsx', ('x', [['id'], [1]]))

    class Absent:
        "Finds no openpyxl."
        def find_spec(self, name, *args):
            if name.split('.')[0] == 'openpyxl': raise ModuleNotFoundError(name=name)

    for name in [name for name in sys.modules if name.split('.')[0] == 'openpyxl']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [Absent(), *sys.meta_path])
    with pytest.raises(MissingPackage, match=r'pip install "fastmatch\[excel\]"'): read_table(path)
