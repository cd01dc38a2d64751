"Tables of listings: unusable rows are listed at once, hashes are the table's or the pictures'."
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.match import Rule
from fastmatch.matcher import Matcher
from tests.matcher.trained import IMAGES


def test_rows_that_cant_be_used(trained, tmp_path):
    matcher = trained.matcher
    listings = trained.learn.dls.valid_df.iloc[:6].copy()
    for file in listings.image: Image.open(IMAGES/file).save(tmp_path/file)
    (tmp_path/listings.image[1]).write_bytes(b'')
    listings.loc[3, 'image'] = 'gone.png'
    with pytest.raises(InputError) as raised: matcher.match(listings, tmp_path)
    assert all(message in str(raised.value) for message in ('row 1', '0 bytes', 'row 3', 'gone.png'))
    result = matcher.match(listings, tmp_path, on_error='skip')
    assert result.skipped.row.tolist() == [1, 3]
    assert result.to_frame().posting_id.tolist() == listings.posting_id[[0, 2, 4, 5]].tolist()
    with pytest.raises(InputError, match='none of the'):
        matcher.match(listings.assign(image='gone.png'), tmp_path)
    with pytest.raises(InputError, match='not a folder'): matcher.match(listings, tmp_path/'nowhere')
    with pytest.raises(InputError, match='posting_id'):
        matcher.match(listings.drop(columns='posting_id'), tmp_path)
    with pytest.raises(InputError, match='image'): matcher.match(listings.drop(columns='image'), tmp_path)


def test_phash_joins_and_says_so(trained):
    encoder = trained.matcher.encoder
    hashes = ['f0f0f0f0f0f0f0f0', 'f0f0f0f0f0f0f0f1', 'f0f0f0f0f0f0f0f0', None, '0000000000000001']
    listings = trained.learn.dls.valid_df.iloc[:5].assign(image_phash=hashes)
    rule = Rule('mean', {'image': 1.}, .99999, join=('phash',))
    matcher = Matcher.from_df(listings, IMAGES, rule, encoder, {'phash_col': 'image_phash'})[0]
    pairs = matcher.match().pairs()
    first_id, third_id = listings.posting_id[0], listings.posting_id[2]
    found = sorted(zip(pairs.posting_id, pairs.match, pairs.why))
    assert found == sorted([(first_id, third_id, 'phash'), (third_id, first_id, 'phash')])
    copied = listings.iloc[1:2].assign(posting_id='copy')
    # the very picture scores 1 by itself as well; the key is the reason given
    found = matcher.match(copied, IMAGES).pairs()[['posting_id', 'match', 'where', 'why']]
    assert found.to_numpy().tolist() == [['copy', listings.posting_id[1], 'catalogue', 'phash']]
    computed = Matcher.from_df(listings, IMAGES, rule, encoder)[0]
    from imagehash import phash

    from fastmatch.data.image import read_image
    wanted = [str(phash(read_image(IMAGES/file))) for file in listings.image]
    assert computed.spaces['phash'].keys.tolist() == wanted


@pytest.mark.parametrize('dtype', [int, float, str])
def test_files_named_by_numbers(trained, tmp_path, dtype):
    "pandas reads such a column as numbers, and as floats where a row lacks its file."
    listings = trained.learn.dls.valid_df.iloc[:4]
    for number, file in enumerate(listings.image): Image.open(IMAGES/file).save(tmp_path/str(number), 'PNG')
    numbered = listings.assign(image=pd.Series(range(len(listings))).astype(dtype))
    expected = trained.learn.embeddings(listings, tta=True)
    embedded, _ = trained.matcher.embed(numbered, tmp_path)
    np.testing.assert_allclose(embedded['image'], expected['image'], atol=1e-5)
    np.testing.assert_array_equal(embedded.ids.astype(str), listings.posting_id)
