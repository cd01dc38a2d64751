"Small learners of folds of the sample; run as a program, a run that is cut off."
import os
import signal
import sys

import pandas as pd
from fastai.vision.augment import Resize

from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import classify_learner, match_learner
from fastmatch.semi.folds import train_folds

IMAGES = demo_path()/'images'
VENDORS = ['noto', 'fluent-emoji-flat', 'twemoji']
OPTIONS = dict(image_col='image', text_col=None, fold_col='fold', item_tfms=Resize(32), bs=16, num_workers=0,
               phash=False, batch_tfms=augs('none'))
RATE = 2e-3


def items(per_vendor=20):
    "Emoji by vendor, in three folds."
    sample = pd.read_csv(demo_path()/'listings.csv')
    sample = sample[sample.vendor.isin(VENDORS)].groupby('vendor').head(per_vendor).reset_index(drop=True)
    return sample.assign(fold=sample.index % 3)


def new_items():
    more = items(30)
    more = more[~more.posting_id.isin(items().posting_id)]
    return more.drop(columns=['vendor', 'fold']).reset_index(drop=True)


def listings(n_groups=8):
    "The first groups of three folds."
    sample = pd.read_csv(demo_path()/'listings.csv')
    groups = sample.groupby('fold').label_group
    in_few = groups.transform(lambda of_fold: of_fold.isin(sorted(of_fold.unique())[:n_groups]))
    return sample[in_few & (sample.fold < 3)].reset_index(drop=True)


def unseen_listings(n=24):
    sample = pd.read_csv(demo_path()/'listings.csv')
    return sample[sample.fold == 4].iloc[:n].reset_index(drop=True)


def classifier(fold, seed, table=None, **options):
    loaders = ClassifyDataLoaders.from_df(items() if table is None else table, IMAGES, label_col='vendor',
                                          valid_fold=fold, seed=seed, **{**OPTIONS, **options})
    return classify_learner(loaders, 'test_efficientnet', pretrained=False)


def matching(fold, seed):
    loaders = MatchDataLoaders.from_df(listings(), IMAGES, valid_fold=fold, seed=seed, **OPTIONS)
    return match_learner(loaders, 'test_efficientnet', pretrained=False)


def fit(learner):
    with learner.no_bar(), learner.no_logging(): learner.fit(1, RATE)


def fit_or_die(learner):
    "In a program that is to die, killed in the second fold."
    fit(learner)
    if 'DIE' in os.environ and learner.dls.valid_df.fold.iloc[0] == 1: os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__': train_folds(classifier, fit_or_die, sys.argv[1], n_folds=3)
