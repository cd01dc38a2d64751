"Columns of a table from the command line to the matches: `--field`, `--source-col`, rows without a group."
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.fields import columns_of_fields, read_field, with_fields
from fastmatch.match.fields.field import Field
from fastmatch.matcher import load_matcher

TABLE = pd.DataFrame({'posting_id': ['a', 'b', 'c'], 'price': ['1', '2', '3'], 'net: weight': ['1', '2', '4'],
                      'brand': ['x', 'y', 'x'], 'score': ['1', '5', '4'],
                      'image': ['1.png', '2.png', '3.png']})


@pytest.mark.parametrize('text, name, field', [
    ('price:number', 'price', Field('number', column='price')),
    ('price:number:EUR', 'price', Field('number', column='price', unit='EUR')),
    ('net: weight:number:kg', 'net: weight', Field('number', column='net: weight', unit='kg')),
    ('price', 'price', Field('number', column='price')),
    ('brand', 'brand', Field('category', column='brand'))])
def test_a_field_as_it_is_named(text, name, field): assert read_field(text, TABLE) == (name, field)


@pytest.mark.parametrize('text, words', [
    ('prise:number', "no column 'prise'"), ('price:numbr', 'kinds: text, code'),
    ('price:code:kg', 'options of a code')])
def test_a_wrong_field_is_named(text, words):
    with pytest.raises(InputError, match=words): read_field(text, TABLE)


def test_only_named_fields_are_used_and_others_are_said():
    columns, lines = Columns(group=None, title=None), []
    taken = with_fields(columns, TABLE, ['price:number'], lines.append)
    assert list(taken.fields) == ['price'] and lines[0] == 'compared besides: price: number'
    assert '--field brand:category' in lines[1] and '--field score:number' in lines[1]
    assert 'image' not in lines[1]
    everything = with_fields(columns, TABLE, ['auto'], lines.append)
    assert set(everything.fields) == {'price', 'net: weight', 'brand', 'score column'}
    assert everything.fields['score column'].column == 'score'
    with pytest.raises(InputError, match='twice'): with_fields(columns, TABLE, ['price', 'price'])
    # a table of the competition's format is told nothing
    lines.clear()
    assert with_fields(columns, TABLE[['posting_id', 'image']], [], lines.append) == columns and not lines


def test_where_a_field_stands_in_another_table():
    fields = {'price': Field('number', column='price'), 'code': Field('code', column='mpn')}
    new = pd.DataFrame(columns=['cost', 'mpn'])
    assert columns_of_fields(['price:cost'], fields, new) == {'price': 'cost', 'code': 'mpn'}
    assert columns_of_fields(['code:code'], fields, new) == {'price': 'price', 'code': 'mpn'}
    with pytest.raises(InputError, match="no column 'kost'"): columns_of_fields(['price:kost'], fields, new)
    with pytest.raises(InputError, match='fields of this matcher: price, code'):
        columns_of_fields(['size:x'], fields, new)


def call(*args): return CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture
def trained(shop, tiny_encoder, tmp_path):
    "`fastmatch train` on pictures that say nothing and codes that say all; two rows have no group."
    listings, folder = shop
    listings = listings.assign(
        modelno=[f'XK{row // 2 * 7919 % 9973:04d}' for row in range(40)],
        price=[None if row % 5 == 0 else f'{10 + row // 2} USD' for row in range(40)],
        colour=[f'red{row % 3}' for row in range(40)], shop=[f'shop {row % 2}' for row in range(40)])
    listings = listings.astype({'label_group': object})
    listings.loc[38:, 'label_group'] = None
    listings.to_csv(tmp_path/'train.csv', index=False)
    result = call('train', tmp_path/'train.csv', '--out', tmp_path/'out', '--images', folder,
                  '--image-arch', tiny_encoder, '--title-col', 'none', '--epochs', 1, '--bs', 8, '--size', 32,
                  '--aug', 'none', '--field', 'modelno:code', '--field', 'price:number:USD',
                  '--source-col', 'shop')
    assert result.exit_code == 0, result.output
    return tmp_path, folder, listings, result.output


def test_from_a_table_to_matches(trained):
    path, folder, listings, output = trained
    assert 'compared besides: modelno: code, price: number (USD)' in output
    assert '--field colour:category' in output and '--field modelno' not in output
    assert '2 without a group' in output
    summary = json.loads((path/'out'/'summary.json').read_text())
    assert summary['settings']['fields'] == {'modelno': 'code', 'price': 'number (USD)'}
    assert summary['settings']['columns']['source_col'] == 'shop' and summary['listings']['unlabelled'] == 2
    assert '+ fields' in [rung['rung'] for rung in summary['ladder']]
    assert summary['promised']['row_f1'] > .95
    rows = next(iter(summary['judged'].values()))['rows']
    assert rows['modelno']['row_f1'] > .95 and 'price' not in rows and 'untrained_modelno' not in rows
    assert summary['rule']['apart'] == 'source'
    report = (path/'out'/'report.html').read_text()
    assert 'modelno' in report
    loaded = load_matcher(path/'out')
    # those without a group are in the catalogue
    assert {'p38', 'p39'} <= set(loaded.ids) and len(loaded) == 40
    inspected = call('inspect', path/'out').output
    assert 'compared besides: modelno: code, price: number (USD)' in inspected and 'source: shop' in inspected

    # new listings of a shop of their own, whose columns have other names
    new = listings[::4].assign(posting_id=[f'n{row}' for row in range(10)], shop='other')
    new = new.rename(columns={'modelno': 'mpn', 'price': 'cost'}).drop(columns=['label_group', 'title'])
    new.to_csv(path/'new.csv', index=False)
    result = call('match', path/'out', path/'new.csv', '--images', folder, '-o', path/'matches.csv',
                  '--scores', '--field', 'modelno:mpn', '--field', 'price:cost')
    assert result.exit_code == 0, result.output
    matches = pd.read_csv(path/'matches.csv').set_index('posting_id').matches.str.split()
    expected = [{f'n{number}', f'p{row}', f'p{row + 1}'} for number, row in enumerate(range(0, 40, 4))]
    assert np.mean([set(matches[f'n{number}']) == own for number, own in enumerate(expected)]) > .8
    pairs = pd.read_csv(path/'matches.pairs.csv')
    assert pairs.why.str.contains('same modelno').mean() > .8
    failed = call('match', path/'out', path/'new.csv', '--images', folder, '-o', path/'matches.csv')
    assert failed.exit_code == 2 and 'modelno' in failed.output
