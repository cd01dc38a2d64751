"A matcher whose rule reads columns of the table: matched, saved, loaded, added to, explained."
import json

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.match import Embeddings, Rule, Step
from fastmatch.matcher import Matcher, load_matcher
from fastmatch.matcher.fields import FIELDS_FILE
from tests.match.fielded import fielded

EMB = fielded(12, source=[f'shop {row % 3}' for row in range(36)])
FIELDS = {'modelno': 'code', 'price': 'number', 'notes': 'text',
          'brand': {'kind': 'category', 'synonyms': {'sony': 'brand 1'}}}
EMB = Embeddings(EMB, EMB.ids, EMB.titles, EMB.groups, source=EMB.source,
                 fields={name: (kind, EMB.fields[name].cells) for name, kind in FIELDS.items()})
COLUMNS = Columns(image=None, source='shop', fields=FIELDS)
RULE = Rule('mean', {'image': .4, 'modelno': .2, 'brand': .1, 'notes': .3}, .7, k=20, compared=('price',),
            apart='source', steps=[Step('veto', units='price', least=.5)])


def same(one, other):
    pd.testing.assert_frame_equal(one.to_frame(scores=True), other.to_frame(scores=True))
    pd.testing.assert_frame_equal(one.pairs(), other.pairs())


@pytest.mark.parametrize('n_new', [1, 12])
def test_saved_and_loaded_it_matches_the_same(tmp_path, n_new):
    new = np.arange(len(EMB)) < n_new
    matcher = Matcher(RULE, EMB.take(~new), columns=COLUMNS)
    matcher.save(tmp_path/'shop')
    loaded = load_matcher(tmp_path/'shop')
    assert loaded.rule == RULE and loaded.columns.fields == matcher.columns.fields
    assert loaded.columns.source == 'shop' and list(loaded.spaces) == list(matcher.spaces)
    for name, space in matcher.spaces.items():
        if hasattr(space, 'cells'): assert space.cells.tolist() == loaded.spaces[name].cells.tolist()
    for each in (matcher, loaded):
        same(each.match(), matcher.match())
        same(each.match(EMB.take(new)), matcher.match(EMB.take(new)))
    # saved again, it is the same
    loaded.save(tmp_path/'again')
    same(load_matcher(tmp_path/'again').match(), matcher.match())


def test_new_listings_are_matched_as_in_one_catalogue():
    new = np.arange(len(EMB)) % 3 == 0
    found = Matcher(RULE, EMB.take(~new), columns=COLUMNS).match(EMB.take(new)).to_frame()
    whole = Matcher(RULE, EMB, columns=COLUMNS)
    # the vocabulary of the notes is that of the catalogue, so scores differ a little; here no match does
    expected = whole.match().to_frame().set_index('posting_id').matches
    same_matches = [set(row.matches.split()) == set(expected[row.posting_id].split())
                    for row in found.itertuples()]
    assert np.mean(same_matches) > .9
    assert found.matches.str.split().str.len().max() > 1


def test_no_listing_matches_its_own_source():
    matcher = Matcher(RULE, EMB, columns=COLUMNS)
    shop = dict(zip(EMB.ids, EMB.source))
    pairs = matcher.match().pairs()
    assert len(pairs) > 10 and (pairs.posting_id.map(shop) != pairs.match.map(shop)).all()
    # a source of which the catalogue has few listings, and the new ones have many
    new = EMB.source == 'shop 0'
    for other in (EMB.take(~new), EMB.take(~new).take([0, 1])):
        pairs = Matcher(RULE, other, columns=COLUMNS).match(EMB.take(new)).pairs()
        assert (pairs['where'] == 'catalogue').all()


def test_added_and_removed(tmp_path):
    first = np.arange(len(EMB)) < 30
    matcher = Matcher(RULE, EMB.take(first), columns=COLUMNS)
    matcher.add(EMB.take(~first))
    assert len(matcher) == len(EMB) and all(len(space) == len(EMB) for space in matcher.spaces.values())
    matcher.save(tmp_path/'m')
    same(load_matcher(tmp_path/'m').match(), matcher.match())
    matcher.remove(EMB.ids[:3])
    matcher.save(tmp_path/'m')
    same(load_matcher(tmp_path/'m').match(), matcher.match())


def test_why_is_said_in_words():
    matcher = Matcher(RULE, EMB, columns=COLUMNS)
    pairs = matcher.match().pairs()
    assert pairs.why.str.startswith('score').all()
    known = pairs[pairs.modelno == 1]
    assert len(known) and known.why.str.contains('same modelno').all()
    assert not pairs[pairs.modelno.isna()].why.str.contains('modelno').any()
    explained = matcher.explain(EMB.ids[0]).frame
    assert explained.why.str.contains('brand').any() and 'source' not in explained
    assert explained.why.str.contains('price differs by').any()
    assert explained[~explained.matches].why.str.contains('below the threshold|veto').any()


def test_what_the_rule_needs_must_be_there():
    matcher = Matcher(RULE, EMB, columns=COLUMNS)
    bare = Embeddings({'image': EMB['image'][:2]}, ['x', 'y'], source=['a', 'b'])
    with pytest.raises(InputError, match="'modelno'"): matcher.match(bare)
    no_source = Embeddings({'image': EMB['image'][:2]}, ['x', 'y'],
                           fields={name: column.take([0, 1]) for name, column in EMB.fields.items()})
    with pytest.raises(InputError, match='source'): matcher.match(no_source)
    with pytest.raises(InputError, match='of results'):
        Embeddings({}, ['x', 'y'], fields={'score': ('number', [1, 2])})


def table(n=36):
    columns = {name: column.cells for name, column in EMB.fields.items()}
    return pd.DataFrame({'posting_id': EMB.ids, 'title': EMB.titles, 'shop': EMB.source, **columns})[:n]


def test_a_table_is_read_by_its_columns(tmp_path):
    rule = Rule('mean', {'tfidf': .5, 'modelno': .5}, .9, k=20, compared=('price',), apart='source')
    matcher, skipped = Matcher.from_df(table(), '.', rule, None, COLUMNS)
    assert not len(skipped) and list(matcher.spaces) == ['tfidf', 'modelno', 'price', 'source']
    matcher.save(tmp_path/'m')
    new = table(3).assign(posting_id=['n0', 'n1', 'n2'])
    loaded = load_matcher(tmp_path/'m')
    same(loaded.match(new), matcher.match(new))
    # columns that the rule does not read may be missing, those that it reads may not
    same(matcher.match(new.drop(columns=['brand', 'notes'])), matcher.match(new))
    with pytest.raises(InputError, match="'price'"): matcher.match(new.drop(columns='price'))
    broken = new.assign(price=['cheap', '3 USD', None])
    with pytest.raises(InputError, match="row 0 .*price: 'cheap' holds no number"): matcher.match(broken)
    result = matcher.match(broken, on_error='skip')
    assert list(result.skipped.id) == ['n0'] and len(result) == 2
    with pytest.raises(InputError, match='no source'): matcher.match(new.assign(shop=['a', None, 'b']))


def test_without_fields_a_folder_is_as_it_was():
    matcher = Matcher(Rule('mean', {'image': 1.}, .5), EMB)
    files = matcher.files()
    assert FIELDS_FILE not in files and set(json.loads(files['matcher.json'])) == {
        'rule', 'cols', 'info', 'encoder'}
    assert set(json.loads(files['matcher.json'])['cols']) == {'id_col', 'fn_col', 'text_col', 'phash_col'}
