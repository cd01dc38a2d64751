"`from fastmatch.all import *`: what a notebook gets, and which of fastai's names it replaces."
import builtins

import fastai.callback.all
import fastai.vision.all
import pytest

import fastmatch.all as fm
from fastmatch.patches import REPLACED_NAMES


def public(module): return {name: value for name, value in vars(module).items() if not name.startswith('_')}


def test_which_names_replace_fastais():
    fastais = {**public(fastai.vision.all), **public(fastai.callback.all)}
    ours = {name: value for name, value in public(fm).items()
            if getattr(value, '__module__', '').startswith('fastmatch')}
    replaced = {name for name, value in ours.items() if name in fastais and fastais[name] is not value}
    # a name of fastai's that ours replaces keeps fastai's call signature or meaning: think before adding one
    assert replaced == set(REPLACED_NAMES)


@pytest.mark.parametrize('name', [
    'MatchDataLoaders', 'match_learner', 'ArcFace', 'RecallAt', 'MAPAtR', 'RowF1', 'augs', 'demo_path',
    'heldout', 'best_threshold', 'load_tokenizer', 'PKSampler', 'OverSampler', 'WeightedSampler', 'Tokenize',
    'groups_splitter', 'match', 'schedule', 'studies', 'Resize', 'aug_transforms', 'pd', 'np', 'plt', 'torch',
    'SaveModelCallback'])
def test_a_notebook_finds(name): assert hasattr(fm, name)


# plain words that say what they are in this field, or that fastai's users know
PLAIN_WORDS = {'adamw', 'augs', 'heldout', 'match', 'min2', 'ranger', 'rmsprop', 'schedule', 'sgd', 'studies',
               'submission'}
# words that a notebook has for its own variables, and the rooms that they are behind
BEHIND = {'match': ['alone', 'augment', 'blend', 'candidates', 'chisel', 'decide', 'ensemble', 'expand',
                    'fuse', 'group', 'ladder', 'mutual', 'paired', 'quantities', 'shares', 'standardize',
                    'tiers', 'veto'],
          'schedule': ['between', 'curves'],
          'studies': ['compare', 'repeat', 'spaces', 'tested', 'tune']}


def test_no_common_word_lands_in_a_notebook():
    "A single word in lower case is a variable of somebody's: `group = df.label_group`."
    fastais = {**public(fastai.vision.all), **public(fastai.callback.all)}
    words = {name for name, value in public(fm).items()
             if name.isalnum() and name.islower() and fastais.get(name) is not value} - {'pd'}
    assert words == PLAIN_WORDS - {name for name in PLAIN_WORDS if fastais.get(name) is getattr(fm, name)}


def test_no_name_of_the_language_is_replaced():
    ours = {name for name, value in public(fm).items()
            if getattr(value, '__module__', '').startswith('fastmatch')}
    theirs = {*dir(builtins), 'np', 'pd', 'plt', 'torch', 'nn', 'F', 'Path', 'df', 'dls', 'learn'}
    assert ours & theirs == set()


@pytest.mark.parametrize('room, words', BEHIND.items())
def test_common_words_are_behind_their_room(room, words):
    assert [word for word in words if not hasattr(getattr(fm, room), word)] == []
    assert [word for word in words if hasattr(fm, word)] == []


def test_replaced_names_take_fastais_arguments():
    assert fm.MixUp(.4).distrib.concentration1 == fm.CutMix(alpha=.4).distrib.concentration1
    assert fm.FocalLoss(gamma=2.).gamma == 2.
