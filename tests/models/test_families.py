"""Families of timm's and transformers' models as encoders: each trains, embeds and comes back from a folder
as it was, or one `InputError` says what it lacks."""
import pytest
import timm

from tests.bench.families import TITLES, fitting

# a handful, each for a reason: plain; a size that is set; windows that a size changes; a size that it refuses
FEW_IMAGES = 'resnet', 'vision_transformer', 'swin_transformer_v2', 'byoanet'
# plain; a pooler called unasked; no table of words; a decoder that belongs to the encoder; an encoder of two;
# unknown to AutoModel; a decoder alone; a width that isn't the config's
FEW_TITLES = ('bert', 'layoutlm', 'canine', 'funnel', 't5', 'siglip_text_model', 'gpt2', 'mpnet', 'reformer')
# family -> words of the refusal
REFUSED = {'byoanet': 'trained on 256 x 256', 'reformer': "text_arch='/reformer': of 2 rows it makes"}
# the smallest model of the family is too large for a test
LARGE = 'deepseek_vit', 'gemma4_vit', 'vgg'
FAMILIES = [*((family, 'image') for family in timm.list_modules()), *((family, 'text') for family in TITLES)]


def check(family, kind):
    row = fitting(family, kind)
    if family in LARGE: assert row['result'] == 'not tried'
    elif family not in REFUSED: assert row['result'] == 'works', row
    else: assert row['result'] == 'refused' and REFUSED[family] in row['note'], row


@pytest.mark.parametrize('family', [*FEW_IMAGES, *FEW_TITLES])
def test_a_few_families(family): check(family, 'image' if family in FEW_IMAGES else 'text')


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'kind'), FAMILIES, ids=lambda name: name)
def test_every_family(family, kind):
    if family in (*FEW_IMAGES, *FEW_TITLES): pytest.skip('tried above')
    check(family, kind)
