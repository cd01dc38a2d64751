"What a sentence-transformers folder asks for is followed: embeddings are those that its own library makes."
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.layers.padding import pad_token_ids
from fastmatch.matcher.batches import tokenize_titles
from fastmatch.models import TitleEncoder, load_tokenizer
from fastmatch.models.sentence import POOLS, sentence_settings
from fastmatch.models.text import load_saved_tokenizer
from tests.models.needs import has_minilm

TITLES = ['a Red bag', 'a much longer Title about a blue duffle bag with two pockets', 'x']


@pytest.fixture(scope='module')
def plain_folder(tmp_path_factory):
    "A small BERT with random weights and MiniLM's tokenizer, as transformers writes them."
    from transformers import AutoTokenizer, BertConfig, BertModel

    from fastmatch.models.text import resolve
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('encoders')/'plain'
    tokenizer = AutoTokenizer.from_pretrained(resolve('all-MiniLM-L6-v2'))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, initializer_range=.3)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def embedded(name, max_len=64, pool=None):
    "Unit embeddings of the titles, as a matcher makes them."
    encoder, tokenizer = TitleEncoder(name, pool=pool).eval(), load_tokenizer(name)
    token_ids = pad_token_ids(tokenize_titles(tokenizer, TITLES, max_len), tokenizer.pad_token_id)
    with torch.no_grad(): return F.normalize(encoder(token_ids)).numpy()


@has_minilm
@pytest.mark.parametrize('pool', POOLS)
def test_embeddings_are_those_of_sentence_transformers(plain_folder, tmp_path, pool):
    library = pytest.importorskip('sentence_transformers')
    modules = pytest.importorskip('sentence_transformers.sentence_transformer.modules')
    transformer = modules.Transformer(str(plain_folder))
    pooling = modules.Pooling(32, pooling_mode=pool)
    model = library.SentenceTransformer(
        modules=[transformer, pooling, modules.Normalize()], device='cpu',
        prompts={'listing': 'Represent this: ', 'other': 'no '}, default_prompt_name='listing')
    model.max_seq_length = 9
    model.save(str(tmp_path))
    expected = model.encode(TITLES)
    np.testing.assert_allclose(embedded(str(tmp_path)), expected, atol=2e-5)
    # and by another pooling they differ
    other = 'mean' if pool != 'mean' else 'cls'
    if pool != 'mean_sqrt_len_tokens':
        assert np.abs(embedded(str(tmp_path), pool=other)[1] - expected[1]).max() > .01


@has_minilm
def test_flags_of_earlier_versions_are_read(plain_folder, tmp_path):
    import shutil
    shutil.copytree(plain_folder, tmp_path/'bge')
    (tmp_path/'bge'/'1_Pooling').mkdir()
    file = tmp_path/'bge'/'1_Pooling'/'config.json'
    file.write_text(json.dumps({'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False}))
    assert TitleEncoder(tmp_path/'bge').pool == 'cls'
    assert TitleEncoder(tmp_path/'bge', pool='mean').pool == 'mean'
    file.write_text(json.dumps({'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': True}))
    with pytest.raises(InputError, match="bge.*cls and mean.*pool='cls'"): TitleEncoder(tmp_path/'bge')
    file.write_text(json.dumps({'pooling_mode': 'lasttoken'}))
    (tmp_path/'bge'/'modules.json').write_text(json.dumps([
        {'path': '', 'type': 'sentence_transformers.models.Transformer'},
        {'path': '1_Pooling', 'type': 'sentence_transformers.models.Pooling'},
        {'path': '2_Dense', 'type': 'sentence_transformers.models.Dense'}]))
    with pytest.warns(UserWarning, match='bge.*Dense'):
        assert TitleEncoder(tmp_path/'bge').pool == 'lasttoken'
    assert TitleEncoder(plain_folder).pool == 'mean'


@has_minilm
def test_case_and_prompt_are_saved_with_the_tokenizer(plain_folder, tmp_path):
    import shutil
    shutil.copytree(plain_folder, tmp_path/'lower')
    (tmp_path/'lower'/'sentence_bert_config.json').write_text(
        json.dumps({'do_lower_case': True, 'max_seq_length': 12}))
    (tmp_path/'lower'/'config_sentence_transformers.json').write_text(
        json.dumps({'prompts': {'query': 'find: '}, 'default_prompt_name': 'query'}))
    tokenizer, plain = load_tokenizer(str(tmp_path/'lower')), load_tokenizer(str(plain_folder))
    expected = [plain('find: ' + title.lower(), truncation=True, max_length=12)['input_ids']
                for title in TITLES]
    assert tokenize_titles(tokenizer, TITLES, 64) == expected
    assert len(expected[1]) == 12
    tokenizer.save_pretrained(tmp_path/'saved')
    assert tokenize_titles(load_saved_tokenizer(tmp_path/'saved'), TITLES, 64) == expected
    # what was saved without a prompt has none
    plain.save_pretrained(tmp_path/'bare')
    assert load_saved_tokenizer(tmp_path/'bare')(TITLES[0]) == plain(TITLES[0])


@has_minilm
def test_settings_that_are_not_there_change_nothing(plain_folder):
    settings = sentence_settings(str(plain_folder))
    assert (settings.pool, settings.prompt, settings.lower, settings.max_len) == ((), '', False, None)
