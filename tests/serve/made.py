"A small shop of the sample: a random image encoder, its matcher's folder, a catalogue, and the pictures."
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fastmatch.catalogue import Catalogue
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.match import Rule
from fastmatch.matcher import Matcher, load_matcher
from fastmatch.matcher.encode import Encoder, Picture
from fastmatch.models import ImageEncoder, MatchNet

RULE = Rule('mean', {'image': .3, 'tfidf': .7}, .5, join=('phash',))
OWN = 'http://127.0.0.1'  # how a client reaches it


@dataclass
class Shop:
    "Where the parts of a shop are."
    folder: Path
    listings: pd.DataFrame
    matcher: Matcher

    @property
    def file(self): return self.folder/'shop.db'

    @property
    def images(self): return self.folder/'images'

    @property
    def matcher_folder(self): return self.folder/'matcher'

    def copy(self, folder):
        "The same shop in another folder, to be changed; the matcher stays."
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Shop(folder, self.listings, self.matcher)

    def picture(self, row=0): return (self.images/self.listings.image.iloc[row]).read_bytes()


def make_shop(folder, n=60):
    "Listings of the sample, all but the last ten of them in a catalogue."
    torch.manual_seed(0)
    listings = pd.read_csv(demo_path()/'listings.csv')[['posting_id', 'image', 'title']].head(n)
    (folder/'images').mkdir(parents=True)
    for name in listings.image: shutil.copy(demo_path()/'images'/name, folder/'images')
    encoder = ImageEncoder('test_efficientnet', pretrained=False)
    model = MatchNet(None, encoder, None, ('image',), False)
    picture = Picture((32, 32), mean=encoder.mean, std=encoder.std)
    made, _ = Matcher.from_df(listings.head(30), folder/'images', RULE, Encoder(model, picture), Columns())
    made.save(folder/'matcher')
    matcher = load_matcher(folder/'matcher')
    with Catalogue.create(folder/'shop.db', matcher) as catalogue:
        catalogue.add(listings.head(n - 10), folder/'images')
    return Shop(folder, listings, matcher)


def png(size=(20, 20), seed=0, mode='RGB', kind='PNG'):
    "The bytes of a picture of noise."
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind)
    return content.getvalue()
