"Epochs of training: titles of like length in a batch beside any; pictures from a store beside their files."
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from tests.bench.harness import Case, Value, bench

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
TITLES = 'text/amazon_google.csv', 'text/walmart_amazon.csv', 'emoji/listings.csv'
STEPS = 6  # of an epoch's batches
PHOTO = 640  # pixels


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


def middle_batches(loader, n, lengths=None):
    """Of an epoch's batches, sorted by their longest title, the middle one of each of `n` parts; how many
    tokens they have, and all batches; without `lengths` of titles the batches count alike."""
    import numpy as np
    rows = np.array(loader.get_idxs())
    batches = rows[:len(rows)//loader.bs*loader.bs].reshape(-1, loader.bs)
    tokens = np.ones(len(batches)) if lengths is None else lengths[batches].max(1)*loader.bs
    order = np.argsort(tokens, kind='stable')
    chosen = order[((np.arange(n) + .5)*len(order)/n).astype(int)]
    return batches[chosen], tokens[chosen].sum(), tokens.sum()


def training(learn, rows):
    "A call that trains on these rows, a batch a step, from reading to step."
    loader = learn.dls.train.new(shuffle=False, get_idxs=lambda: rows.ravel().tolist())
    learn.create_opt()
    learn.opt.set_hypers(lr=1e-5)
    learn.n_epoch, learn.epoch, learn.dl, learn.n_iter = 1, 0, loader, len(rows)
    learn.remove_cbs([callback for callback in learn.cbs if callback.name == 'progress'])
    for event in ('before_fit', 'before_epoch', 'before_train'): learn(event)
    numbers = count()

    def train():
        for batch in loader: learn.one_batch(next(numbers), batch)
    return train


@bench('epochs')
def titles(quick):
    """An epoch over titles: in buckets of like length; of any length, a batch read in parts as training on a
    CPU does by itself; and each batch padded to its longest. Batches from reading to step, timed on a share
    of them that stands for short and long ones alike."""
    from fastmatch.layers import padding
    calls, scale, tokens = {}, {}, {}
    lengths = None
    for name, buckets in (('buckets', True), ('any length', False)):
        learn = titles_learner(quick, buckets)
        # a loader without buckets counts none: both read the same titles in the same order
        if lengths is None: lengths = learn.dls.train.item_lengths()
        rows, n_chosen, tokens[name] = middle_batches(learn.dls.train, 2 if quick else STEPS, lengths)
        calls[name] = training(learn, rows)
        scale[name] = tokens[name]/n_chosen
    yield Value('tokens of an epoch', 'buckets', tokens['buckets']/tokens['any length'], 'of any length',
                aim=None if quick else .55)
    in_parts = padding.WORTHWHILE

    def padded():
        # no share of the tokens that is left is small enough
        padding.WORTHWHILE = 0.
        try: calls['any length']()
        finally: padding.WORTHWHILE = in_parts
    sides = {'in buckets': calls['buckets'], 'in parts': calls['any length'], 'padded': padded}
    scale = {'in buckets': scale['buckets'], 'in parts': scale['any length'], 'padded': scale['any length']}
    for name in ('in buckets', 'in parts'):
        yield Case('epoch on titles', {side: lambda call=sides[side]: call for side in (name, 'padded')},
                   'padded', bar=.55 if name == 'in buckets' else None,
                   scale={side: scale[side] for side in (name, 'padded')})


@cache
def shop_pictures(quick):
    "The sample's drawings in the size and format of a shop's photos: JPEGs of 640 px, with noise."
    import numpy as np
    import pandas as pd
    from PIL import Image

    from fastmatch.data.demo import demo_path
    from fastmatch.data.image import read_image
    folder = Path(tempfile.mkdtemp())
    df = pd.read_csv(demo_path()/'listings.csv').head(16 if quick else 400)
    rng = np.random.default_rng(0)
    for name in df.image:
        large = read_image(demo_path()/'images'/name).resize((PHOTO, PHOTO), Image.BICUBIC)
        noisy = np.asarray(large, np.int16) + rng.integers(-12, 12, (PHOTO, PHOTO, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder/f'{Path(name).stem}.jpg', quality=90)
    return df.assign(image=[f'{Path(name).stem}.jpg' for name in df.image]), folder


@bench('epochs')
def pictures(quick):
    """The second epoch on pictures of 104 px, with a store and without: reading them alone, and training an
    EfficientNet-Lite0 on them."""
    from fastai.vision.augment import Resize

    from fastmatch.core import seed_everything
    from fastmatch.data.augment import augs
    from fastmatch.data.block import MatchDataLoaders
    from fastmatch.learner import match_learner
    df, folder = shop_pictures(quick)
    reads, trains = {}, {}
    for name, store in (('store', folder/'store'), ('files', None)):
        seed_everything(0)
        dls = MatchDataLoaders.from_df(df, folder, title_col=None, valid_fold=None, item_tfms=Resize(104),
                                       batch_tfms=augs('light'), bs=8 if quick else 32, num_workers=0,
                                       phash=False, store=store)
        arch = dict(image_arch='test_efficientnet', pretrained=False) if quick else {}
        learn = match_learner(dls, **arch)
        rows, *_ = middle_batches(learn.dls.train, 2)
        # the datasets' own part of reading, as in the first epoch: the store holds them then
        reads[name] = lambda dls=dls, rows=rows: [dls.train_ds[row][0] for row in rows.ravel().tolist()]
        reads[name]()
        trains[name] = training(learn, rows)
    resize = Resize(104)

    def resized(name):
        def read():
            for picture in reads[name](): resize(picture, split_idx=0)
        return read
    yield Case('reading 104 px', {name: lambda name=name: resized(name) for name in reads}, 'files', bar=.1)
    yield Case('epoch at 104 px', {name: lambda train=train: train for name, train in trains.items()},
               'files', bar=.9)
