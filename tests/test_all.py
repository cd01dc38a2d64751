"`from fastmatch.all import *`: what a notebook gets, which of its words stay free, what replaces fastai's."
import builtins
import re

import fastai.callback.all
import fastai.vision.all
import pytest

import fastmatch.all as fm
from fastmatch.patches import REPLACED_NAMES

FASTAIS = {**vars(fastai.vision.all), **vars(fastai.callback.all)}
ADDED = {name: value for name, value in vars(fm).items()
         if not name.startswith('_') and (name not in FASTAIS or FASTAIS[name] is not value)}
# single words that the import may bring: modules, and what a fastai user takes for an optimizer or transforms
WORDS = {'match', 'schedule', 'adamw', 'augs', 'ranger', 'rmsprop', 'sgd'}
# what notebooks import under names of their own, fastai's (`np`, `pd`, `plt`, `nn`, `F`) beside others
ALIASES = {'cv2', 'mpl', 'np', 'nn', 'os', 'pd', 'pl', 'plt', 'px', 're', 'sk', 'sns', 'sp', 'stats', 'tf',
           'torch', 'F', 'T'}
# what notebooks call their own things
TAKEN = {'batch', 'cand', 'data', 'df', 'dls', 'emb', 'embeddings', 'groups', 'learn', 'matcher', 'matches',
         'model', 'neighbors', 'path', 'res', 'rule', 'scores', 'study', 'submission', 'test', 'text',
         'threshold', 'titles', 'train', 'trial', 'valid'}


def test_no_common_word_is_taken():
    words = {name for name in ADDED if re.fullmatch('[a-z0-9]+', name)}
    assert words == WORDS and not TAKEN & set(ADDED)


def test_only_listed_names_hide_others():
    hidden = {name for name in ADDED if name in FASTAIS or hasattr(builtins, name) or name in ALIASES}
    # a name of fastai's that ours replaces keeps fastai's call signature or meaning: think before adding one
    assert hidden == set(REPLACED_NAMES)


def test_words_are_called_through_their_module():
    for name in ('candidates', 'compare', 'decide', 'expand', 'fuse', 'group', 'heldout', 'ladder', 'repeat'):
        assert callable(getattr(fm.match, name)) and name not in fm.match.__all__
    assert callable(fm.schedule.between) and fm.schedule.curves.__name__ == 'fastmatch.schedule.curves'


def test_stars_of_the_modules_bring_no_words_either():
    starred = {}
    exec('from fastmatch.match import *', starred)
    assert [name for name in starred if re.fullmatch('[a-z0-9]+', name)] == []


@pytest.mark.parametrize('name', [
    'MatchDataLoaders', 'match_learner', 'ArcFace', 'RecallAt', 'MAPAtR', 'RowF1', 'augs', 'demo_path',
    'heldout_fused', 'best_threshold', 'load_tokenizer', 'Tokenize', 'PKSampler', 'OverSampler',
    'WeightedSampler', 'SampledDL', 'groups_splitter', 'tune_learner', 'heldout_trial', 'Resize',
    'aug_transforms', 'pd', 'np', 'plt', 'torch', 'SaveModelCallback'])
def test_a_notebook_finds(name): assert hasattr(fm, name)


def test_replaced_names_take_fastais_arguments():
    assert fm.MixUp(.4).distrib.concentration1 == fm.CutMix(alpha=.4).distrib.concentration1
    assert fm.FocalLoss(gamma=2.).gamma == 2.
