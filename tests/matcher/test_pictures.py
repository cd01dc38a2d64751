"A matcher whose listings have several pictures: embedded, saved, loaded, extended, explained."
import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError, seed_everything
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.match import Dense, Embeddings, PictureSets, Rule, candidates, choose_rule
from fastmatch.matcher import Encoder, Matcher, Picture, load_matcher
from fastmatch.matcher.listings import embed_listings
from fastmatch.models import ImageEncoder, MatchNet
from tests.match.spaces.promises import assert_same

IMAGES = demo_path()/'images'
COLUMNS = Columns(title=None)
RULE = Rule('mean', {'image': 1.}, .9, join=('phash',))


@pytest.fixture(scope='module')
def encoder():
    pytest.importorskip('timm')
    seed_everything(0)
    return Encoder(MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False), neck=False),
                   Picture((32, 32), 'squish'))


@pytest.fixture(scope='module')
def single():
    "Sixty listings of one picture each."
    return pd.read_csv(demo_path()/'listings.csv').head(60).reset_index(drop=True)


@pytest.fixture(scope='module')
def several(single):
    "Thirty of two pictures, the other thirty of one."
    pairs = [f'{first}|{second}' for first, second in zip(single.image[:60:2], single.image[1:60:2])]
    merged = single.iloc[:60:2].assign(image=pairs)
    merged.loc[merged.index[::2], 'image'] = single.image[:60:4].to_numpy()
    return merged.reset_index(drop=True)


def embedded(df, encoder, **kwargs): return embed_listings(df, IMAGES, COLUMNS, RULE, encoder, **kwargs)


def test_every_picture_is_embedded(single, several, encoder):
    alone, _ = embedded(single, encoder)
    sets, skipped = embedded(several, encoder)
    assert not len(skipped) and len(sets) == 30 and sets.pictures['image'].counts.tolist() == [1, 2] * 15
    assert not alone.pictures and type(alone.spaces()['image']) is Dense
    row_of = {image: row for row, image in enumerate(single.image)}
    wanted = [row_of[name] for cell in several.image for name in cell.split('|')]
    np.testing.assert_allclose(sets.pictures['image'].vectors, alone['image'][wanted], atol=1e-5)
    assert sets.phash[1] == tuple(dict.fromkeys(alone.phash[[2, 3]])) and isinstance(sets.phash[0], str)
    # a list of names says the same as text
    as_lists = several.assign(image=[cell.split('|') for cell in several.image])
    np.testing.assert_array_equal(embedded(as_lists, encoder)[0].pictures['image'].vectors,
                                  sets.pictures['image'].vectors)


def test_pictures_in_memory(several, encoder):
    from fastmatch.data.image import read_image
    in_memory = several.assign(image=[[read_image(IMAGES/name) for name in cell.split('|')]
                                      for cell in several.image])
    np.testing.assert_array_equal(embedded(in_memory, encoder)[0]['image'],
                                  embedded(several, encoder)[0]['image'])


def test_a_listing_keeps_its_readable_pictures(several, encoder):
    broken = several.copy()
    broken.loc[0, 'image'] = 'none.png|gone.png'
    broken.loc[1, 'image'] += '|gone.png'
    with pytest.raises(InputError) as raised: embedded(broken, encoder)
    for line in ("row 0 (posting_id 'emoji_", 'image: none.png: no such file',
                 'image: gone.png: no such file', '2 unusable rows'):
        assert line in str(raised.value)
    with pytest.warns(UserWarning, match='1 picture.*row 1 .*gone.png: no such file'):
        sets, skipped = embedded(broken, encoder, on_error='skip')
    assert skipped.row.tolist() == [0, 0] and len(sets) == 29
    rest, _ = embedded(several.iloc[1:], encoder)
    assert sets.ids.tolist() == rest.ids.tolist() and sets.phash.tolist() == rest.phash.tolist()
    np.testing.assert_allclose(sets.pictures['image'].vectors, rest.pictures['image'].vectors, atol=1e-5)


@pytest.fixture
def matcher(several, encoder): return Matcher.from_df(several, IMAGES, RULE, encoder, COLUMNS)[0]


def test_saved_and_loaded_it_matches_the_same(matcher, single, tmp_path):
    matcher.save(tmp_path/'m')
    again = load_matcher(tmp_path/'m', 'cpu')
    space = again.spaces['image']
    assert isinstance(space, PictureSets) and space.similarity == 'best'
    np.testing.assert_array_equal(space.vectors, matcher.spaces['image'].vectors)
    assert space.counts.tolist() == [1, 2] * 15
    assert again.spaces['phash'].keys.tolist() == matcher.spaces['phash'].keys.tolist()
    for new in (None, single.tail(20).assign(posting_id=[f'new{row}' for row in range(20)])):
        results = [each.match(new, IMAGES) for each in (matcher, again)]
        pd.testing.assert_frame_equal(results[0].pairs(), results[1].pairs())
    # the second picture of a known listing
    found = again.match(single.iloc[[3]].assign(posting_id='second'), IMAGES)
    assert matcher.ids[1] in found.to_frame().matches[0].split()


def test_new_listings_of_several_pictures_among_known_ones_of_one(single, several, encoder, tmp_path):
    matcher, _ = Matcher.from_df(single.iloc[:40], IMAGES, RULE, encoder, COLUMNS)
    assert type(matcher.spaces['image']) is Dense
    new = several.tail(15).assign(posting_id=[f'new{row}' for row in range(15)])
    by_pool = matcher.match(new, IMAGES)
    assert len(by_pool) == 15
    matcher.add(new, IMAGES)
    assert isinstance(matcher.spaces['image'], PictureSets) and len(matcher) == 55
    matcher.save(tmp_path/'m')
    again = load_matcher(tmp_path/'m', 'cpu')
    assert_same(again.spaces['image'].search(9), matcher.spaces['image'].search(9))
    matcher.remove(matcher.ids[:3])
    assert len(matcher.spaces['image']) == 52


def test_one_picture_each_is_written_as_before(single, encoder, tmp_path):
    matcher, _ = Matcher.from_df(single, IMAGES, RULE, encoder, COLUMNS)
    as_sets = single.assign(image=[[name] for name in single.image])
    other, _ = Matcher.from_df(as_sets, IMAGES, RULE, encoder, COLUMNS)
    assert matcher.files() == other.files()
    assert b'pictures' not in matcher.files()['listings.json']


def test_the_rule_says_how_pictures_are_compared(several, encoder):
    emb, _ = embedded(several, encoder)
    groups = several.label_group.to_numpy()
    emb = Embeddings(emb, emb.ids, groups=groups, phash=emb.phash).compared_by('mean')
    rule = choose_rule(candidates(emb.spaces(only=('image', 'phash'))), groups)
    assert rule.made_with['pictures'] == 'mean'
    matcher, _ = Matcher.from_df(several, IMAGES, rule, encoder, COLUMNS)
    assert matcher.spaces['image'].similarity == 'mean'
    assert matcher.embed(several, IMAGES)[0].similarity == 'mean'
    with pytest.raises(InputError, match="pictures='best'"): matcher.match(emb.compared_by('best'))
    # with a catalogue of single pictures too
    single_rows = several.iloc[::2]
    matcher, _ = Matcher.from_df(single_rows, IMAGES, rule, encoder, COLUMNS)
    assert matcher.spaces['image'].similarity == 'mean'
    assert len(matcher.match(several, IMAGES)) == 30


def test_explained_with_the_first_picture(matcher, several):
    import matplotlib
    matplotlib.use('Agg')
    explanation = matcher.explain(matcher.ids[1], df=several, path=IMAGES, df_path=IMAGES)
    figure = explanation.show()
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels[0] == 'this listing +1'
