"Emoji by vendor, a third of them without a label, and a learner of a random 100,000-parameter model."
import warnings

import numpy as np
from fastai.vision.augment import Resize

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import classify_learner
from tests.learner.test_classify import items


def table(per_vendor=30):
    "Every third item has no vendor."
    df = items(per_vendor)
    df.loc[np.arange(len(df)) % 3 == 0, 'vendor'] = None
    return df


def make_dls(df=None, folder=None, **options):
    options = {'text_col': None, 'label_col': 'vendor', 'fold_col': 'fold', 'item_tfms': Resize(32),
               'batch_tfms': augs('none'), 'bs': 16, 'num_workers': 0, 'phash': False, 'seed': 0, **options}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # so many items without a label
        return ClassifyDataLoaders.from_df(table() if df is None else df, folder or demo_path()/'images',
                                           **options)


def make(dls, epochs=0, seed=0, **kwargs):
    seed_everything(seed)
    learner = classify_learner(dls, 'test_efficientnet', pretrained=False, **kwargs)
    if epochs:
        with learner.no_bar(), learner.no_logging(): learner.fit(epochs, 2e-3)
    return learner
