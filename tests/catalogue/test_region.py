"Listings that come: what is read of the groups they join gives what reading the whole groups gives."
import numpy as np
import pandas as pd
import pytest

from fastmatch.catalogue import Catalogue, settle
from tests.catalogue.made import RULES, listings, matcher_of


@pytest.fixture
def regions(monkeypatch):
    "What `grown_region` gave, one after the other; with `is_off` the groups are read whole."
    given = []
    grown_region = settle.grown_region

    def watched(*arguments):
        region = None if watched.is_off else grown_region(*arguments)
        given.append(region)
        return region
    watched.is_off, watched.given = False, given
    monkeypatch.setattr(settle, 'grown_region', watched)
    return watched


@pytest.mark.parametrize('rule', ['mean', 'above', 'augment'])
def test_short_way_and_long_way(rule, tmp_path, regions):
    merged = sum(both_ways(rule, seed, tmp_path/str(seed), regions) for seed in range(3))
    assert merged
    # the short way was taken where it can be, and left where verdicts stand against it
    assert any(region is not None and len(region.listings) < 90 / 2 for region in regions.given)


def both_ways(rule, seed, folder, regions) -> int:  # How many groups were merged
    "Pieces of different size, and now and then a verdict, a removal, and a listing that comes again."
    rng = np.random.default_rng(seed)
    embeddings = listings(90, seed, spread=.35)
    matcher = matcher_of(RULES[rule])
    folder.mkdir()
    merged = 0
    with Catalogue.create(folder/'short.db', matcher) as short, Catalogue.create(folder/'long.db',
                                                                                 matcher) as long:
        def both(call):
            nonlocal merged
            regions.is_off = False
            ours = call(short)
            regions.is_off = True
            theirs = call(long)
            pd.testing.assert_frame_equal(ours.frame, theirs.frame)
            assert (ours.opened, ours.merged, ours.gone) == (theirs.opened, theirs.merged, theirs.gone)
            assert short.groups().equals(long.groups())
            merged += len(ours.merged)
        order = rng.permutation(len(embeddings))
        for piece in np.split(order, np.sort(rng.choice(np.arange(1, len(order)), 14, replace=False))):
            both(lambda shop, piece=piece: shop.add(embeddings.take(piece)))
            there = short.groups().posting_id.tolist()
            one, other = rng.choice(len(there), 2, replace=len(there) == 1)
            if rng.random() < .3 and one != other:
                both(lambda shop, pair=(there[one], there[other]): shop.verdict(*pair, False))
            if rng.random() < .3:
                both(lambda shop, gone=there[other]: shop.remove(gone))
                again = embeddings.take(embeddings.ids == there[other])
                both(lambda shop, again=again: shop.add(again))
    return merged


def test_whole_groups_are_not_read(tmp_path, regions):
    "A group of thirty that a new listing joins is one listing of its region."
    rng = np.random.default_rng(0)
    embeddings = listings(31, spread=0.)
    embeddings['image'][:] = rng.normal(size=8)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['above'])) as shop:
        shop.add(embeddings.take(np.arange(30)))
        assert shop.groups().group.nunique() == 1
        shop.add(embeddings.take([30]))
        assert len(regions.given[-1].listings) == 2
        assert shop.groups().group.nunique() == 1
        shop.verdict('p000', 'p001', False)
        shop.remove('p030')
        # a person's 'not the same' inside of the group: it is read whole
        shop.add(embeddings.take([30]))
        assert regions.given[-1] is None


@pytest.mark.parametrize('same', [True, False])
def test_a_verdict_on_what_comes_again(same, tmp_path, regions):
    "People judged a listing that went: when it comes again, their verdict holds."
    embeddings = listings(24, spread=0.)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['above'])) as shop:
        shop.add(embeddings)
        groups = shop.groups().set_index('posting_id').group
        other = next(listing for listing in groups.index
                     if (groups[listing] == groups['p000']) != same and listing != 'p000')
        shop.verdict('p000', other, same)
        shop.remove('p000')
        shop.add(embeddings.take([0]))
        assert regions.given[-1] is None
        groups = shop.groups().set_index('posting_id').group
        assert (groups['p000'] == groups[other]) == same
