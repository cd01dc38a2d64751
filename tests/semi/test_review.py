"The table that a person fills in: written, filled in, read back; every row that can't be used is named."
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.semi.review import read_corrections, write_review

ITEMS = pd.DataFrame({'posting_id': [1, 2, 3, 4, 5], 'label': ['cat', 'cat', 'dog', 'fox', None],
                      'title': ['a', 'b', 'c', 'd', 'é, "e"']})
SUSPECTS = pd.DataFrame({'id': ['2', '3'], 'given': ['cat', 'dog'], 'suggested': ['dog', 'cat'],
                         'suspicion': [3., 1.], 'confused': [1, 1]})
WANTED = pd.DataFrame({'id': ['5', '2'], 'uncertainty': [.9, .8]})


def filled(tmp_path, **cells):
    "A written table with cells filled in: `correct=` and `leave_out=` by row; the file."
    file = tmp_path/'review.csv'
    write_review(file, ITEMS, SUSPECTS, WANTED, show=['title'])
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column, of_rows in cells.items():
        for row, cell in of_rows.items(): table.loc[row, column] = cell
    table.to_csv(file, index=False)
    return file


def test_there_and_back(tmp_path):
    table = write_review(tmp_path/'first.csv', ITEMS, SUSPECTS, WANTED, show=['title'])
    assert table.posting_id.tolist() == ['2', '3', '5'] and table.suggested.tolist()[:2] == ['dog', 'cat']
    assert table.why[0] == 'dog is 20.1 times likelier (1 of cat taken for it)'
    assert table.why[2] == 'no label, uncertainty 0.90' and table.title[2] == 'é, "e"'
    file = filled(tmp_path, correct={0: 'dog', 2: 'fox'}, leave_out={1: 'x'})
    found = read_corrections(file, ITEMS)
    assert found.df.posting_id.tolist() == [1, 2, 4, 5]
    assert found.df.label.tolist() == ['cat', 'dog', 'fox', 'fox']
    assert found.changed.to_numpy().tolist() == [['2', 'cat', 'dog'], ['5', None, 'fox']]
    assert (found.left_out, found.unfilled) == (['3'], 0)
    assert ITEMS.label.tolist()[:4] == ['cat', 'cat', 'dog', 'fox']


def test_rows_without_a_decision_change_nothing(tmp_path):
    found = read_corrections(filled(tmp_path, leave_out={1: 'no'}, correct={0: ' cat '}), ITEMS)
    assert found.df.equals(ITEMS) and found.unfilled == 2
    assert repr(found) == '0 labels changed, 0 items left out, 2 rows without a decision'


def test_every_fault_is_told(tmp_path):
    file = filled(tmp_path, correct={0: 'dgo', 1: 'cat'}, leave_out={1: 'x', 2: 'perhaps'},
                  posting_id={2: '7'})
    with pytest.raises(InputError) as told: read_corrections(file, ITEMS)
    lines = str(told.value).split('\n')
    assert '3 rows can not be used' in lines[0]
    assert lines[1:] == ["row 0 (posting_id 2): unknown class 'dgo' (known: dog)",
                         'row 1 (posting_id 3): both correct and leave_out are filled in',
                         "row 2 (posting_id 7): df has no item '7'; leave_out 'perhaps': x or nothing"]


def test_classes_that_no_item_has_yet(tmp_path):
    file = tmp_path/'own.csv'
    file.write_text('posting_id,correct,leave_out\n1,owl,\n', encoding='utf-8')
    with pytest.raises(InputError, match="unknown class 'owl'"): read_corrections(file, ITEMS)
    assert read_corrections(file, ITEMS, classes=['cat', 'dog', 'fox', 'owl']).df.label[0] == 'owl'


def test_the_same_item_twice(tmp_path):
    file = tmp_path/'twice.csv'
    file.write_text('posting_id,correct,leave_out\n1,dog,\n1,dog,\n', encoding='utf-8')
    assert len(read_corrections(file, ITEMS).changed) == 1
    file.write_text('posting_id,correct,leave_out\n1,dog,\n1,fox,\n', encoding='utf-8')
    with pytest.raises(InputError, match='row 1.*there twice'): read_corrections(file, ITEMS)


def test_numbers_as_classes_stay_numbers(tmp_path):
    items = ITEMS.iloc[:4].assign(label=[1, 1, 2, 3])
    file = tmp_path/'numbers.csv'
    file.write_text('posting_id,correct,leave_out\n1,2.0,\n', encoding='utf-8')
    with pytest.raises(InputError, match="unknown class '2.0'"): read_corrections(file, items)
    file.write_text('posting_id;correct;leave_out\n1;2;\n', encoding='utf-8')
    found = read_corrections(file, items).df
    assert found.label.tolist() == [2, 1, 2, 3] and found.label.dtype == items.label.dtype


def test_what_is_not_written(tmp_path):
    write_review(tmp_path/'review.csv', ITEMS, SUSPECTS)
    for options, message in (({'suspects': SUSPECTS}, 'review.csv exists'), ({}, 'nothing to look at'),
                             ({'suspects': SUSPECTS, 'show': ['photo']}, 'show: df lacks photo'),
                             ({'suspects': SUSPECTS.assign(id='9')}, 'df has no items 9')):
        name = 'review.csv' if 'exists' in message else 'new.csv'
        with pytest.raises(InputError, match=message): write_review(tmp_path/name, ITEMS, **options)
