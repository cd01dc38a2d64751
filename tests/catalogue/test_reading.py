"What a catalogue says of its listings, groups and events, against its own tables."
import numpy as np
import pandas as pd
import pytest

from fastmatch.catalogue import Catalogue
from fastmatch.core import InputError
from tests.catalogue.made import RULES, listings, matcher_of


@pytest.fixture
def catalogue(tmp_path):
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        pictures = {'p000': ['a.jpg', 'b.jpg'], 'p001': ['one|two.jpg']}
        catalogue.add(listings(30).take(np.arange(20)), pictures=pictures, who='ana')
        catalogue.add(listings(30), on_known='skip')
        yield catalogue


def test_listings_as_they_are_shown(catalogue):
    table, groups = catalogue.listings(['p001', 'nobody', 'p000', 'p025']), catalogue.groups()
    assert table.posting_id.tolist() == ['p001', 'p000', 'p025']
    titles = dict(zip(listings(30).ids, listings(30).titles))
    assert table.title.tolist() == [titles[name] for name in table.posting_id]
    assert table.group.tolist() == [int(groups.group[groups.posting_id == name].iloc[0])
                                    for name in table.posting_id]
    assert table.pictures.tolist() == [['one|two.jpg'], ['a.jpg', 'b.jpg'], []]
    assert catalogue.listings([]).columns.tolist() == ['posting_id', 'title', 'pictures', 'group']


def test_largest_groups(catalogue):
    sizes = catalogue.groups().group.value_counts()
    wanted = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
    assert list(catalogue.largest_groups(100).itertuples(index=False, name=None)) == wanted
    assert list(catalogue.largest_groups(3, 2).itertuples(index=False, name=None)) == wanted[2:5]
    assert catalogue.largest_groups(100, least=3).listings.min() >= 3
    assert catalogue.n_groups == len(sizes)


def test_search(catalogue):
    titles = pd.Series(listings(30).titles, listings(30).ids)
    for text in ('RED bag', 'size', 'bag red', 'p007', 'size 1'):
        wanted = {name for name, title in titles.items()
                  if all(word in title for word in text.lower().split())} | {text} & set(titles.index)
        assert set(catalogue.search(text)) == wanted
    assert len(catalogue.search('size', 4)) == 4 and catalogue.search('') == catalogue.search('%') == []
    catalogue.remove('p007')
    assert catalogue.search('p007') == []


def test_last_events(catalogue):
    assert catalogue.events().kind.tolist() == ['add', 'add'] and catalogue.events().who[0] == 'ana'
    assert catalogue.events(1).event.tolist() == [2] and len(catalogue.events(5)) == 2


def test_scores_of_close_calls(catalogue):
    calls = catalogue.close_calls(scores=True)
    assert calls.drop(columns='scores').equals(catalogue.close_calls())
    for call in calls.itertuples():
        assert abs(.7 * call.scores['image'] + .3 * call.scores['tfidf'] - call.score) < 1e-5


@pytest.mark.parametrize('name', ['mean', 'above', 'pools'])
def test_each_as_if_it_came_alone(name, tmp_path):
    embeddings = listings(40)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES[name])) as catalogue:
        catalogue.add(embeddings.take(np.arange(25)))
        asked = embeddings.take(np.arange(25, 40))
        together = catalogue.match(asked, within=False)
        alone = pd.concat([catalogue.match(asked.take([row])) for row in range(15)], ignore_index=True)
        assert together[['posting_id', 'match', 'group']].equals(alone[['posting_id', 'match', 'group']])
        assert np.allclose(together.score, alone.score, atol=1e-6) and len(together)


def test_steps_that_look_at_all_listings_are_refused(tmp_path):
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['agglomerate'])) as catalogue:
        with pytest.raises(InputError, match='match one by one'): catalogue.match(listings(5), within=False)


def test_nothing_is_new(tmp_path):
    from fastmatch.match import Embeddings
    from fastmatch.match.spaces.picture_sets import Pictures
    own = listings(4)
    sets = Embeddings({'image': Pictures(np.repeat(own['image'], 2, 0), np.repeat(np.arange(4), 2))}, own.ids,
                      own.titles)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        catalogue.add(own)
        assert catalogue.add(sets, on_known='skip').known == own.ids.tolist()
