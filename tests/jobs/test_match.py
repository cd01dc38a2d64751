"New listings for a saved matcher: under its own names, or with vectors; and the files with what it found."
import os

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.match import check_output, new_listings, write_matches
from fastmatch.match import Embeddings, Rule
from fastmatch.matcher import Matcher

NOTHING = dict.fromkeys(('id_col', 'image_col', 'title_col', 'phash_col'))


@pytest.fixture
def matcher():
    "A matcher of titles alone, made from a table with column names of its own."
    catalogue = Embeddings({}, ['t1', 't2'], ['red bag', 'a lamp'])
    columns = Columns('SKU', None, 'Product Name', None)
    return Matcher(Rule('mean', {'tfidf': 1.}, .5), catalogue, columns=columns)


def test_renamed_to_the_matchers_own_names(matcher):
    listings = pd.DataFrame({'posting_id': ['n1'], 'title': [r'\xc3\xa9'],
                             'Product Name': ['not meant'], 'price': [3]})
    prepared = new_listings(listings, matcher, {**NOTHING, 'title_col': 'title'})
    assert list(prepared.columns) == ['SKU', 'Product Name', 'price']
    assert prepared['Product Name'].tolist() == ['é']


def test_the_matchers_own_names_come_first(matcher):
    listings = pd.DataFrame({'SKU': ['n1'], 'posting_id': ['other'], 'Product Name': ['red bag']})
    prepared = new_listings(listings, matcher, NOTHING)
    assert prepared.SKU.tolist() == ['n1'] and prepared['Product Name'].tolist() == ['red bag']


def test_vectors_from_elsewhere(matcher, tmp_path):
    listings = pd.DataFrame({'SKU': ['n1', 'n2'], 'Product Name': ['red bag', None]})
    np.savez(tmp_path/'v.npz', image=np.eye(2))
    with pytest.raises(InputError, match='Product Name: row 1 has no title'):
        new_listings(listings, matcher, NOTHING, embeddings=tmp_path/'v.npz')
    listings['Product Name'] = ['red bag', 'a lamp']
    prepared = new_listings(listings, matcher, NOTHING, embeddings=tmp_path/'v.npz')
    assert list(prepared.ids) == ['n1', 'n2'] and prepared.titles == ['red bag', 'a lamp']
    assert prepared['image'].shape == (2, 2)
    with pytest.raises(InputError, match='SKU: row 0 has no id'):
        new_listings(listings.assign(SKU=[None, 'n2']), matcher, NOTHING, embeddings=tmp_path/'v.npz')
    np.savez(tmp_path/'flat.npz', image=np.zeros(3))
    with pytest.raises(InputError, match=r'flat.npz.*\(3,\)'):
        new_listings(listings, matcher, NOTHING, embeddings=tmp_path/'flat.npz')


def test_the_files(matcher, tmp_path):
    listings = pd.DataFrame({'SKU': ['n1', 'n2'], 'Product Name': ['red bag', 'zebra']})
    result = matcher.match(listings)
    output = tmp_path/'m.csv'
    assert write_matches(result, output) == [output]
    assert pd.read_csv(output).matches.tolist() == ['n1 t1', 'n2']
    assert write_matches(result, output, scores=True) == [output, tmp_path/'m.pairs.csv']
    assert pd.read_csv(tmp_path/'m.pairs.csv')[['posting_id', 'match']].to_numpy().tolist() == [['n1', 't1']]


def test_where_it_can_not_be_written(tmp_path):
    table_file = tmp_path/'t.csv'
    table_file.write_text('id\n')
    check_output(tmp_path/'m.csv', table_file)
    for output, message in ((tmp_path, 'is a folder'), (table_file, 'the table of listings itself'),
                            (tmp_path/'no'/'m.csv', 'there is no folder')):
        with pytest.raises(InputError, match=message): check_output(output, table_file)
    if os.getuid() == 0: return
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match='no right to write'): check_output(tmp_path/'m.csv', table_file)
