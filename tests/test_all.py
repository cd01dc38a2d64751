"`from fastmatch.all import *`: what a notebook gets, and which of fastai's names it replaces."
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
    'heldout', 'candidates', 'best_threshold', 'Resize', 'aug_transforms', 'pd', 'np', 'plt', 'torch',
    'SaveModelCallback'])
def test_a_notebook_finds(name): assert hasattr(fm, name)


def test_replaced_names_take_fastais_arguments():
    assert fm.MixUp(.4).distrib.concentration1 == fm.CutMix(alpha=.4).distrib.concentration1
    assert fm.FocalLoss(gamma=2.).gamma == 2.
