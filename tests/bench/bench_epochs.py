"Epochs of training: titles of like length in a batch beside titles of any."
from functools import cache
from itertools import count
from pathlib import Path

from tests.bench.harness import Case, Value, bench

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
TITLES = 'text/amazon_google.csv', 'text/walmart_amazon.csv', 'emoji/listings.csv'
STEPS = 6  # of an epoch's batches


@cache
def real_titles(quick):
    "Amazon-Google, Walmart-Amazon and emoji: 31,000 titles of 3 to 60 tokens; quick: a part of the sample's."
    import pandas as pd

    from fastmatch.data.demo import demo_path
    files = [demo_path()/'listings.csv'] if quick else [DATA/name for name in TITLES]
    tables = [pd.read_csv(file)[['title']].assign(source=file.stem) for file in files]
    df = pd.concat(tables, ignore_index=True).dropna()
    df = df[df.title.str.strip() != ''].head(400 if quick else None)
    # two classes, as a learner needs them
    return df.assign(posting_id=range(len(df)), label=[row % 2 for row in range(len(df))])


def titles_learner(quick, buckets):
    "A `classify_learner` of titles, MiniLM as it comes."
    from fastmatch.core import seed_everything
    from fastmatch.data.classify import ClassifyDataLoaders
    from fastmatch.learner import classify_learner
    seed_everything(0)
    dls = ClassifyDataLoaders.from_df(real_titles(quick), image_col=None, valid_fold=None,
                                      bs=8 if quick else 64, num_workers=0, phash=False, buckets=buckets)
    return classify_learner(dls, pretrained=not quick)


def batches_of_epoch(loader):
    "The rows of an epoch's batches by their longest title, and the tokens that each batch has with padding."
    import numpy as np
    lengths = loader._token_counts()
    rows = np.array(loader.get_idxs())
    batches = rows[:len(rows)//loader.bs*loader.bs].reshape(-1, loader.bs)
    longest = lengths[batches].max(1)
    order = np.argsort(longest, kind='stable')
    return batches[order], longest[order]*loader.bs


def part_of_epoch(quick, buckets):
    "A call that trains on a sixth's middle batch for each sixth of an epoch, sorted by their longest title."
    import numpy as np
    learn = titles_learner(quick, buckets)
    batches, _ = batches_of_epoch(learn.dls.train)
    steps = 2 if quick else STEPS
    middles = ((np.arange(steps) + .5)*len(batches)/steps).astype(int)
    loader = learn.dls.train.new(shuffle=False, get_idxs=lambda: batches[middles].ravel().tolist())
    learn.create_opt()
    learn.opt.set_hypers(lr=1e-5)
    learn.n_epoch, learn.epoch, learn.dl, learn.n_iter = 1, 0, loader, steps
    learn.remove_cbs([callback for callback in learn.cbs if callback.name == 'progress'])
    for event in ('before_fit', 'before_epoch', 'before_train'): learn(event)
    numbers = count()

    def train():
        for batch in loader: learn.one_batch(next(numbers), batch)
    return train, len(batches)/steps


@bench('epochs')
def titles(quick):
    """An epoch over titles with buckets and without, its batches from reading to step; timed on a share of
    them, the same of both sides, that stands for short and long ones alike."""
    import numpy as np
    tokens, parts = {}, {}
    for name, buckets in (('buckets', True), ('any length', False)):
        train, times = part_of_epoch(quick, buckets)
        parts[name] = train, times
        _, with_padding = batches_of_epoch(titles_learner(quick, buckets).dls.train)
        tokens[name] = np.sum(with_padding)
    yield Value('tokens of an epoch', 'buckets', tokens['buckets']/tokens['any length'], 'of any length',
                aim=None if quick else .55)
    yield Case('epoch on titles', {name: lambda train=train: train for name, (train, _) in parts.items()},
               'any length', bar=.55, scale={name: times for name, (_, times) in parts.items()})
