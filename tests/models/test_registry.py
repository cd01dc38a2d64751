"""Encoders by name and by spec: the built-in kinds as they were, a third party's kinds through model, spec
and tokenizer."""
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.matcher.encode import headless
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, register_encoder, registry
from fastmatch.models.registry import (
    encoder_from_spec,
    encoder_spec,
    make_encoder,
    make_tokenizer,
    tokenizer_from_folder,
)


class Patches(nn.Module):
    "A third party's image encoder: the means of a few patches, through a linear layer."
    mean = [.4, .4, .4]
    std = [.2, .2, .2]

    def __init__(self, name='small'):
        super().__init__()
        self.name = name
        self.side = {'small': 2, 'large': 4}[name]
        self.n_out = 5
        self.linear = nn.Linear(3 * self.side**2, self.n_out)

    def forward(self, images):
        return self.linear(nn.functional.adaptive_avg_pool2d(images, self.side).flatten(1))
    def spec(self): return {'name': self.name}

    @classmethod
    def from_spec(cls, spec): return cls(spec['name'])


class Letters(nn.Module):
    "A third party's text encoder: a vector for each letter, pooled."
    def __init__(self, name='my-letters', pretrained=True, pool='mean', pad_id=0):
        super().__init__()
        self.options = {'name': name, 'pool': pool, 'pad_id': pad_id}
        self.pretrained = pretrained
        self.n_out = 4
        self.table = nn.Embedding(128, self.n_out, padding_idx=pad_id)

    def forward(self, ids):
        vectors = self.table(ids)
        return vectors.amax(1) if self.options['pool'] == 'max' else vectors.mean(1)

    def spec(self): return dict(self.options)

    @classmethod
    def from_spec(cls, spec): return cls(pretrained=False, **spec)


class LetterTokenizer:
    "A letter is a token; saved as a file of its own."
    def __init__(self, upper=False, pad_token_id=7):
        self.upper = upper
        self.pad_token_id = pad_token_id

    def __call__(self, titles, truncation=True, max_length=64):
        titles = [title.upper() if self.upper else title for title in titles]
        return {'input_ids': [[ord(letter) % 128 for letter in title][:max_length] for title in titles]}

    def save_pretrained(self, folder):
        (Path(folder)/'letters.json').write_text(json.dumps({'upper': self.upper}))

    @classmethod
    def load(cls, name):
        "From an encoder's name, or from a folder that was saved."
        if name in ('my-letters', 'upper'): return cls(name == 'upper')
        with open(f'{name}/letters.json') as file: return cls(**json.load(file))


@pytest.fixture
def kinds(monkeypatch):
    "A registry that forgets what a test puts into it."
    own_kinds = {modality: dict(known) for modality, known in registry.KINDS.items()}
    monkeypatch.setattr(registry, 'KINDS', own_kinds)
    return own_kinds


@pytest.fixture
def registered(kinds):
    register_encoder('image', 'my-patches', Patches)
    register_encoder('text', 'my-letters', Letters, LetterTokenizer.load)


def spec_of(model):
    "As a matcher's encoder writes it."
    modality_of = {'image': 'image', 'title': 'text'}
    parts = {name: encoder_spec(modality_of[name], encoder) for name, encoder in model.encoders.items()}
    return json.loads(json.dumps({**parts, 'widths': model.widths, 'neck': True}))


def test_a_third_partys_model_comes_back_with_equal_outputs(registered):
    torch.manual_seed(0)
    model = MatchNet(
        3, make_encoder('image', 'my-patches:large'), make_encoder('text', 'my-letters', pool='max')
    )
    spec = spec_of(model)
    assert spec['image'] == {'kind': 'my-patches', 'name': 'large'}
    assert spec['title'] == {'kind': 'my-letters', 'name': 'my-letters', 'pool': 'max', 'pad_id': 0}
    again = headless(spec)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith('heads.')}
    again.load_state_dict(weights)
    images = torch.rand(4, 3, 16, 16)
    ids = torch.randint(128, (4, 6))
    before = model.eval()(images, ids)
    after = again.eval()(images, ids)
    assert list(before) == list(after) == ['image', 'title', 'joint']
    for modality, embedding in before.items(): assert torch.equal(embedding, after[modality])


def test_built_in_kinds_have_the_spec_that_they_always_had():
    encoder = make_encoder('image', 'test_efficientnet', pretrained=False, pool='gem')
    assert type(encoder) is ImageEncoder and encoder.pool_name == 'gem'
    spec = encoder_spec('image', encoder)
    assert list(spec) == ['name', 'arch', 'args', 'pool', 'mean', 'std', 'n_out'] and spec == encoder.spec()
    again = encoder_from_spec('image', json.loads(json.dumps(spec)))
    assert type(again) is ImageEncoder and again.spec() == spec
    again.load_state_dict(encoder.state_dict())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again.eval()(images), encoder.eval()(images))
    assert list(again.state_dict()) == list(encoder.state_dict())


def test_a_built_in_text_encoder_comes_back_with_equal_outputs():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    encoder = TitleEncoder('mine', pool='cls', pad_id=0, body=BertModel(config)).eval()
    assert not list(encoder.body.pooler.parameters()) and encoder.n_out == 8
    spec = encoder_spec('text', encoder)
    assert list(spec) == ['name', 'config', 'pool', 'pad_id'] and spec == encoder.spec()
    again = encoder_from_spec('text', json.loads(json.dumps(spec))).eval()
    again.load_state_dict(encoder.state_dict())
    ids = torch.randint(30, (3, 5))
    assert type(again) is TitleEncoder and torch.equal(again(ids), encoder(ids))


def test_a_name_leads_to_its_kind(registered):
    assert make_encoder('image', 'my-patches:large').side == 4
    assert make_encoder('image', 'timm:test_efficientnet', pretrained=False).name == 'test_efficientnet'
    # without a colon the class is given the name of the kind
    assert make_encoder('text', 'my-letters').options['name'] == 'my-letters'
    with pytest.raises(InputError, match="image_arch='my-letters' is no timm model"):
        make_encoder('image', 'my-letters')


def test_options_go_to_the_classes_that_take_them(registered):
    encoder = make_encoder('text', 'my-letters:x', pretrained=False, pool='max', pad_id=7)
    assert encoder.options == {'name': 'x', 'pool': 'max', 'pad_id': 7} and encoder.pretrained is False
    assert make_encoder('text', 'my-letters').options['pool'] == 'mean'
    with pytest.raises(InputError, match="pool='gem': encoders of kind 'my-patches' take no pool"):
        make_encoder('image', 'my-patches:small', pool='gem')
    with pytest.raises(InputError, match='pretrained=False.*take no pretrained'):
        make_encoder('image', 'my-patches:small', pretrained=False)


def test_a_tokenizer_comes_with_its_encoder_and_back_from_its_files(registered, tmp_path):
    tokenizer = make_tokenizer('my-letters:upper')
    assert tokenizer.upper and tokenizer(['ab'])['input_ids'] == [[65, 66]]
    tokenizer.save_pretrained(tmp_path)
    spec = encoder_spec('text', make_encoder('text', 'my-letters:upper', pad_id=tokenizer.pad_token_id))
    assert tokenizer_from_folder(spec, tmp_path)(['ab']) == tokenizer(['ab'])


def test_a_tokenizer_without_padding_is_refused(kinds):
    register_encoder('text', 'my-letters', Letters, lambda name: LetterTokenizer(pad_token_id=None))
    with pytest.raises(InputError, match="'my-letters': its tokenizer has no padding"):
        make_tokenizer('my-letters')


@pytest.mark.parametrize('modality, kind', [('image', 'my-patches'), ('text', 'my-letters')])
def test_a_kind_that_is_not_registered_is_named(kinds, tmp_path, modality, kind):
    words = f"'{kind}' is no registered kind of {modality}.*register_encoder.'{modality}', '{kind}'"
    with pytest.raises(InputError, match=words): encoder_from_spec(modality, {'kind': kind, 'name': 'large'})
    with pytest.raises(InputError, match=words): make_encoder(modality, f'{kind}:large')
    name = {'image': 'image', 'text': 'title'}[modality]
    with pytest.raises(InputError, match=words):
        headless({name: {'kind': kind}, 'widths': {name: 3}, 'neck': True})
    if modality == 'text':
        with pytest.raises(InputError, match=words): tokenizer_from_folder({'kind': kind}, tmp_path)


def test_an_encoder_of_no_kind_can_not_be_saved(kinds):
    with pytest.raises(
        InputError, match="Patches is of no registered kind.*register_encoder.'image', 'a-name', Patches"
    ):
        encoder_spec('image', Patches())
    with pytest.raises(InputError, match="modality='sound': choose one of .'image', 'text'"):
        make_encoder('sound', 'x')


def test_a_subclass_is_saved_as_what_it_extends(kinds):
    class Mine(ImageEncoder):
        "An `ImageEncoder` with another name."

    assert 'kind' not in encoder_spec('image', Mine('test_efficientnet', pretrained=False))
    register_encoder('image', 'mine', Mine)
    spec = encoder_spec('image', Mine('test_efficientnet', pretrained=False))
    assert spec['kind'] == 'mine' and type(encoder_from_spec('image', spec)) is Mine


@pytest.mark.parametrize(
    'modality, kind, words',
    [
        ('image', 'timm', 'taken'),
        ('text', 'transformers', 'taken'),
        ('image', 'hf-hub', 'taken'),
        ('image', 'resnet18', 'name of an encoder already'),
        ('text', 'all-MiniLM-L6-v2', 'name of an encoder already'),
        ('image', 'a:b', 'without colon'),
        ('image', 'a/b', 'without colon'),
        ('image', '', 'without colon'),
        ('image', None, 'without colon'),
    ],
)
def test_names_that_clash(kinds, modality, kind, words):
    with pytest.raises(InputError, match=words): register_encoder(modality, kind, Patches)


def test_a_kind_belongs_to_one_class(registered):
    with pytest.raises(InputError, match="'my-patches' is a kind of image encoder already .*Patches"):
        register_encoder('image', 'my-patches', Letters)
    # the same class again, as where a notebook's cell runs twice
    again = type(
        'Patches', (Patches,), {'__module__': Patches.__module__, '__qualname__': Patches.__qualname__}
    )
    register_encoder('image', 'my-patches', again)
    assert type(make_encoder('image', 'my-patches:small')) is again
    # the same name for the other modality is another kind
    register_encoder('text', 'my-patches', Letters)


def test_what_a_kind_lacks_is_told(kinds):
    class NoSpec(nn.Module):
        "Can't be saved."

    class NoWidth(Patches):
        "Has no features."
        def __init__(self, name='small'): nn.Module.__init__(self)

    class OwnKind(Patches):
        "A spec with the registry's key."
        def spec(self): return {'kind': 'mine'}

    with pytest.raises(InputError, match='NoSpec.*has no spec, from_spec'):
        register_encoder('image', 'x', NoSpec)
    with pytest.raises(InputError, match='no tokenizer'):
        register_encoder('image', 'x', Patches, LetterTokenizer.load)
    register_encoder('image', 'x', NoWidth)
    with pytest.raises(InputError, match="'x' lacks n_out"): make_encoder('image', 'x')
    register_encoder('image', 'own', OwnKind)
    with pytest.raises(InputError, match="a key 'kind'"): encoder_spec('image', OwnKind())
