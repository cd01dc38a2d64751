"Tables as nobody would make them: each gives a result, or an error that names the table and what is wrong."
import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.data.kinds import recognise_fields
from fastmatch.link import match_tables
from fastmatch.match.fields.field import KINDS

CELLS = [
    None, np.nan, '', ' ', '-', 'n/a', 0, 1, -1, 12.5, 1e300, float('inf'), True, 'a', 'red bag', 'Red  BAG',
    'ｒｅｄ', 'bag\u200b', 'e\u0301', 'é', '12', '12,50', '1.299,00 €', '$5', '5 kg', '036000291452', 'AB-12',
    'ab12', pd.Timestamp('2024-01-01'), ['a', 'b'], ('x',), {'a': 1}, b'bytes', 'x' * 3000, '\x00', '💡',
    'a|b;c,d']


NAMES = ['title', 'price', 'brand', 'model', 'text', 'x y', '€']


def a_table(rng, names):
    "A table of most of these columns and a few rows, whose cells are anything."
    n_rows = int(rng.integers(0, 9)) if rng.random() < .2 else int(rng.integers(4, 12))
    names = [name for name in names if rng.random() < .9]
    # the cells of some columns are of one sort, those of others of any
    table = {}
    for name in names:
        few = rng.permutation(len(CELLS))[:rng.integers(1, len(CELLS))]
        table[name] = [CELLS[place] for place in rng.choice(few, n_rows)]
    ids = [f'{number}' for number in range(n_rows)]
    if n_rows and rng.random() < .05: ids[0] = CELLS[rng.integers(len(CELLS))]
    if rng.random() < .97: table['id'] = ids
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in table.items()},
                         index=rng.permutation(n_rows))
    return frame.convert_dtypes() if rng.random() < .2 else frame


def columns_of(rng, names):
    "Columns recognised, or each column any kind, numbers seldom."
    if rng.random() < .4: return None
    kinds = {name: str(rng.choice(KINDS, p=[.4, .3, .25, .05])) for name in names}
    return Columns(id='id', image=None, title=None, group=None, fields=kinds)


def known_of(rng, left, right):
    "Some pairs that are known, of ids that may not be there."
    if rng.random() < .6 or not len(left) or not len(right): return None
    n_pairs = int(rng.integers(1, 8))
    pairs = {'left_id': rng.integers(0, len(left), n_pairs).astype(str),
             'right_id': rng.integers(0, len(right), n_pairs).astype(str)}
    if rng.random() < .7: pairs['label'] = rng.integers(0, 2, n_pairs)
    return pd.DataFrame(pairs)


@pytest.mark.parametrize('part', [
    0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 10))])
def test_a_result_or_an_error_that_names_what_is_wrong(part):
    n_results = 0
    for seed in range(100 * part, 100 * part + 100):
        rng = np.random.default_rng(seed)
        names = [str(name) for name in rng.permutation(NAMES)[:rng.integers(1, 6)]]
        left, right = a_table(rng, names), a_table(rng, names)
        columns = columns_of(rng, left.columns.drop('id', errors='ignore'))
        columns = columns, columns
        before = left.copy(), right.copy()
        known = known_of(rng, left, right)
        try: found = match_tables(left, right, columns, known=known, seed=0, k=3)
        except InputError as error:
            message = str(error)
            names = [*left.columns, *right.columns, 'known', 'table', 'column', 'pairs are']
            assert any(str(name) in message for name in names), message
        else:
            n_results += 1
            assert found.matches.probability.between(0, 1).all()
            assert found.matches.left_id.is_unique and found.matches.right_id.is_unique
        for table, as_it_was in zip((left, right), before): pd.testing.assert_frame_equal(table, as_it_was)
    assert n_results > 0


def test_kinds_of_any_column():
    rng = np.random.default_rng(0)
    for _ in range(300):
        table = a_table(rng, NAMES)
        found = recognise_fields(table, Columns(id='id', title=None))
        assert {field.kind for field in found.values()} <= set(KINDS)
