"A matcher or an encoder that a Learner gives embeds and decides as the Learner, or is refused."
import json
import subprocess
import sys

import numpy as np
import pytest
from fastai.data.transforms import ToTensor
from fastai.vision.augment import (
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ResizeMethod,
    aug_transforms,
)
from fastai.vision.core import TensorImage
from fasttransform import Transform
from transformers import AutoTokenizer, BartConfig, BartModel

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.learner import match_learner
from fastmatch.learner.matcher import picture_of
from fastmatch.match import Rule
from fastmatch.matcher import Matcher, load_matcher
from tests.learner.test_reading import words_encoder
from tests.matcher.trained import DLS, IMAGES, KINDS, made_of, some_listings


@pytest.fixture(scope='module', params=KINDS)
def made(request): return made_of(request.param)


def test_embeddings_and_decisions_are_the_learners(made):
    embeddings, matcher = made.emb, made.matcher
    for modality in made.rule.modalities:
        if modality not in embeddings: continue
        np.testing.assert_allclose(matcher.spaces[modality].vectors, embeddings[modality], atol=1e-5)
    result = matcher.match()
    # pairs within rounding of the threshold may go either way, and the result lists them
    close_calls = result.close_calls()
    close = set(zip(close_calls.posting_id, close_calls.match))
    matcher_pairs, learner_pairs = (
        {
            (embeddings.ids[row], embeddings.ids[other])
            for row, others in enumerate(matches)
            for other in others
        }
        for matches in (result.matches, made.rule.apply(made.spaces))
    )
    assert matcher_pairs ^ learner_pairs <= close and len(close) < len(matcher_pairs)
    assert set(matcher.ids) == set(embeddings.ids) and not matcher.trained_on.any()


class Darker(Transform):
    "Changes pictures in validation too."
    order = 40
    def encodes(self, pictures: TensorImage): return pictures * .5


class Quarter(Transform):
    "Shrinks pictures in a way of its own."
    order = 40
    def encodes(self, pictures: TensorImage): return pictures[..., ::4, ::4]


def test_who_changes_pictures_is_named_with_sizes():
    loaders = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None, item_tfms=Resize(40),
                                       batch_tfms=[*aug_transforms(), Quarter()], **DLS)
    with pytest.raises(InputError, match=r'^batch_tfms: Quarter \(40x40 to 10x10 pixels\) changes'):
        picture_of(loaders)


@pytest.mark.parametrize('item_tfms, message', [
    ([Resize(64), RandomResizedCrop(32)], 'one Resize.*Resize and RandomResizedCrop'),
    (RandomCrop(16), 'not RandomCrop'), (ToTensor(), 'there is none')])
def test_item_transforms_that_cant_be_repeated(item_tfms, message):
    loaders = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None, item_tfms=item_tfms, **DLS)
    with pytest.raises(InputError, match=f'item_tfms: .*{message}'): picture_of(loaders)


def test_a_transform_that_cant_be_repeated_is_refused_before_the_training():
    loaders = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None, item_tfms=Resize(40),
                                       batch_tfms=[*aug_transforms(size=32), Darker()], **DLS)
    message = 'batch_tfms: Darker changes'
    with pytest.raises(InputError, match=f'{message}.*check_matcher=False'):
        match_learner(loaders, 'test_efficientnet', pretrained=False)
    learner = match_learner(loaders, 'test_efficientnet', pretrained=False, check_matcher=False)
    with pytest.raises(InputError, match=message): learner.encoder()
    with pytest.raises(InputError, match='rule=None'): learner.matcher()
    # embedding needs no matcher
    assert len(learner.embeddings()) == len(loaders.valid_df)


def test_ids_that_no_matcher_takes_are_told_before_the_training():
    listings = some_listings()
    blank_in_id = listings.assign(posting_id=['a b', *listings.posting_id[1:]])
    loaders = MatchDataLoaders.from_df(blank_in_id, IMAGES, text_col=None, item_tfms=Resize(32), **DLS)
    with pytest.raises(InputError, match='posting_id: .*a b.*check_matcher=False'):
        match_learner(loaders, 'test_efficientnet', pretrained=False)


@pytest.mark.parametrize('first, second', [(Resize(48), dict(size=32)), (Resize(80), dict(size=(32, 24))),
                                           (Resize((70, 40), ResizeMethod.Squish), dict(size=32)),
                                           (Resize(20), dict(size=32, align_corners=False))])
def test_presized_pictures_are_embedded_alike_by_the_matcher(first, second, tmp_path):
    loaders = MatchDataLoaders.from_df(some_listings(), IMAGES, text_col=None, item_tfms=first,
                                       batch_tfms=aug_transforms(**second), **DLS)
    learner = match_learner(loaders, 'test_efficientnet', pretrained=False)
    expected = learner.embeddings()
    matcher = learner.matcher(loaders.valid_df, Rule('mean', {'image': 1.}, .9))
    size = loaders.one_batch()[0].shape
    assert expected.made_with['size'] == [size[3], size[2]]
    matcher.save(tmp_path/'matcher')
    for each in (matcher, load_matcher(tmp_path/'matcher')):
        found, _ = each.embed(loaders.valid_df, IMAGES)
        np.testing.assert_allclose(found['image'], expected['image'], atol=1e-4)
        assert found.made_with == expected.made_with


def test_skipped_listings_of_the_catalogue_are_told(made):
    catalogue = made.learn.dls.valid_df.iloc[:5].copy()
    catalogue.loc[2, 'image'] = 'gone.png'
    with pytest.warns(UserWarning, match=catalogue.posting_id[2]):
        matcher = made.learn.matcher(catalogue, made.rule, tta=True, on_error='skip')
    assert len(matcher) == 4 and [row['row'] for row in matcher.info['skipped']] == ['2']


def test_embeddings_say_how_they_were_made(made):
    learner, settings = made.learn, made.emb.made_with
    assert settings['tta'] is True and settings['size'] == [40, 32]
    assert json.loads(json.dumps(settings)) == settings
    assert settings == learner.encoder(tta=True).made_with
    embedded, _ = made.matcher.embed(learner.dls.valid_df.iloc[:3], IMAGES)
    assert embedded.made_with == settings and learner.embeddings().made_with == {**settings, 'tta': False}


def test_a_rule_chosen_with_another_tta_is_refused_before_the_work(made, monkeypatch):
    rule = Rule('mean', {'image': 1.}, .5, made_with={'tta': True, 'size': [40, 32]})
    embeddings = made.learn.embeddings()
    words = 'rule: chosen on embeddings made with tta=True, but here tta=False'
    with pytest.raises(InputError, match=words): Matcher(rule, embeddings, made.learn.encoder())
    with pytest.raises(InputError, match=words): Matcher(rule, embeddings)
    assert len(made.learn.matcher(made.learn.dls.valid_df, rule, tta=True)) == len(embeddings)

    def nothing_is_embedded(*args, **kwargs): raise AssertionError
    monkeypatch.setattr('fastmatch.matcher.encode.Encoder.embed', nothing_is_embedded)
    with pytest.raises(InputError, match=words): made.learn.matcher(made.learn.dls.valid_df, rule)


def test_methods_are_there_without_another_import():
    program = ("from fastmatch.learner import match_learner, MatchLearner; "
               "print([hasattr(MatchLearner, name) for name in ('matcher', 'encoder', 'embeddings')])")
    command = [sys.executable, '-W', 'ignore', '-c', program]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == '[True, True, True]'


def test_tied_weights_are_saved(tmp_path):
    "An encoder-decoder shares its embedding of words; safetensors takes no shared memory."
    words = some_listings().title.str.lower().str.split().explode().unique().tolist()
    folder = words_encoder(tmp_path/'tied', words)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BartConfig(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1,
                        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
                        decoder_ffn_dim=16, max_position_embeddings=80, pad_token_id=0)
    BartModel(config).save_pretrained(folder)
    options = {name: option for name, option in DLS.items() if name != 'item_tfms'}
    loaders = MatchDataLoaders.from_df(some_listings(), image_col=None, **options)
    learner = match_learner(loaders, text_arch=folder)
    learner.matcher(loaders.valid_df, Rule('mean', {'title': 1.}, .9)).save(tmp_path/'matcher')
    found, _ = load_matcher(tmp_path/'matcher').embed(loaders.valid_df)
    np.testing.assert_allclose(found['title'], learner.embeddings()['title'], atol=1e-5)


def test_titles_of_several_columns(tmp_path):
    listings = some_listings().assign(about=lambda table: [None if row % 3 else f'by {vendor}' for row, vendor
                                                           in enumerate(table.vendor)])
    joined = listings.assign(title=[title if row % 3 else f'{title}. by {vendor}' for row, (title, vendor)
                                    in enumerate(zip(listings.title, listings.vendor))])
    words = sorted(set(' '.join(joined.title).lower().split()))
    learners = [match_learner(MatchDataLoaders.from_df(table, image_col=None, title_col=title_col, **DLS),
                              text_arch=words_encoder(tmp_path/'encoder', words))
                for table, title_col in ((listings, ['title', 'about']), (joined, 'title'))]
    learners[1].model.load_state_dict(learners[0].model.state_dict())
    several, single = (learner.embeddings(table) for learner, table in zip(learners, (listings, joined)))
    np.testing.assert_array_equal(several['title'], single['title'])
    assert several.titles == single.titles == joined.title.tolist()
    rule = Rule('mean', {'title': .5, 'tfidf': .5}, .5)
    matchers = [learner.matcher(rule=rule) for learner in learners]
    matchers[0].save(tmp_path/'matcher')
    loaded = load_matcher(tmp_path/'matcher')
    assert loaded.columns.title == ['title', 'about']
    new, new_joined = (table.iloc[::2].assign(posting_id=lambda rows: 'new_' + rows.posting_id)
                       for table in (listings, joined))
    results = [matchers[0].match(new), loaded.match(new), matchers[1].match(new_joined)]
    for result in results[:2]: assert result.to_frame(True).equals(results[2].to_frame(True))
    explained = loaded.explain(new.posting_id.iloc[0], new)
    assert explained.titles[new.posting_id.iloc[0]] == new_joined.title.iloc[0]
    # a table that lacks one of them is refused by its name
    with pytest.raises(InputError, match=r"title_col\[1\]='about'"): loaded.match(new.drop(columns='about'))
