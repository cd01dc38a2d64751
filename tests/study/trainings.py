"Small real trainings that tests of studies share: the demo's images with an encoder that trains in a second."
import pandas as pd
from fastai.vision.augment import Resize

from fastmatch.core import seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path

ENCODER = dict(image_arch='test_efficientnet', pretrained=False)


def demo_listings():
    "(listings of folds 0 and 1, of fold 2): eight groups of each."
    df = pd.read_csv(demo_path()/'listings.csv')
    by_fold = df.groupby('fold').label_group
    is_kept = by_fold.transform(lambda groups: groups.isin(sorted(groups.unique())[:8]))
    df = df[is_kept].drop(columns=[column for column in df if 'phash' in column])
    return df[df.fold < 2].reset_index(drop=True), df[df.fold == 2].reset_index(drop=True)


def loaders(df, sampler=None, **keywords):
    seed_everything(0)
    keywords = dict(text_col=None, fold_col='fold', item_tfms=Resize(32), bs=16, num_workers=0, phash=False,
                    sampler=sampler, device='cpu', **keywords)
    return MatchDataLoaders.from_df(df, demo_path()/'images', **keywords)
