"`fastmatch link`: two files in, their matches out."
import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from fastmatch.cli import app
from tests.link.shops import labelled, pair_f1, two_shops

LEFT, RIGHT, PAIRS = two_shops()


@pytest.fixture
def folder(tmp_path):
    LEFT.to_csv(tmp_path/'left.csv', index=False)
    RIGHT.to_csv(tmp_path/'right.csv', index=False, sep=';')
    labelled(LEFT, RIGHT, PAIRS).to_csv(tmp_path/'known.csv', index=False)
    return tmp_path


def link(folder, *options):
    return CliRunner().invoke(app, ['link', f'{folder}/left.csv', f'{folder}/right.csv', '--right-id-col',
                                    'sku', '--out', f'{folder}/links.csv', *options])


def test_with_known_pairs(folder):
    result = link(folder, '--known', f'{folder}/known.csv')
    assert result.exit_code == 0, result.output
    assert 'compared by title (text), brand (category), model (code), price (number)' in result.output
    assert 'pair F1' in result.output

    class Found: matches = pd.read_csv(folder/'links.csv', dtype=str)
    assert pair_f1(Found, PAIRS) > .9
    summary = json.loads((folder/'links.json').read_text())
    assert summary['worth']['low'] <= summary['worth']['pair_f1'] <= summary['worth']['high']
    assert summary['fields']['title'] == ['text', 'title', 'name'] and summary['how'] == 'one-to-one'


def test_fields_that_are_named(folder):
    result = link(folder, '--field', 'model:code', '--field', 'price:number:USD', '--how', 'free')
    assert result.exit_code == 0, result.output
    assert 'compared by title (text), model (code), price (number)' in result.output


@pytest.mark.parametrize('options, message', [
    (['--field', 'modle:code'], "no column 'modle'"), (['--how', 'twice'], "how='twice'"),
    (['--known', 'none.csv'], 'none.csv: no such file'), (['--out', 'left.json'], 'give a .csv'),
    (['--threshold', '2'], 'threshold=2')])
def test_what_is_refused(folder, options, message, monkeypatch):
    monkeypatch.chdir(folder)
    result = link(folder, *options)
    assert result.exit_code == 2 and message in result.output
    assert not (folder/'links.csv').exists()


def test_an_input_is_never_written_over(folder):
    before = (folder/'left.csv').read_bytes()
    result = link(folder, '--out', f'{folder}/left.csv')
    assert result.exit_code == 2 and 'that is an input' in result.output
    assert (folder/'left.csv').read_bytes() == before
