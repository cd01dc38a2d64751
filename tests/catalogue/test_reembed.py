"Listings with pictures, columns and sources come back from the file as they were, and are embedded anew."
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from fastmatch.catalogue import Catalogue, reembed
from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.match import Rule
from fastmatch.matcher import Encoder, Matcher, Picture
from fastmatch.models import ImageEncoder, MatchNet
from tests.catalogue.made import RULES, listings, matcher_of, partition_of

IMAGES = demo_path()/'images'
COLUMNS = Columns(group=None, fields={'price': 'number'})
RULE = Rule('mean', {'image': .8, 'tfidf': .2}, .9, k=30, compared=('price',), join=('same_title',))


def table(n=16):
    df = pd.read_csv(demo_path()/'listings.csv').head(n)[['posting_id', 'image', 'title']]
    return df.assign(price=np.where(np.arange(n) % 3, np.arange(n) + .5, np.nan))


def matcher(seed):
    torch.manual_seed(seed)
    encoder = Encoder(MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False), neck=False),
                      Picture((32, 32)))
    return Matcher.from_df(table(), IMAGES, RULE, encoder, COLUMNS)[0]


def test_another_encoder(tmp_path, monkeypatch):
    first, second, file = matcher(0), matcher(1), tmp_path/'shop.db'
    with Catalogue.create(file, first) as catalogue:
        catalogue.add(table(), IMAGES)
        catalogue.verdict('emoji_0001', 'emoji_0003', False)
        index = catalogue.index()
        index.merge()
        # what is read back is what the matcher made, to the last bit
        for name, space in first.spaces.items():
            kept = index.parts[0].spaces[name]
            if name == 'image': assert np.array_equal(kept.vectors, space.vectors)
            rows = np.arange(16)
            np.testing.assert_allclose(kept.scores(rows[:, None], rows), space.scores(rows[:, None], rows),
                                       atol=1e-6)
    with pytest.raises(InputError, match='another encoder'): Catalogue(file, second)
    # it is cut off after the second piece, and goes on from there
    module = sys.modules['fastmatch.catalogue.reembed']
    monkeypatch.setattr(module, 'PIECE', 5)
    whole, pieces = module._embedded, []

    def until_cut_off(record, matcher, numbers, *args):
        pieces.append(len(numbers))
        if len(pieces) == 3: raise KeyboardInterrupt
        return whole(record, matcher, numbers, *args)

    monkeypatch.setattr(module, '_embedded', until_cut_off)
    with pytest.raises(KeyboardInterrupt): reembed(file, second, IMAGES)
    with Catalogue(file, first) as catalogue: assert len(catalogue) == 16 and catalogue.check() == []
    changes = reembed(file, second, IMAGES)
    assert changes.kind == 'embed' and pieces == [5, 5, 5, 5, 1]
    with Catalogue(file, second) as catalogue, Catalogue.create(tmp_path/'anew.db', second) as anew:
        anew.add(table(), IMAGES)
        anew.verdict('emoji_0001', 'emoji_0003', False)
        assert partition_of(catalogue) == partition_of(anew) and catalogue.check() == []
        assert catalogue.events().kind.tolist() == ['add', 'verdict', 'embed']
        assert catalogue.record.execute('select count(distinct encoder), count(*) from vector'
                                        ).fetchone() == (1, 16)
    with pytest.raises(InputError, match='by this encoder already'): reembed(file, second, IMAGES)
    with pytest.raises(InputError, match='no encoder'): reembed(file, matcher_of(RULES['mean']), IMAGES)


def test_vectors_alone_cannot_be_embedded_anew(tmp_path):
    first = matcher(0)
    embeddings, _ = first.embed(table(), IMAGES)
    with Catalogue.create(tmp_path/'shop.db', first) as catalogue: catalogue.add(embeddings)
    with pytest.raises(InputError, match='no file names of pictures are kept of: emoji_0000'):
        reembed(tmp_path/'shop.db', matcher(1), IMAGES)


def test_several_pictures(tmp_path):
    from fastmatch.match import Embeddings, Pictures
    rng = np.random.default_rng(0)
    owners = np.array([0, 0, 1, 2, 2, 2, 3])
    vectors = rng.normal(size=(7, 6)).astype(np.float32)
    vectors[2] = vectors[1]
    known = Embeddings({'image': Pictures(vectors, owners)}, list('abcd'))
    rule = Rule('mean', {'image': 1.}, .99, made_with={'pictures': 'best'})
    with Catalogue.create(tmp_path/'shop.db', Matcher(rule, known)) as catalogue:
        catalogue.add(known.take([2, 0]))
        catalogue.add(known.take([1, 3]))
        assert partition_of(catalogue) == {frozenset('ab'), frozenset('c'), frozenset('d')}
    with Catalogue(tmp_path/'shop.db', Matcher(rule, known)) as catalogue:
        assert catalogue.match(known).match.tolist() == ['b', 'a'] and len(catalogue.regroup()) == 0


def test_embeddings_that_do_not_fit(tmp_path):
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        narrow = listings(3)
        narrow['image'] = narrow['image'][:, :5]
        with pytest.raises(InputError, match='image: new listings have 5 dimensions, the catalogue 8'):
            catalogue.add(narrow)
        del narrow['image']
        with pytest.raises(InputError, match="keeps 'image' of each listing"): catalogue.add(narrow)
