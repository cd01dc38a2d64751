"Learners that share dataloaders, and dataloaders that change under a learner: each reads as its encoders do."
import copy
import shutil

import numpy as np
import pytest
import torch
from fastai.data.transforms import Normalize
from fastai.vision.augment import Resize
from transformers import BertConfig, BertModel, BertTokenizer

from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.title import CharacterTokenizer, Tokenize
from fastmatch.learner import classify_learner, match_learner
from fastmatch.losses import SupCon
from tests.learner.small import make, weights

MEANS = {'test_resnet': .5, 'test_efficientnet': .485}


def words_encoder(folder, words):
    "A tiny random BERT that knows these words, saved in a folder."
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]
    BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    return str(folder)


def picture_loaders(listings, size=32, **options):
    options = {'title_col': None, 'fold_col': 'fold', 'item_tfms': Resize(size), 'bs': 16, 'num_workers': 0,
               'phash': False, **options}
    return MatchDataLoaders.from_df(listings, demo_path()/'images', **options)


def title_loaders(listings): return picture_loaders(listings, image_col=None, title_col='title')


def normalizer_means(dls):
    return [round(float(transform.mean.flatten()[0]), 3) for transform in dls.after_batch.fs
            if isinstance(transform, Normalize)]


def tokenizers(dls):
    return [transform.tokenizer for loader in dls.loaders for transform in loader.before_batch.fs
            if isinstance(transform, Tokenize)]


def test_two_title_encoders_on_one_dls(listings, tmp_path):
    dls = title_loaders(listings)
    words = listings.title.str.lower().str.split().explode().unique().tolist()
    first = match_learner(dls, text_arch=words_encoder(tmp_path/'all', words))
    before = first.embeddings()['title']
    second = match_learner(dls, text_arch=words_encoder(tmp_path/'few', words[:3]))
    np.testing.assert_allclose(first.embeddings()['title'], before, atol=1e-6)
    assert all(isinstance(tokenizer, CharacterTokenizer) for tokenizer in tokenizers(dls))
    assert {id(tokenizer) for tokenizer in tokenizers(first.dls)}.isdisjoint(map(id, tokenizers(second.dls)))
    # whatever loader they are asked to read, they read it in their own way
    with first.no_bar():
        for loader in (dls.valid, second.dls.valid, dls.test_dl(dls.valid_df, with_labels=True)):
            assert first.validate(dl=loader) == first.validate()


def test_each_image_encoder_has_its_own_normalize(listings):
    dls = picture_loaders(listings)
    learners = {arch: match_learner(dls, arch, pretrained=False) for arch in MEANS}
    assert {arch: normalizer_means(learner.dls) for arch, learner in learners.items()} == {
        arch: [mean] for arch, mean in MEANS.items()}
    assert normalizer_means(dls) == []
    assert normalizer_means(match_learner(dls, 'test_resnet', pretrained=False, normalize=False).dls) == []
    # another learner's dataloaders are as good as any
    again = match_learner(learners['test_efficientnet'].dls, 'test_resnet', pretrained=False)
    assert normalizer_means(again.dls) == [.5]
    assert normalizer_means(learners['test_efficientnet'].dls) == [.485]
    own = picture_loaders(listings, batch_tfms=[Normalize.from_stats([.1] * 3, [.2] * 3, cuda=False)])
    assert normalizer_means(match_learner(own, 'test_resnet', pretrained=False).dls) == [.1]
    assert normalizer_means(dls.valid) == []


def test_dataloaders_may_be_put_in_later(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    before = learner.embeddings()['image']
    learner.dls = picture_loaders(listings)
    np.testing.assert_array_equal(learner.embeddings()['image'], before)
    learner.dls = picture_loaders(listings, 48)
    assert learner.dls.one_batch()[0].shape[-1] == 48 and normalizer_means(learner.dls) == [.485]
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert learner.encoder().picture.size == (48, 48)
    assert learner.encoder().picture.mean[0] == pytest.approx(.485)
    with pytest.raises(InputError, match="have titles, and the model doesn't read them"):
        learner.dls = picture_loaders(listings, title_col='title')
    with pytest.raises(InputError, match='lack pictures'): learner.dls = title_loaders(listings)


def test_titles_of_later_dataloaders_are_tokenized(listings, tmp_path):
    words = listings.title.str.lower().str.split().explode().unique().tolist()
    learner = match_learner(title_loaders(listings), text_arch=words_encoder(tmp_path/'bert', words))
    before = learner.embeddings()['title']
    learner.dls = title_loaders(listings)
    np.testing.assert_array_equal(learner.embeddings()['title'], before)
    from_matcher, *_ = learner.encoder().embed(titles=learner.dls.valid_df.title.tolist())
    np.testing.assert_allclose(from_matcher['title'], before, atol=1e-5)


def test_a_learner_of_classes_reads_in_its_own_way_too(listings):
    dls = ClassifyDataLoaders.from_df(listings, demo_path()/'images', title_col=None, group_col='fold',
                                      n_folds=3, item_tfms=Resize(32), bs=16, num_workers=0, phash=False)
    learners = {arch: classify_learner(dls, arch, pretrained=False) for arch in MEANS}
    assert [normalizer_means(learner.dls) for learner in learners.values()] == [[.5], [.485]]
    learner = learners['test_resnet']
    before = learner.predictions().prob
    for loader in (dls.valid, learners['test_efficientnet'].dls.valid):
        with learner.no_bar(): probabilities = learner.get_preds(dl=loader)[0]
        np.testing.assert_allclose(probabilities.max(1).values, before, atol=1e-6)
    learner.dls = dls
    np.testing.assert_array_equal(learner.predictions().prob, before)


def test_a_learner_does_not_shuffle_for_others(listings, tmp_path):
    "Two learners on one `dls` see the batches that each would see on dataloaders of its own."
    def trained(dls):
        seed_everything(1)
        learner = match_learner(dls, 'test_efficientnet', pretrained=False, path=tmp_path)
        with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
        return weights(learner)
    for options in ({}, {'sampler': 'pk'}):
        seed_everything(0)
        shared = picture_loaders(listings, **options)
        alone = copy.deepcopy(shared)
        torch.testing.assert_close(trained(shared), trained(shared), rtol=0, atol=0)
        torch.testing.assert_close(trained(alone), trained(shared), rtol=0, atol=0)


def test_fewer_listings_than_a_batch_are_told_by_every_fit(listings, tmp_path):
    dls = picture_loaders(listings, bs=512)
    learner = match_learner(dls, 'test_resnet', pretrained=False, path=tmp_path)
    fits = {'fit': (1,), 'fit_one_cycle': (1,), 'fine_tune': (1,), 'fit_flat_cos': (1, 1e-3),
            'fit_cos': (1, 1e-3), 'fit_exp': (1, 1e-3), 'fit_sgdr': (1, 1),
            'lr_find': (), 'fit_to_best': (1, 1e-3, 'recall@1')}
    for name, arguments in fits.items():
        with learner.no_bar(), pytest.raises(InputError, match='bs=512: only .* to train on, not one batch'):
            getattr(learner, name)(*arguments)
    assert not learner.trained_on.ids and len(learner.embeddings())


def test_other_groups_are_told_before_the_first_training(listings, tmp_path):
    learner = make(listings, path=tmp_path)
    before, own = weights(learner), learner.dls
    every = picture_loaders(listings, valid_fold=None)
    with pytest.raises(InputError, match='groups to train on, and the heads'):
        learner.fit_to_best(1, 1e-3, monitor='recall@1', dls=every)
    assert torch.equal(weights(learner), before) and learner.dls is own
    # a loss over pairs reads no centers
    learner.loss_func = SupCon()
    with learner.no_bar(), learner.no_logging():
        assert learner.fit_to_best(1, 1e-3, monitor='recall@1', dls=every) == 0
    assert learner.embeddings(every.df).trained_on.all()


def test_tables_of_another_folder(listings, tmp_path):
    rows = listings.head(6)
    for file_name in rows.image: shutil.copy(demo_path()/'images'/file_name, tmp_path/f'new_{file_name}')
    elsewhere = rows.assign(image='new_' + rows.image)
    learner = make(listings)
    embeddings = learner.embeddings(elsewhere, path=tmp_path)
    np.testing.assert_allclose(embeddings['image'], learner.embeddings(rows)['image'], atol=1e-6)
    with pytest.raises(InputError, match='none of the 6 files'): learner.embeddings(elsewhere)
    with pytest.raises(InputError, match='path is the folder of a table'): learner.embeddings(path=tmp_path)


def test_items_of_another_folder(listings, tmp_path):
    rows = listings.head(6)
    for file_name in rows.image: shutil.copy(demo_path()/'images'/file_name, tmp_path/f'new_{file_name}')
    listings = listings.assign(files=listings.image + ' ' + listings.image)
    dls = ClassifyDataLoaders.from_df(listings, demo_path()/'images', title_col=None, image_col='files',
                                      frames=2, group_col='fold', n_folds=3, item_tfms=Resize(32), bs=16,
                                      num_workers=0, phash=False)
    learner = classify_learner(dls, 'test_resnet', pretrained=False)
    elsewhere = rows.assign(files=['new_' + name + ' new_' + name for name in rows.image])
    found, wanted = learner.predictions(elsewhere, path=tmp_path), learner.predictions(listings.head(6))
    np.testing.assert_allclose(found.prob, wanted.prob, atol=1e-6)
    with pytest.raises(InputError, match='none of the 6 files'): learner.predictions(elsewhere)
    # other classes are other numbers
    other = ClassifyDataLoaders.from_df(listings, demo_path()/'images', title_col=None, image_col='files',
                                        frames=2, group_col='vendor', valid_fold=None, item_tfms=Resize(32),
                                        bs=16, num_workers=0, phash=False)
    with pytest.raises(InputError, match='classes'): learner.dls = other
