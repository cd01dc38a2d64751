"Several pictures of an item in a batch: which, how many, what is missing; texts with limits of their own."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.augment import Resize

from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.frames import TensorCount, TensorFrames, taken_evenly
from fastmatch.data.title import CharacterTokenizer, TitleParts, Tokenize, ids_of_parts

from .made import noise


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp('frames')
    for number in range(40): noise(24, 24, number).save(made/f'{number}.png')
    return made


def table(n=20):
    "Items with 0 to 5 pictures (item 0 has none), the second without a text."
    rows, start = [], 0
    for item in range(n):
        names = [f'{(start + place) % 40}.png' for place in range(item % 6)]
        start += len(names)
        rows.append({'id': f'i{item}', 'photos': ' '.join(names) or None, 'name': f'thing number {item}',
                     'words': f'heard {item}' if item % 2 else None, 'label': 'ab'[item // 2 % 2],
                     'fold': item % 4})
    rows[1] |= {'name': None, 'words': None}
    return pd.DataFrame(rows)


def make(folder, df=None, **kwargs):
    options = dict(image_col='photos', title_col=['name', 'words'], id_col='id', fold_col='fold', frames=3,
                   bs=4, item_tfms=Resize(16), num_workers=0, phash=False)
    return ClassifyDataLoaders.from_df(table() if df is None else df, folder, **{**options, **kwargs})


class Means:
    "Stands in for `FrameFeatures`: the mean color of a picture, and how often it was asked."
    n_out = 3
    def __init__(self): self.warmed = []
    def warm(self, paths): self.warmed += [path.name for path in paths]

    def __call__(self, paths):
        from PIL import Image
        return np.stack([np.asarray(Image.open(path).convert('RGB')).mean((0, 1)) for path in paths]).astype(
            np.float32)


def test_frames_are_taken_evenly():
    assert taken_evenly(list('abcdefgh'), 4) == ['b', 'd', 'f', 'h']
    assert taken_evenly(list('abcde'), 2) == ['b', 'd']
    assert taken_evenly(list('abc'), 3) == ['a', 'b', 'c']
    assert taken_evenly(list('ab'), 3) == ['a', 'b', 'a']
    assert taken_evenly([], 2) == [None, None]
    for n in range(1, 30):
        for k in range(1, n + 1):
            taken = taken_evenly(list(range(n)), k)
            gaps = np.diff([-taken[0] - 1, *taken, 2 * n - taken[-1]])[1:-1]
            assert len(set(taken)) == k and (not len(gaps) or gaps.max() - gaps.min() <= 1)


def test_a_batch_has_frames_and_their_number(folder):
    dls = make(folder)
    inputs = dls.valid.one_batch()
    assert [type(each).__name__ for each in inputs] == ['TensorImage'] * 3 + ['TensorCount', 'TensorTitle',
                                                                           'TensorCategory']
    assert inputs[3].tolist() == [min(int(item[1:]) % 6, 3) for item in dls.valid_df.id[:8]]
    assert dls.lacking == {'image': 4, 'title': 1}


def test_missing_texts_have_no_token_and_missing_pictures_are_blank(folder):
    dls = make(folder, valid_fold=None, bs=20, shuffle=False)
    loader = dls.test_dl(dls.df, bs=20)
    *pictures, counts, ids = loader.one_batch()
    assert (ids[1] == 0).all() and (ids[0] != 0).any()
    assert counts[0] == 0 and (pictures[0][0] == 1).all()


def test_features_in_place_of_pictures(folder):
    features = Means()
    dls = make(folder, frame_features=features, valid_fold=None)
    assert set(features.warmed) == {name for cell in table().photos.dropna() for name in
                                    taken_evenly(cell.split(), 3)}
    frames, counts, _ = dls.test_dl(dls.df, bs=20).one_batch()
    assert isinstance(frames, TensorFrames) and frames.shape == (20, 3, 3) and isinstance(counts, TensorCount)
    for row, cell in enumerate(table().photos):
        names = [] if cell is None or cell != cell else taken_evenly(cell.split(), 3)[:len(cell.split())]
        expected = Means()([folder/name for name in names]) if names else np.zeros((0, 3))
        np.testing.assert_allclose(frames[row, :len(names)], expected)
        assert (frames[row, len(names):] == 0).all() and counts[row] == len(names)


def test_drawn_frames_change_with_the_epoch_and_repeat_with_the_seed(folder):
    def epochs(seed, n_workers=0):
        seed_everything(seed)
        dls = make(folder, frame_features=Means(), draw_frames=True, seed=seed, valid_fold=None, frames=2,
                   num_workers=n_workers, sampler='weighted')
        return [torch.cat([batch[0] for batch in dls.train]) for _ in range(2)]
    first, second = epochs(0)
    again, _ = epochs(0)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, again)
    valid = make(folder, frame_features=Means(), draw_frames=True, frames=2).valid
    torch.testing.assert_close(valid.one_batch()[0], valid.one_batch()[0])


def test_texts_have_limits_of_their_own(folder):
    dls = make(folder, max_len={'name': 3, 'words': 2}, valid_fold=None)
    tokenize = next(each for each in dls.valid.before_batch.fs if isinstance(each, Tokenize))
    assert tokenize.limits == (3, 2)
    ids = dls.test_dl(dls.df, bs=20).one_batch()[-1]

    def of(text): return [ord(character) for character in text]
    assert ids[3, :9].tolist()[:4] == of('thin'[:3]) + [ord('|')]
    assert [value for value in ids[3].tolist() if value] == of('thi|he|')
    # a part that is missing leaves its separator, an item without a text has nothing
    assert [value for value in ids[2].tolist() if value] == of('thi||')
    assert (ids[1] == 0).all()


def test_parts_by_a_tokenizer_of_transformers(tmp_path):
    from transformers import BertTokenizer
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'red', 'bag', 'new', 'shoe']
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    titles = [TitleParts(['red bag new', 'shoe']), TitleParts(['', 'bag shoe red']), TitleParts(['', ''])]
    expected = [['[CLS]', 'red', 'bag', '[SEP]', 'shoe', '[SEP]'],
                ['[CLS]', '[SEP]', 'bag', 'shoe', '[SEP]'], []]
    found = ids_of_parts(tokenizer, titles, (2, 2))
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in found] == expected
    # without limits that bind, two parts are what the tokenizer itself makes of a pair
    plain = tokenizer('red bag new', 'shoe')['input_ids']
    assert ids_of_parts(tokenizer, titles[:1], (9, 9))[0] == plain
    assert ids_of_parts(CharacterTokenizer(), [TitleParts(['ab', 'c'])], (1, 1)) == [[97, 124, 99, 124]]


def test_two_pictures_of_a_listing_in_one_batch(folder):
    listings = pd.DataFrame({'posting_id': [f'p{row}' for row in range(16)],
                             'image': [f'{row}.png|{row + 16}.png' if row % 2 else f'{row}.png'
                                       for row in range(16)],
                             'title': [f'thing {row}' for row in range(16)],
                             'label_group': [row // 2 % 4 for row in range(16)],
                             'fold': [row // 2 % 4 for row in range(16)]})
    dls = MatchDataLoaders.from_df(listings, folder, fold_col='fold', frames=2, item_tfms=Resize(16), bs=4,
                                   num_workers=0, phash=False)
    *pictures, counts, _, _ = dls.valid.one_batch()
    assert len(pictures) == 2
    assert counts.tolist() == [len(cell) if isinstance(cell, tuple) else 1 for cell in dls.valid_df.image]


@pytest.mark.parametrize('options, message', [
    (dict(frames=0), 'frames=0: give 1 or more'), (dict(frames=2.5), 'frames=2.5'),
    (dict(frames=1, draw_frames=True), 'draw_frames=True asks for frames=2'),
    (dict(image_col=None, frames=1, draw_frames=True), 'draw_frames: there are no images'),
    (dict(frame_features='lite0'), "frame_features='lite0': give FrameFeatures"),
    (dict(max_len={'name': 3}), r"max_len=.*each of the columns \['name', 'words'\]"),
    (dict(max_len={'name': 3, 'words': 0}), "0 tokens of 'words'"),
    (dict(max_len='long'), "max_len='long'"),
    (dict(max_len={'name': 3, 'words': 3}, title_tfms=[str.upper]), 'title_tfms change one text')])
def test_options_that_will_not_do(folder, options, message):
    with pytest.raises(InputError, match=message): make(folder, **options)


def test_an_item_with_neither_picture_nor_text_is_named(folder):
    df = table()
    df.loc[6, ['name', 'words']] = None
    with pytest.raises(InputError, match=r"row 6 \(id 'i6'\).*neither picture nor text"): make(folder, df)
    dls = make(folder, df, on_error='skip')
    assert dls.skipped.id.tolist() == ['i6']


def test_a_frame_that_can_not_be_read_is_named(folder):
    df = table()
    df.loc[5, 'photos'] = '1.png none.png'
    with pytest.raises(InputError, match=r"row 5 \(id 'i5'\), photos: none.png: "): make(folder, df)


def test_new_items_are_read_alike(folder):
    dls = make(folder, frame_features=Means())
    new = table().drop(columns='label').iloc[:4]
    widened = dls.widen(new)
    frames, counts, ids = dls.test_dl(widened, bs=4).one_batch()
    assert counts.tolist() == [0, 1, 2, 3] and (ids[1] == 0).all()


def test_frames_that_may_be_drawn_are_checked(folder):
    df = table()
    df.loc[5, 'photos'] = '1.png 2.png none.png 3.png 4.png'
    assert len(make(folder, df, frames=2).df) == len(df)
    with pytest.raises(InputError, match=r"row 5 .*none.png: no such file"):
        make(folder, df, frames=2, draw_frames=True)
    for features in (None, Means()):
        dls = make(folder, df, frames=2, draw_frames=True, frame_features=features, on_error='skip')
        assert dls.skipped.id.tolist() == ['i5']


def test_names_missing_in_a_list_are_no_frames(folder):
    df = table()
    df['photos'] = [[*cell.split(), None] if isinstance(cell, str) else [None] for cell in df.photos]
    dls = make(folder, df, frame_features=Means(), valid_fold=None)
    assert dls.df['photos (frames)'].tolist() == [min(item % 6, 3) for item in range(20)]


def test_columns_of_the_names_that_frames_get_are_refused(folder):
    df = table().rename(columns={'words': 'photos 1'})
    with pytest.raises(InputError, match=r"\['photos 1'\]: frames make columns of these names"):
        make(folder, df, title_col=['name', 'photos 1'])
