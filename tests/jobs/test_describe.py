"What is said of a saved matcher from its files alone."
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.describe import describe_matcher
from fastmatch.match import Embeddings, Rule
from fastmatch.matcher import Matcher


def test_a_matcher_of_titles(tmp_path):
    catalogue = Embeddings({}, ['t1', 't2'], ['red bag', 'a lamp'])
    columns = Columns('SKU', None, 'Product Name', None)
    Matcher(Rule('mean', {'tfidf': 1.}, .5), catalogue, columns=columns).save(tmp_path/'shop')
    lines = describe_matcher(tmp_path/'shop')
    assert lines[0].startswith(f'{tmp_path}/shop: ') and lines[0].endswith('every hash right')
    assert lines[1].startswith('made with fastmatch ') and lines[2] == 'catalogue: 2 listings, t1 to t2'
    assert 'columns: id: SKU, title: Product Name' in lines and 'rule:' in lines
    assert lines[-3] == '  Two listings match when their score, tfidf, is 0.500 or more.'
    assert 'no thresholds for other numbers' in lines[-1]
    assert not any('encoder' in line for line in lines[:-1])
    listings_file = next((tmp_path/'shop').rglob('listings.json'))
    listings_file.write_bytes(listings_file.read_bytes().replace(b't2', b't3'))
    with pytest.raises(InputError, match='listings.json.*damaged'): describe_matcher(tmp_path/'shop')
