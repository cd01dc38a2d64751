"A catalogue that grows and shrinks is one made anew, and refuses what does not fit it."
import unicodedata

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.match import Embeddings, Rule, Step
from fastmatch.matcher import Matcher, load_matcher
from tests.matcher.stepped import KNOWN, TITLES, VECTORS
from tests.matcher.trained import IMAGES, as_sets


def test_new_against_catalogue_is_one_self_join(trained):
    listings, matcher, rule = trained.learn.dls.valid_df, trained.matcher, trained.rule
    is_new = np.arange(len(listings)) % 2 == 0
    rest, _ = Matcher.from_df(listings[~is_new], IMAGES, rule, matcher.encoder)
    # the same idf, so that the scores are the same
    if 'tfidf' in rest.spaces: rest.spaces['tfidf'] = matcher.spaces['tfidf'].take(~is_new)
    result, wanted = rest.match(listings[is_new], IMAGES), as_sets(matcher.match())
    found = as_sets(result)
    assert found == {listing: wanted[listing] for listing in found}
    pairs = result.pairs()
    assert (pairs.match.isin(listings.posting_id[is_new]) == (pairs['where'] == 'new')).all()
    assert set(pairs['where']) == {'new', 'catalogue'}
    assert (pairs.score >= rule.threshold).all() and (pairs.why == 'score').all()
    assert len(pairs) == sum(len(wanted[listing]) - 1 for listing in listings.posting_id[is_new])


def test_add_and_remove(trained, tmp_path):
    matcher, listings = trained.matcher, trained.learn.dls.valid_df
    matcher.save(tmp_path/'shop')
    grown = load_matcher(tmp_path/'shop')
    few_ids = listings.posting_id[:4].tolist()
    before = as_sets(matcher.match())
    grown.remove(few_ids)
    assert len(grown) == len(matcher) - 4 and not np.isin(few_ids, grown.ids).any()
    with pytest.raises(InputError, match=few_ids[0]): grown.remove(few_ids[0])
    grown.add(listings.iloc[:4], IMAGES)
    assert as_sets(grown.match()) == before
    with pytest.raises(InputError, match=few_ids[1]): grown.add(listings.iloc[1:2], IMAGES)
    assert len(grown) == len(matcher)
    with pytest.raises(InputError, match='empty catalogue'): grown.remove(grown.ids)


def test_wrong_embeddings_are_refused(trained):
    embeddings, matcher = trained.emb, trained.matcher
    modality = next(name for name in trained.rule.modalities if name in embeddings)
    titles = None if embeddings.titles is None else embeddings.titles[:3]
    few_listings = Embeddings({name: vectors[:3] for name, vectors in embeddings.items()},
                              ['x', 'y', 'z'], titles)
    assert len(matcher.match(few_listings)) == 3
    few_listings[modality] = few_listings[modality][:, :7]
    for catalogue in (True, False):
        with pytest.raises(InputError, match=f'{modality}: queries have 7 dimensions'):
            matcher.match(few_listings, catalogue=catalogue)
    del few_listings[modality]
    with pytest.raises(InputError, match=modality): matcher.match(few_listings)


@pytest.mark.parametrize('ids, message', [(['a', 'a'], 'twice: a'), (['a b', 'c'], 'blanks'),
                                          (['', 'c'], 'empty')])
def test_ids_that_would_break_the_output(ids, message):
    with pytest.raises(InputError, match=message):
        Matcher(Rule('mean', {'image': 1.}, .5), Embeddings({'image': np.eye(2)}, ids))


def test_new_listings_as_in_one_self_join():
    steps = [Step('blend', threshold=.6, by='fused'), Step('k_reciprocal', k1=2), 'veto']
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .4, steps=steps, join=('same_title',))
    wanted = as_sets(Matcher(rule, KNOWN).match())
    grown = Matcher(rule, KNOWN)
    grown.remove(['p0', 'p3', 'p6'])
    new_listings = Embeddings({'image': VECTORS[[0, 3, 6]]}, ['p0', 'p3', 'p6'],
                              [TITLES[row] for row in (0, 3, 6)])
    found = as_sets(grown.match(new_listings))
    assert found == {listing: wanted[listing] for listing in ('p0', 'p3', 'p6')}
    grown.add(new_listings)
    assert as_sets(grown.match()) == wanted
    with pytest.raises(InputError, match='within=False'): grown.match(new_listings, within=False)


def ids_as(form):
    "Six ids, the numbers 0 to 5 or words with accents, as a file or pandas may give them."
    words = ['café', 'thé', 'crème', 'pâté', 'jus', 'eau']
    return {'ints': np.arange(6), 'text': [str(number) for number in range(6)], 'list': list(range(6)),
            'floats': pd.Series([0, 1, 2, 3, 4, 5, None]).iloc[:6], 'blanks': [f' {n} ' for n in range(6)],
            'nullable': pd.Series(range(6), dtype='Int64'), 'unicode': np.arange(6).astype('U3'),
            'composed': [unicodedata.normalize('NFC', word) for word in words],
            'decomposed': [unicodedata.normalize('NFD', word) for word in words]}[form]


FORMS = [('ints', 'text'), ('text', 'ints'), ('text', 'floats'), ('floats', 'ints'), ('ints', 'blanks'),
         ('list', 'unicode'), ('nullable', 'text'), ('composed', 'decomposed'), ('decomposed', 'composed')]


@pytest.mark.parametrize('known_form, new_form', FORMS)
def test_a_known_listing_is_taken_from_the_new_ones_whatever_its_id_was_read_as(known_form, new_form):
    known = Embeddings({'image': VECTORS[:6]}, ids_as(known_form))
    new = Embeddings({'image': VECTORS[[0, 3]]}, pd.Series(ids_as(new_form)).iloc[[0, 3]])
    matcher = Matcher(Rule('mean', {'image': 1.}, .9), known)
    result = matcher.match(new)
    # the two of them, and of the catalogue's six the other four
    assert len(result.ids) == 6 == len(set(result.ids)) and result.ids[:2].tolist() == [*matcher.ids[[0, 3]]]
    by_id = as_sets(matcher.match())
    assert as_sets(result) == {listing: by_id[listing] for listing in result.ids[:2]}
    with pytest.raises(InputError, match='in the catalogue already'): matcher.add(new)
    assert result.explain(new.ids[0]).posting_id == str(new.ids[0])
    matcher.remove(list(new.ids))
    assert len(matcher) == 4


@pytest.mark.parametrize('known_form, new_form', FORMS[:-2])
def test_ids_of_a_table_with_a_missing_one_meet_those_of_the_catalogue(known_form, new_form):
    titles = ['red bag', 'blue bag', 'red shoe', 'lamp', 'green lamp', 'tea']
    rule = Rule('mean', {'tfidf': 1.}, .9)
    known = pd.DataFrame({'posting_id': ids_as(known_form), 'title': titles})
    matcher, _ = Matcher.from_df(known, '.', rule, None, Columns(image=None))
    # a row without an id makes floats of the others
    new = pd.DataFrame({'posting_id': [*ids_as(new_form), None], 'title': [*titles, 'cup']})
    result = matcher.match(new, on_error='skip')
    assert sorted(result.ids) == sorted(matcher.ids) and len(result.skipped) == 1
