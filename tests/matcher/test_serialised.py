"A matcher of serialised titles reads new listings in the same way, whatever the order of their columns."
import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.match import Rule, Step
from fastmatch.matcher import Matcher, load_matcher

KNOWN = pd.DataFrame({
    'posting_id': ['a', 'b', 'c', 'd'],
    'title': ['sony tv black', 'sony tv silver', 'desk of oak', 'oak desk'],
    'brand': ['Sony', None, 'Ikea', 'Ikea'],
    'price': [399., 410., np.nan, 99.]})
COLUMNS = Columns(image=None, group=None,
                  title={'title': 'text', 'brand': 'category', 'price': 'number:USD'})
NEW = pd.DataFrame({'price': [398], 'brand': ['sony'], 'title': ['tv sony'], 'posting_id': ['n']})


class ByWords:
    fingerprint = 'words'

    def __init__(self): self.read = []

    def scores(self, first, second):
        self.read += zip(first, second)
        return [len(set(one.split()) & set(other.split())) / len(set(one.split()) | set(other.split()))
                for one, other in zip(first, second)]


def assert_same(one, other):
    np.testing.assert_array_equal(one.matches.ids, other.matches.ids)
    np.testing.assert_array_equal(one.matches.scores, other.matches.scores)


def test_saved_and_loaded(tmp_path):
    rule = Rule('mean', {'tfidf': 1.}, .3, 4)
    matcher, skipped = Matcher.from_df(KNOWN, '.', rule, None, COLUMNS)
    assert not len(skipped) and matcher.titles[0] == 'title: sony tv black | brand: Sony | price: 399 USD'
    assert matcher.titles[1] == 'title: sony tv silver | price: 410 USD'
    matcher.save(tmp_path/'saved')
    loaded = load_matcher(tmp_path/'saved')
    assert loaded.columns == matcher.columns and loaded.columns.title == COLUMNS.title
    embeddings, _ = loaded.embed(NEW)
    assert list(embeddings.titles) == ['title: tv sony | brand: sony | price: 398 USD']
    assert_same(loaded.match(NEW), matcher.match(NEW))
    with pytest.raises(InputError, match='brand'): loaded.match(NEW.drop(columns='brand'))


def test_a_cross_encoder_is_handed_in_and_reads_them(tmp_path):
    scorer = ByWords()
    step = Step('cross_encoder', scorer=scorer, low=.05, high=.9)
    rule = Rule('mean', {'tfidf': 1.}, .3, 4, steps=[step])
    matcher, _ = Matcher.from_df(KNOWN, '.', rule, None, COLUMNS)
    found = matcher.match(NEW)
    read = [text for pair in scorer.read for text in pair]
    assert any(text.startswith('title: tv sony | brand') for text in read)
    matcher.save(tmp_path/'saved')
    with pytest.raises(InputError, match='cross_encoder'): load_matcher(tmp_path/'saved')
    loaded = load_matcher(tmp_path/'saved', functions={'cross_encoder': ByWords()})
    assert_same(loaded.match(NEW), found)
