"What a Learner is given and can't use is told before the training, by the name of the option."
import copy
from functools import partial

import numpy as np
import pytest
import timm
import torch
from fastai.callback.tracker import SaveModelCallback
from fastai.metrics import accuracy
from fastai.vision.augment import Resize

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import classify_learner, match_learner
from tests.learner.small import Rates, make

IMAGES = demo_path()/'images'
OPTIONS = dict(title_col=None, item_tfms=Resize(32), num_workers=0, phash=False)


def quietly(learner, method='fit', *args, **options):
    with learner.no_bar(), learner.no_logging(): return getattr(learner, method)(*args, **options)


@pytest.mark.parametrize('lr, words', [
    ([1e-3] * 3, r"3 rates for the 2 parameter groups \['image', 'head'\]"), ('1e-3', "lr='1e-3'"),
    (-1e-3, 'lr=-0.001'), (float('nan'), 'lr=nan'), ([1e-3, float('inf')], 'a learning rate is a number'),
    (slice(-1e-4, 1e-3), 'a learning rate'), (object(), 'a learning rate'),
    ({'image': -1., 'head': 1.}, 'lr=')])
@pytest.mark.parametrize('method', ['fit', 'fit_one_cycle', 'fit_flat_cos'])
def test_rates(listings, method, lr, words):
    with pytest.raises(InputError, match=words): quietly(make(listings), method, 1, lr)


@pytest.mark.parametrize('lr', [slice(1e-4, 1e-3), [1e-4, 1e-3], {'image': 1e-4, 'head': 1e-3}])
def test_recipes_that_make_the_rates_take_one(listings, lr):
    with pytest.raises(InputError, match='base_lr'): quietly(make(listings), 'fine_tune', 1, lr)
    with pytest.raises(InputError, match='from one number'): quietly(make(listings), 'fit_gradual', lr)
    with pytest.raises(InputError, match='epochs=0.001'): quietly(make(listings), 'fit_gradual', 1, 1e-3)


def test_a_learner_takes_rates_by_name(listings):
    learner = make(listings, lr={'image': 1e-4, 'head': 1e-3}, cbs=Rates())
    quietly(learner, 'fit', 1)
    assert learner.rates.seen[0] == [1e-4, 1e-3]
    with pytest.raises(InputError, match='rates are given for'): make(listings, lr={'body': 1e-4})


@pytest.mark.parametrize('option, words', [
    ({'lr_mult': [1., 2.]}, 'a dict by name'), ({'lr_mult': 2}, 'a dict by name'),
    ({'opt_func': 'adamw'}, r"opt_func\('adamw'\)"), ({'opt_func': torch.optim.AdamW}, 'OptimWrapper'),
    ({'opt_func': 3}, 'opt_func=3'), ({'heads': 'image'}, r"\('image',\)"), ({'lr': 'fast'}, "lr='fast'"),
    ({'metrics': accuracy}, 'accuracy'), ({'metrics': [accuracy]}, 'RecallAt')])
def test_options_of_a_learner(listings, option, words):
    with pytest.raises(InputError, match=words): make(listings, **option)


@pytest.mark.parametrize('n_epoch', [-1, 1.5, '2', None])
@pytest.mark.parametrize('method', ['fit', 'fit_one_cycle'])
def test_epochs(listings, method, n_epoch):
    with pytest.raises(InputError, match=r'n_epoch'): quietly(make(listings), method, n_epoch, 1e-3)


@pytest.mark.parametrize('options', [dict(bs=1), dict(drop_last=False, bs=4)])
def test_a_batch_of_one_row(listings, options):
    few = listings[listings.fold < 2]
    n_train = int((few.fold == 1).sum())
    if 'drop_last' in options: few = few.drop(few.index[few.fold == 1][:(n_train - 1) % 4])
    dls = MatchDataLoaders.from_df(few, IMAGES, fold_col='fold', **OPTIONS, **options)
    learner = match_learner(dls, 'test_resnet', pretrained=False)
    with pytest.raises(InputError, match=f"bs={options['bs']}: .* one row"): quietly(learner, 'fit', 1, 1e-3)


def test_nothing_to_validate(listings):
    dls = MatchDataLoaders.from_df(listings, IMAGES, valid_fold=None, bs=16, **OPTIONS)
    learner = match_learner(dls, 'test_resnet', pretrained=False)
    with pytest.raises(InputError, match='hold no listings for it'):
        quietly(learner, 'fit', 1, 1e-3, cbs=SaveModelCallback('recall@1'))
    with pytest.raises(InputError, match='no listings for validation'): quietly(learner, 'validate')
    quietly(learner, 'fit', 1, 1e-3, cbs=SaveModelCallback('train_loss', at_end=False, fname='unused'))
    labelled = listings.assign(label=np.arange(len(listings)) % 2)
    dls = ClassifyDataLoaders.from_df(labelled, IMAGES, valid_fold=None, bs=16, **OPTIONS)
    with pytest.raises(InputError, match='no items for validation'):
        classify_learner(dls, 'test_resnet', pretrained=False).predictions()


def test_dls_of_another_kind(listings):
    labelled = listings.assign(label=np.arange(len(listings)) % 2)
    to_classify = ClassifyDataLoaders.from_df(labelled, IMAGES, bs=16, **OPTIONS)
    classifier = classify_learner(to_classify, 'test_resnet', pretrained=False)
    matching = make(listings)
    with pytest.raises(InputError, match='MatchDataLoaders'): matching.dls = to_classify
    with pytest.raises(InputError, match='ClassifyDataLoaders'): classifier.dls = matching.dls


def test_a_trained_learner_is_copied(listings):
    learner = make(listings)
    quietly(learner, 'fit', 1, 1e-3)
    copied = copy.deepcopy(learner)
    np.testing.assert_array_equal(copied.embeddings()['image'], learner.embeddings()['image'])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('body', [partial(timm.create_model, 'test_resnet'),
                                  partial(torch.nn.Conv2d, 3, 8, 3)])
def test_modules_in_half_precision_train_in_full(listings, body, dtype):
    learner = match_learner(make(listings).dls, body().to(dtype), pretrained=False)
    assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}

    def make_half(pretrained=False): return timm.create_model('test_resnet').to(dtype)

    learner = match_learner(make(listings).dls, make_half, pretrained=False)
    assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}


def test_cycles_without_an_epoch(listings):
    for n_cycles, cycle_len, words in ((0, 1, 'n_cycles=0'), (1, 0, 'cycle_len=0')):
        with pytest.raises(InputError, match=words): quietly(make(listings), 'fit_sgdr', n_cycles, cycle_len)


def test_a_class_that_needs_more_than_it_is_given(listings):
    with pytest.raises(InputError, match='Conv2d: it also needs in_channels, out_channels, kernel_size'):
        match_learner(make(listings).dls, torch.nn.Conv2d, pretrained=False)
