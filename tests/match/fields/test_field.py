"`Field` and the fields of `Embeddings`: kinds, options, and what is refused."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Embeddings
from fastmatch.match.fields.field import KINDS, Field


@pytest.mark.parametrize('given, expected', [
    ('number', Field('number')), ('number:EUR', Field('number', unit='EUR')),
    ({'kind': 'code', 'column': 'mpn'}, Field('code', column='mpn')), (Field('text'), Field('text'))])
def test_what_may_stand_for_a_field(given, expected):
    assert Field.of(given) == expected
    assert Field.of(expected.to_dict()) == expected


@pytest.mark.parametrize('given, message', [
    ('numbr', "kind='numbr': choose one of text, code, category, number"),
    (3, '3: give a kind'),
    ({'kind': 'number', 'units': 'kg'}, "units='kg'.*unit"),
    ('code:kg', "unit='kg': the options of a code: none"),
    ({'kind': 'number', 'synonyms': {}}, 'synonyms={}: the options of a number: unit, rates')])
def test_what_may_not(given, message):
    with pytest.raises(InputError, match=message): Field.of(given)


@pytest.mark.parametrize('kind, similarity, words', [
    ('code', 1., 'same x'), ('number', .96, 'x differs by 4%'),
    ('number', .9999, 'x differs by less than 1%'),
    ('number', 1., 'same x'), ('code', .9, 'nearly the same x'), ('code', .2, 'another x'),
    ('category', .5, 'x 50% alike'), ('text', float('nan'), '')])
def test_in_words(kind, similarity, words):
    assert Field(kind).in_words('x', similarity) == words


CELLS = {'text': ['red bag', None, 'a lamp', 'red bags'], 'code': ['A-1', 'a1', None, 'B2'],
         'category': ['Sony', None, 'SONY', 'Canon'], 'number': ['$1', 2, None, '1.00']}


def test_embeddings_hold_fields():
    fields = {f'my {kind}': (kind, cells) for kind, cells in CELLS.items()}
    embeddings = Embeddings({'image': np.eye(4)}, list('abcd'), fields=fields, source=[1, 1, 2, '2'])
    spaces = embeddings.spaces()
    assert list(spaces) == ['image', *fields]
    assert [spaces[f'my {kind}'].is_field for kind in KINDS] == [False, True, True, True]
    part = embeddings.take([3, 0])
    assert part.source.tolist() == ['2', '1'] and part.fields['my code'].cells.tolist() == ['B2', 'A-1']
    assert list(embeddings.spaces(only=('my code', 'source'))) == ['my code', 'source']
    copy = Embeddings(embeddings, embeddings.ids)
    assert copy.fields.keys() == embeddings.fields.keys()
    assert copy.source.tolist() == embeddings.source.tolist()


@pytest.mark.parametrize('fields, message', [
    ({'price': ('number', [1, 2])}, '^price: 2 rows for 3 ids'),
    ({'image': ('number', [1, 2, 3])}, "^fields named \\['image'\\]"),
    ({'tfidf': ('text', list('abc'))}, "^fields named \\['tfidf'\\]"),
    ({'fused': ('text', list('abc'))}, "^fields named \\['fused'\\]")])
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(InputError, match=message):
        Embeddings({'image': np.eye(3)}, list('abc'), fields=fields)


def test_a_number_that_is_none_is_named():
    embeddings = Embeddings({}, list('abc'), fields={'price': ('number', [1, 'cheap', 3])})
    with pytest.raises(InputError, match="^price: 1 cells hold no number: row 1: 'cheap'"):
        embeddings.spaces()
