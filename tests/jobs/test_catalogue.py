"A catalogue from the command line: tables in, groups and verdicts out, exit codes like the other commands'."
import pandas as pd
import pytest
from typer.testing import CliRunner

from fastmatch.catalogue import Catalogue
from fastmatch.cli import app
from fastmatch.data.columns import Columns
from fastmatch.match import Rule
from fastmatch.matcher import Matcher

TITLES = ['red leather bag', 'Red leather  bag', 'red leather bags', 'desk lamp', 'desk lamp white',
          'steel cup']
LISTINGS = pd.DataFrame({'posting_id': [f'p{row}' for row in range(6)], 'title': TITLES})


def call(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rule = Rule('mean', {'tfidf': 1.}, .6, join=('same_title',))
    Matcher.from_df(LISTINGS, '.', rule, None, Columns(image=None))[0].save(tmp_path/'matcher')
    LISTINGS.iloc[:4].to_csv(tmp_path/'first.csv', index=False)
    LISTINGS.to_csv(tmp_path/'all.csv', index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_life_in_commands(folder):
    code, said = call('add', 'shop.db', 'first.csv', '--matcher', 'matcher', '--who', 'ana')
    assert code == 0 and '4 listings came, 2 groups opened' in said and '4 listings in 2 groups' in said
    code, said = call('add', 'shop.db', 'all.csv')
    assert code == 2 and 'in the catalogue already: p0, p1, p2, p3; --on-known skip or replace' in said
    code, said = call('add', 'shop.db', 'all.csv', '--on-known', 'skip', '--dry-run')
    assert code == 0 and 'dry run, nothing kept' in said and '2 listings came' in said
    assert call('add', 'shop.db', 'all.csv', '--on-known', 'skip')[0] == 0
    code, said = call('groups', 'shop.db', '-o', 'groups.csv')
    assert code == 0 and 'wrote groups.csv: 6 rows' in said
    groups = pd.read_csv('groups.csv').set_index('posting_id').group
    assert groups['p0'] == groups['p1'] == groups['p2'] == 1 and groups['p3'] == groups['p4'] == 2
    assert 'both in group 1, directly' in call('why', 'shop.db', 'p0', 'p2')[1]
    assert 'in group 2 since event 1 (add' in call('why', 'shop.db', 'p3')[1]
    code, said = call('split', 'shop.db', 1, 'p2', '--who', 'ana', '--reason', 'a plural')
    assert code == 0 and '1 changed their group, 1 groups opened' in said
    assert 'ana called them different' in call('why', 'shop.db', 'p0', 'p2')[1]
    assert 'they score' in call('why', 'shop.db', 'p0', 'p3')[1]
    assert call('undo', 'shop.db', 3)[0] == 0
    code, said = call('remove', 'shop.db', 'p0', 'p5')
    assert code == 0 and '2 went' in said
    pd.DataFrame({'posting_id': ['p1']}).to_csv('gone.csv', index=False)
    assert call('remove', 'shop.db', 'gone.csv')[0] == 0
    with Catalogue('shop.db') as catalogue:
        assert len(catalogue) == 3 and catalogue.check() == []
        assert catalogue.events().kind.tolist() == ['add', 'add', 'split', 'undo', 'remove', 'remove']
    code, said = call('events', 'shop.db', '--last', '2')
    assert code == 0 and said.count('remove') == 2 and 'split' not in said
    assert call('events', 'shop.db', '-o', 'events.csv')[0] == 0
    assert pd.read_csv('events.csv').kind.tolist() == ['add', 'add', 'split', 'undo', 'remove', 'remove']


def test_columns_under_other_names(folder):
    LISTINGS.rename(columns={'title': 'words'}).to_csv('other.csv', index=False)
    code, said = call('add', 'shop.db', 'other.csv', '--matcher', 'matcher')
    assert code == 2 and 'other.csv: say which column is title' in ' '.join(said.split())
    assert 'found by their names alone: rename them' in ' '.join(said.split())


def test_verdicts_go_out_and_in(folder):
    call('add', 'shop.db', 'all.csv', '--matcher', 'matcher')
    assert call('verdicts', 'shop.db', '-o', 'ask.csv', '--close-calls', 10)[0] == 0
    asked = pd.read_csv('ask.csv')
    assert len(asked) and asked.same.isna().all()
    asked['same'] = asked.same.astype(object)
    asked.loc[0, 'same'] = 'not the same'
    asked.to_csv('told.csv', index=False)
    assert call('verdicts', 'shop.db', 'told.csv', '--who', 'ana')[0] == 0
    assert call('verdicts', 'shop.db', '-o', 'out.csv')[0] == 0
    kept = pd.read_csv('out.csv')
    assert kept[['first', 'second']].values.tolist() == [sorted(asked.loc[0, ['first', 'second']])]
    assert not kept.same[0] and kept.who[0] == 'ana'


@pytest.mark.parametrize('args, message', [
    (['add', 'new.db', 'all.csv'], '--matcher FOLDER'), (['groups', 'none.db'], 'no such catalogue'),
    (['add', 'new.db', 'none.csv', '--matcher', 'matcher'], 'none.csv'),
    (['remove', 'shop.db', 'zz'], 'not in the catalogue: zz'), (['split', 'shop.db', '77', 'p0'], 'group 77'),
    (['split', 'shop.db', '1', 'p5'], 'has no p5'), (['verdicts', 'shop.db'], 'give a table to read'),
    (['verdicts', 'shop.db', 'all.csv'], 'has no column first, second, same'),
    (['undo', 'shop.db', '9'], 'event 9: there is none'), (['why', 'shop.db', 'p0', 'p0'], 'give two'),
    (['groups', 'shop.db', '-o', 'shop.db'], 'is the table'),
    (['add', 'all.csv', 'all.csv'], 'no catalogue')])
def test_what_is_refused(folder, args, message):
    call('add', 'shop.db', 'all.csv', '--matcher', 'matcher')
    code, said = call(*args)
    assert code == 2 and message in said.replace('\n', ' '), said
    with Catalogue('shop.db') as catalogue: assert len(catalogue) == 6
