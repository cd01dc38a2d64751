"A catalogue that grows and shrinks is one made anew, and refuses what does not fit it."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Rule, Step
from fastmatch.matcher import Matcher, load_matcher
from tests.matcher.stepped import KNOWN, TITLES, VECTORS
from tests.matcher.trained import IMAGES, as_sets


def test_new_against_catalogue_is_one_self_join(made):
    df, matcher, rule = made.learn.dls.valid_df, made.matcher, made.rule
    first = np.arange(len(df)) % 2 == 0
    small, _ = Matcher.from_df(df[~first], IMAGES, rule, matcher.encoder)
    # the same idf, so that the scores are the same
    if 'tfidf' in small.spaces: small.spaces['tfidf'] = matcher.spaces['tfidf'].take(~first)
    result, want = small.match(df[first], IMAGES), as_sets(matcher.match())
    found = as_sets(result)
    assert found == {listing: want[listing] for listing in found}
    pairs = result.pairs()
    assert (pairs.match.isin(df.posting_id[first]) == (pairs['where'] == 'new')).all()
    assert set(pairs['where']) == {'new', 'catalogue'}
    assert (pairs.score >= rule.threshold).all() and (pairs.why == 'score').all()
    assert len(pairs) == sum(len(want[listing]) - 1 for listing in df.posting_id[first])


def test_add_and_remove(made, tmp_path):
    matcher, df = made.matcher, made.learn.dls.valid_df
    matcher.save(tmp_path/'shop')
    grown = load_matcher(tmp_path/'shop')
    few = df.posting_id[:4].tolist()
    before = as_sets(matcher.match())
    grown.remove(few)
    assert len(grown) == len(matcher) - 4 and not np.isin(few, grown.ids).any()
    with pytest.raises(InputError, match=few[0]): grown.remove(few[0])
    grown.add(df.iloc[:4], IMAGES)
    assert as_sets(grown.match()) == before
    with pytest.raises(InputError, match=few[1]): grown.add(df.iloc[1:2], IMAGES)
    assert len(grown) == len(matcher)
    with pytest.raises(InputError, match='empty catalogue'): grown.remove(grown.ids)


def test_wrong_embeddings_are_refused(made):
    emb, matcher = made.emb, made.matcher
    modality = next(name for name in made.rule.modalities if name in emb)
    few = Embeddings({name: vectors[:3] for name, vectors in emb.items()}, ['x', 'y', 'z'],
                     None if emb.titles is None else emb.titles[:3])
    assert len(matcher.match(few)) == 3
    few[modality] = few[modality][:, :7]
    for catalogue in (True, False):
        with pytest.raises(InputError, match=f'{modality}: queries have 7 dimensions'):
            matcher.match(few, catalogue=catalogue)
    del few[modality]
    with pytest.raises(InputError, match=modality): matcher.match(few)


@pytest.mark.parametrize('ids, word', [(['a', 'a'], 'twice: a'), (['a b', 'c'], 'blanks'),
                                       (['', 'c'], 'empty')])
def test_ids_that_would_break_the_output(ids, word):
    with pytest.raises(InputError, match=word):
        Matcher(Rule('mean', {'image': 1.}, .5), Embeddings({'image': np.eye(2)}, ids))


def test_new_listings_as_in_one_self_join():
    steps = [Step('blend', threshold=.6, by='fused'), Step('k_reciprocal', k1=2), 'veto']
    rule = Rule('mean', {'image': .5, 'tfidf': .5}, .4, steps=steps, join=('same_title',))
    want = as_sets(Matcher(rule, KNOWN).match())
    grown = Matcher(rule, KNOWN)
    grown.remove(['p0', 'p3', 'p6'])
    new = Embeddings({'image': VECTORS[[0, 3, 6]]}, ['p0', 'p3', 'p6'], [TITLES[i] for i in (0, 3, 6)])
    found = as_sets(grown.match(new))
    assert found == {listing: want[listing] for listing in ('p0', 'p3', 'p6')}
    grown.add(new)
    assert as_sets(grown.match()) == want
    with pytest.raises(InputError, match='within=False'): grown.match(new, within=False)
