"""The towers of CLIP and SigLIP models by one name: features are those of transformers, through the registry,
a learner and a saved matcher."""
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from fastai.vision.augment import Resize
from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

from fastmatch.core import InputError, MissingPackage, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.padding import pad_token_ids
from fastmatch.learner import classify_learner, match_learner
from fastmatch.match import Rule
from fastmatch.matcher import load_matcher
from fastmatch.matcher.batches import tokenize_titles
from fastmatch.models import FrameFeatures, ImageEncoder, TitleEncoder
from fastmatch.models.clip import FAMILIES, ClipImageEncoder, ClipTextEncoder
from fastmatch.models.layered import parameters_by_layer
from fastmatch.models.registry import (
    encoder_from_spec,
    encoder_spec,
    make_encoder,
    make_tokenizer,
    tokenizer_from_folder,
)
from tests.matcher.trained import some_listings

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
             initializer_factor=8.)
PLACES = 20  # for tokens
TITLES = ['a red bag', 'x', '', 'a much longer title about a blue duffle bag with two pockets']
PICTURES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# name of a case -> (model type, its end-of-text token in the config, the token that texts are padded with)
CASES = {'clip': ('clip', 'end', 'end'), 'early clip': ('clip', 2, 'end'),
         'padded clip': ('clip', 'end', 'pad'), 'metaclip_2': ('metaclip_2', 'end', 'pad'),
         'siglip': ('siglip', 'end', 'end')}


def letters(padding):
    "CLIP's tokenizer with a token for each letter; the end of a text is the last of the vocabulary."
    small = 'abcdefghijklmnopqrstuvwxyz'
    tokens = ['!</w>', '!', '[pad]', *small, *(f'{letter}</w>' for letter in small), '<|startoftext|>',
              '<|endoftext|>']
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pad_token = {'end': '<|endoftext|>', 'pad': '[pad]'}[padding]
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=pad_token), len(tokens)


def save_whole(folder, model_type='clip', end=None, padding='end', processor='preprocessor'):
    "A small whole model with random weights, with its tokenizer and image processor, in a folder."
    torch.manual_seed(0)
    tokenizer, n_tokens = letters(padding)
    end = n_tokens - 1 if end in (None, 'end') else end
    text = dict(vocab_size=n_tokens, max_position_embeddings=PLACES, bos_token_id=n_tokens - 2,
                eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    vision = dict(image_size=32, patch_size=8)
    prefix = FAMILIES[model_type].prefix
    # SigLIP's own way of making weights has no such factor
    sizes = {name: value for name, value in SIZES.items()
             if prefix != 'Siglip' or name != 'initializer_factor'}
    projection = {} if prefix == 'Siglip' else {'projection_dim': 12}
    config = getattr(transformers, f'{prefix}Config')(text_config={**sizes, **text},
                                                      vision_config={**sizes, **vision}, **projection)
    model = getattr(transformers, f'{prefix}Model')(config).eval()
    model.save_pretrained(folder)
    images = CLIPImageProcessor(size={'shortest_edge': 32}, crop_size={'height': 32, 'width': 32},
                                image_mean=[.1, .2, .3], image_std=[.4, .5, .6])
    if processor == 'processor': CLIPProcessor(images, tokenizer).save_pretrained(folder)
    else:
        tokenizer.save_pretrained(folder)
        if processor: images.save_pretrained(folder)
    return model


@pytest.fixture(scope='module', params=CASES)
def whole(request, tmp_path_factory):
    "(folder, model) of each case."
    folder = tmp_path_factory.mktemp('whole')/'model'
    return str(folder), save_whole(folder, *CASES[request.param])


@pytest.fixture
def clip_folder(tmp_path):
    save_whole(tmp_path/'clip')
    return str(tmp_path/'clip')


def features_of(output): return getattr(output, 'pooler_output', output)


def transformers_texts(folder, model):
    "The text features that transformers gives, with its own padding and mask."
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    is_siglip = model.config.model_type == 'siglip'
    batch = tokenizer(TITLES, padding='max_length' if is_siglip else True, truncation=True, max_length=PLACES,
                      return_tensors='pt')
    # SigLIP was trained to read its padding
    if is_siglip: del batch['attention_mask']
    with torch.no_grad(): return features_of(model.get_text_features(**batch))


def towers(folder):
    "Both encoders, the tokenizer, and the padded token ids of the titles."
    tokenizer = make_tokenizer(folder)
    image = make_encoder('image', folder).eval()
    text = make_encoder('text', folder, pad_id=tokenizer.pad_token_id).eval()
    ids = pad_token_ids(tokenize_titles(tokenizer, TITLES, 64), tokenizer.pad_token_id)
    return image, text, tokenizer, ids


@torch.no_grad()
def test_features_are_those_of_transformers(whole):
    folder, model = whole
    image, text, tokenizer, ids = towers(folder)
    assert type(image) is ClipImageEncoder and type(text) is ClipTextEncoder
    expected = features_of(model.get_image_features(PICTURES))
    torch.testing.assert_close(image(PICTURES), expected, atol=1e-5, rtol=1e-5)
    expected_texts = transformers_texts(folder, model)
    torch.testing.assert_close(text(ids), expected_texts, atol=1e-5, rtol=1e-5)
    assert image.n_out == text.n_out == expected.shape[1] == expected_texts.shape[1]
    # titles are told apart, and longer ones than the model has places for are cut off
    distances = torch.cdist(expected_texts, expected_texts) + 9 * torch.eye(len(TITLES))
    assert distances.min() > .01 and ids.shape[1] == PLACES
    assert (image.mean, image.std) == ([.1, .2, .3], [.4, .5, .6])


@torch.no_grad()
def test_padding_changes_nothing(whole):
    folder, _ = whole
    _, text, tokenizer, ids = towers(folder)
    expected = text(ids)
    rows = tokenize_titles(tokenizer, TITLES[:2], 64)
    short = pad_token_ids(rows, tokenizer.pad_token_id)
    torch.testing.assert_close(text(short), expected[:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text(F.pad(short, (0, 5), value=tokenizer.pad_token_id)), expected[:2],
                               atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text(torch.tensor(rows[:1])), expected[:1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cosines_are_the_logits_of_the_model(whole):
    folder, model = whole
    image, text, tokenizer, ids = towers(folder)
    full_ids = F.pad(ids, (0, PLACES - ids.shape[1]), value=tokenizer.pad_token_id)
    logits = model(input_ids=full_ids, pixel_values=PICTURES).logits_per_image
    cosines = F.normalize(image(PICTURES)) @ F.normalize(text(ids)).T
    bias = getattr(model, 'logit_bias', 0.)
    torch.testing.assert_close(cosines, (logits - bias) / model.logit_scale.exp(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_specs_and_tokenizer_come_back(whole, tmp_path):
    folder, _ = whole
    image, text, tokenizer, ids = towers(folder)
    for modality, encoder, batch in (('image', image, PICTURES), ('text', text, ids)):
        spec = json.loads(json.dumps(encoder_spec(modality, encoder)))
        assert spec['kind'] == 'clip' and spec['name'] == 'model' and folder not in json.dumps(spec)
        again = encoder_from_spec(modality, spec).eval()
        assert list(again.state_dict()) == list(encoder.state_dict())
        assert encoder_spec(modality, again) == spec
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again(batch), encoder(batch)) and again.n_out == encoder.n_out
    tokenizer.save_pretrained(tmp_path)
    saved = tokenizer_from_folder(encoder_spec('text', text), tmp_path)
    assert tokenize_titles(saved, TITLES, 64) == tokenize_titles(tokenizer, TITLES, 64)


@torch.no_grad()
def test_the_end_of_a_text_is_its_first_end_token(clip_folder):
    "Against the pooling by hand, one title at a time."
    _, text, tokenizer, ids = towers(clip_folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for row, title in zip(text(ids), tokenize_titles(tokenizer, TITLES, 64)):
        assert title.count(tokenizer.eos_token_id) == 1
        last = text.body(input_ids=torch.tensor([title])).last_hidden_state[0, -1]
        torch.testing.assert_close(row, text.projection(last), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pictures_of_another_size(whole):
    folder, model = whole
    pictures = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    encoder = make_encoder('image', folder, img_size=(48, 32)).eval()
    expected = features_of(model.get_image_features(pictures, interpolate_pos_encoding=True))
    torch.testing.assert_close(encoder(pictures), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match='squares of 8 pixels.*4 x 32 have none.*trained on 32 x 32'):
        make_encoder('image', folder, img_size=(4, 32))


def test_what_a_folder_says_of_pixels(tmp_path):
    save_whole(tmp_path/'newer', processor='processor')
    assert make_encoder('image', tmp_path/'newer').std == [.4, .5, .6]
    save_whole(tmp_path/'none', processor=None)
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    encoder = make_encoder('image', tmp_path/'none')
    assert (encoder.mean, encoder.std) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    save_whole(tmp_path/'siglip', 'siglip', processor=None)
    assert make_encoder('image', tmp_path/'siglip').mean == [.5, .5, .5]
    file = tmp_path/'none'/'preprocessor_config.json'
    file.write_text(json.dumps({'do_normalize': False, 'image_mean': [.5, .5, .5]}))
    encoder = make_encoder('image', tmp_path/'none')
    assert (encoder.mean, encoder.std) == ([0.] * 3, [1.] * 3)


def test_a_whole_model_as_a_module(clip_folder):
    model = transformers.CLIPModel.from_pretrained(clip_folder)
    image, text, tokenizer, ids = towers(clip_folder)
    with torch.no_grad():
        assert torch.equal(make_encoder('image', model).eval()(PICTURES), image(PICTURES))
        given = make_encoder('text', model, pad_id=make_tokenizer(model).pad_token_id)
        assert torch.equal(given.eval()(ids), text(ids))
    # a model that was made in memory, without a folder
    model.config._name_or_path = ''
    made = make_encoder('image', transformers.CLIPModel(model.config))
    assert made.mean == list(FAMILIES['clip'].mean)


def test_it_is_trained_in_float32_with_its_layers(clip_folder, tmp_path):
    transformers.CLIPModel.from_pretrained(clip_folder).to(torch.bfloat16).save_pretrained(clip_folder)
    image, text, _, ids = towers(clip_folder)
    for encoder, batch in ((image, PICTURES), (text, ids)):
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
        encoder(batch).sum().backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0
                   for name, parameter in encoder.named_parameters() if not name.endswith('k_proj.bias'))
        layers = parameters_by_layer(encoder)
        # before, two, after: the projection is with the last
        assert len(layers) == 4 and any(encoder.projection.weight is parameter for parameter in layers[-1])
    random = [make_encoder(modality, clip_folder, pretrained=False) for modality in ('image', 'text')]
    assert not torch.equal(random[0].projection.weight, image.projection.weight)
    assert not torch.equal(random[1].projection.weight, text.projection.weight)


def test_what_cannot_be_is_told(clip_folder, tmp_path):
    for modality in ('image', 'text'):
        with pytest.raises(InputError, match="pool='max'.*a pooling of its own"):
            make_encoder(modality, clip_folder, pool='max')
    with pytest.raises(InputError, match='clip model reads more than titles.*SigLIP.*CLIPTextModel'):
        TitleEncoder(clip_folder, pool='mean', pad_id=0)
    transformers.BlipConfig().save_pretrained(tmp_path/'blip')
    for modality, option in (('image', 'image_arch'), ('text', 'text_arch')):
        words = f'{option}=.*a blip model.*clip, metaclip_2, siglip can be taken'
        with pytest.raises(InputError, match=words):
            make_encoder(modality, tmp_path/'blip', pad_id=0)
    # a tokenizer of another model
    letters('end')[0].__class__(vocab={'a</w>': 0, '<|startoftext|>': 1, '<|endoftext|>': 2}, merges=[]
                                ).save_pretrained(clip_folder)
    with pytest.raises(InputError, match='looks for token 56 at the end of a text.*puts .2. there'):
        make_tokenizer(clip_folder)
    settings = json.loads((tmp_path/'clip'/'config.json').read_text())
    settings['vision_config']['hidden_size'] = 32
    (tmp_path/'clip'/'config.json').write_text(json.dumps(settings))
    with pytest.raises(InputError, match='image_arch=.*do not belong to its config.json'):
        make_encoder('image', clip_folder)
    spec = {'kind': 'clip', 'name': 'x', 'model': 'blip', 'config': {}, 'mean': [], 'std': []}
    with pytest.raises(InputError, match='spec: a blip model'): encoder_from_spec('image', spec)


def test_weights_of_one_tower_alone(clip_folder):
    from safetensors.torch import load_file, save_file
    file = f'{clip_folder}/model.safetensors'
    weights = {name: tensor for name, tensor in load_file(file).items() if not name.startswith('text_')}
    save_file(weights, file, {'format': 'pt'})
    for modality, option in (('image', 'image_arch'), ('text', 'text_arch')):
        with pytest.raises(InputError, match=f'{option}=.*its weights lack text_'):
            make_encoder(modality, clip_folder)


def test_names_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(InputError, match="'openai/clip' is no timm model.*'clip:openai/clip'"):
        make_encoder('image', 'openai/clip')
    for modality in ('image', 'text'):
        with pytest.raises(MissingPackage, match="'openai/clip' are not on this machine and the hub gave"):
            make_encoder(modality, 'clip:openai/clip', pad_id=0)


def test_a_repository_in_the_hubs_cache(monkeypatch, tmp_path):
    "As the hub's client lays it out."
    repository = tmp_path/'models--some--clip'
    model = save_whole(repository/'snapshots'/'abc')
    (repository/'refs').mkdir()
    (repository/'refs'/'main').write_text('abc')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('transformers.utils.hub.constants.HF_HUB_CACHE', str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        image, text, tokenizer, ids = towers('some/clip')
    with torch.no_grad():
        torch.testing.assert_close(image(PICTURES), features_of(model.get_image_features(PICTURES)))
    assert image.mean == [.1, .2, .3] and text.n_out == 12 and ids.shape[1] == PLACES


def learner_options():
    return dict(fold_col='fold', bs=8, num_workers=0, phash=False, item_tfms=Resize(32), max_len=PLACES)


@pytest.mark.parametrize('case', ['clip', 'siglip'])
def test_one_name_for_both_towers_of_a_learner(tmp_path, case):
    folder = str(tmp_path/'whole')
    save_whole(folder, *CASES[case])
    seed_everything(0)
    loaders = MatchDataLoaders.from_df(some_listings(), demo_path()/'images', **learner_options())
    learner = match_learner(loaders, folder, folder)
    before = learner.model.encoders['title'].body.final_layer_norm.weight.clone()
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)
    assert not torch.equal(before, learner.model.encoders['title'].body.final_layer_norm.weight)
    expected = learner.embeddings()
    learner.matcher(loaders.valid_df, Rule('mean', {'image': .5, 'title': .5}, .9)).save(tmp_path/'matcher')
    files = [file.name for file in (tmp_path/'matcher').rglob('*') if file.is_file()]
    assert {name.rpartition('.')[2] for name in files} == {'json', 'safetensors'}
    shutil.rmtree(folder)
    found, _ = load_matcher(tmp_path/'matcher').embed(loaders.valid_df, demo_path()/'images')
    for modality in ('image', 'title', 'joint'):
        np.testing.assert_allclose(found[modality], expected[modality], atol=1e-5)


def test_a_classifier_and_frozen_features(clip_folder):
    listings = some_listings()
    files = [demo_path()/'images'/name for name in listings.image[:6]]
    features = FrameFeatures(clip_folder, 32, device='cpu')
    assert features(files).shape == (6, 12)
    assert features.fingerprint == FrameFeatures(clip_folder, 32, device='cpu').fingerprint
    loaders = ClassifyDataLoaders.from_df(listings, demo_path()/'images', label_col='vendor',
                                          **learner_options())
    learner = classify_learner(loaders, clip_folder, clip_folder)
    with learner.no_bar(), learner.no_logging(): learner.fit(1, 1e-3)


def test_a_picture_tower_that_timm_has():
    encoder = make_encoder('image', 'vit_xsmall_patch16_clip_224', pretrained=False, img_size=(32, 32))
    assert type(encoder) is ImageEncoder and encoder(PICTURES).shape == (4, encoder.n_out)
    assert encoder.mean == list(FAMILIES['clip'].mean) and encoder.std == list(FAMILIES['clip'].std)
