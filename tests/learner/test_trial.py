"What would fail in the first batch is told when the Learner is made, and nothing of the trial stays."
import random
from functools import partial

import numpy as np
import pytest
import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import Resize
from torch import nn

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from fastmatch.learner import classify_learner, match_learner
from fastmatch.losses import (
    AdaCos,
    ArcFace,
    CenterLoss,
    CurricularFace,
    MultiSimilarity,
    NTXent,
    SumLoss,
    SupCon,
    Triplet,
)
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder
from tests.models.needs import has_minilm

LOADERS = dict(path=demo_path()/'images', fold_col='fold', item_tfms=Resize(32), bs=16, num_workers=0,
               phash=False)


@pytest.fixture(scope='module')
def pictures(listings): return MatchDataLoaders.from_df(listings, text_col=None, **LOADERS)


@pytest.fixture(scope='module')
def titles(listings): return MatchDataLoaders.from_df(listings, fn_col=None, **LOADERS)


def make(loaders, **kwargs): return match_learner(loaders, 'test_resnet', pretrained=False, **kwargs)


def embeddings_as_loss(outputs, targets): return outputs['image'].emb


@pytest.mark.parametrize('loss, words', [
    (nn.CrossEntropyLoss(), 'CrossEntropyLoss: it can'),
    (CrossEntropyLossFlat(), "CrossEntropyLossFlat: it can't"),
    (nn.functional.cross_entropy, 'cross_entropy: it can'),
    (ArcFace, r'ArcFace: that is the class.*ArcFace\(\)'),
    ('arcface', "'arcface': give a loss"), (3, '3: give a loss'), (CurricularFace(), 'TrackedHead'),
    (embeddings_as_loss, 'embeddings_as_loss: a loss is one number')])
def test_a_loss_that_cant_read_the_heads_is_refused(pictures, loss, words):
    with pytest.raises(InputError, match=words): make(pictures, loss_func=loss)


def test_losses_of_pytorch_metric_learning_are_refused(pictures):
    losses = pytest.importorskip('pytorch_metric_learning.losses')
    for loss in (losses.TripletMarginLoss(), losses.ArcFaceLoss(5, 8)):
        with pytest.raises(InputError, match=f'loss_func={type(loss).__name__}'):
            make(pictures, loss_func=loss)


@pytest.mark.parametrize('loss, head', [
    (None, None), (Triplet(), None), (SupCon(), None), (NTXent(), None), (MultiSimilarity(), None),
    (AdaCos(), TrackedHead), (CurricularFace(), TrackedHead), (ArcFace(), partial(SampledHead, share=.5)),
    (SumLoss({'margin': ArcFace(), 'center': CenterLoss()}), CenterHead),
    (lambda outputs, targets: nn.functional.cross_entropy(outputs['image'].cos, targets), None)])
def test_losses_that_can_are_taken(pictures, loss, head):
    learner = make(pictures, loss_func=loss, **({} if head is None else {'head_func': head}))
    assert learner.model.training and learner.model.encoders['image'].training
    assert not [each for each in learner.model.modules() if getattr(each, 'labels', None) is not None]


def test_nothing_of_the_trial_stays(pictures):
    def numbers(): return random.random(), float(np.random.rand()), float(torch.rand(()))
    for kwargs in ({}, {'loss_func': CurricularFace(), 'head_func': TrackedHead}):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        learner = make(pictures, **kwargs)
        after = numbers()
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        encoder = ImageEncoder('test_resnet', pretrained=False, img_size=(32, 32))
        expected = MatchNet(pictures.n_groups, encoder, head_func=kwargs.get('head_func', CosineHead))
        assert after == numbers()
        for name, tensor in expected.state_dict().items():
            assert torch.equal(learner.model.state_dict()[name].cpu(), tensor), name
        assert learner.loss_func._calls == 0


def test_classifiers_are_tried_too(listings):
    loaders = ClassifyDataLoaders.from_df(listings, text_col=None, label_col='vendor', valid_fold=None,
                                          **LOADERS)
    make = partial(classify_learner, loaders, 'test_resnet', pretrained=False)
    assert make(loss_func=CrossEntropyLossFlat()) and make(loss_func=nn.CrossEntropyLoss())
    with pytest.raises(InputError, match="reads a head's cosines"): make(loss_func=ArcFace())
    with pytest.raises(InputError, match='BCELoss'): make(loss_func=nn.BCELoss())
    with pytest.raises(InputError, match='CrossEntropyLoss: that is the class'):
        make(loss_func=nn.CrossEntropyLoss)


def test_an_image_encoder_is_set_to_the_pictures_or_refused(listings):
    loaders = MatchDataLoaders.from_df(listings, text_col=None, **LOADERS)
    learner = match_learner(loaders, 'vit_tiny_patch16_224', pretrained=False)
    assert learner.model.encoders['image'].set_size == [32, 32]
    tiny = MatchDataLoaders.from_df(listings, text_col=None, **{**LOADERS, 'item_tfms': Resize(8)})
    with pytest.raises(InputError, match='vit_tiny_patch16_224.*pictures of 8 x 8'):
        match_learner(tiny, 'vit_tiny_patch16_224', pretrained=False)


@has_minilm
@pytest.mark.parametrize('kind, words', [
    ('few words', 'few words.* has vectors for 1000 tokens, its tokenizer makes 30522'),
    ('few places', 'few places.*max_len=32')])
def test_text_encoders_that_dont_fit_are_refused(titles, tmp_path, kind, words):
    import transformers

    from fastmatch.models.text import resolve
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve('all-MiniLM-L6-v2'))
    sizes = dict(hidden_size=16, num_hidden_layers=1, intermediate_size=16)
    heads = dict(num_attention_heads=2)
    words_too = dict(vocab_size=len(tokenizer), **sizes)
    config = {'few words': lambda: transformers.BertConfig(vocab_size=1000, **sizes, **heads),
              'few places': lambda: transformers.BertConfig(max_position_embeddings=32, **words_too, **heads)}
    config = config[kind]()
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path/kind)
    tokenizer.save_pretrained(tmp_path/kind)
    with pytest.raises(InputError, match=words):
        match_learner(titles, text_arch=str(tmp_path/kind), pretrained=False)


@has_minilm
def test_an_encoder_that_reads_fewer_tokens_than_asked_says_so(listings):
    loaders = MatchDataLoaders.from_df(listings, fn_col=None, max_len=300, **LOADERS)
    with pytest.warns(UserWarning, match='reads 256 tokens of a title and not max_len=300'):
        match_learner(loaders, pretrained=False)


@has_minilm
def test_titles_that_are_cut_off_are_told_where_they_are_many(listings, recwarn):
    def cut_off(share):
        n_long = round(share * len(listings))
        titles = [title + ' and more words' * (10 if row < n_long else 0)
                  for row, title in enumerate(listings.title)]
        recwarn.clear()
        loaders = MatchDataLoaders.from_df(listings.assign(title=titles), fn_col=None,
                                           **{**LOADERS, 'max_len': 24})
        match_learner(loaders, pretrained=False)
        return [str(warning.message) for warning in recwarn if 'tokens' in str(warning.message)]
    assert cut_off(.05) == []
    share = round(.5 * len(listings)) / len(listings)
    assert cut_off(.5) == [f'{share:.0%} of the titles have more than 24 tokens, and the rest is left out: '
                           'make dls with max_len=48 to have more read']


@has_minilm
def test_each_encoder_may_be_pretrained_or_not(listings):
    loaders = MatchDataLoaders.from_df(listings, **LOADERS)
    learner = match_learner(loaders, 'test_resnet', pretrained={'image': False, 'text': True})
    body = learner.model.encoders['title'].body
    assert torch.equal(body.embeddings.word_embeddings.weight.cpu(),
                       TitleEncoder().body.embeddings.word_embeddings.weight)
    with pytest.raises(InputError, match="pretrained names .'titel'"):
        match_learner(loaders, 'test_resnet', pretrained={'titel': True})
