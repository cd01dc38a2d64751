"""Which families of timm's and transformers' models can be an encoder: each with random weights takes a step
of training, embeds, is saved in a matcher, and read back embeds the same.

`python tests/bench/families.py [image] [text] [--names resnet bert ...] [--out nbs/families.csv]`

Of each of timm's modules the smallest architecture is taken, of each of transformers' text models a tiny
config. A row's `result` is 'works', 'refused' (by one `InputError`, which is the `note`), or 'fails'.
"""
import argparse
import contextlib
import gc
import io
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.optimizer import SGD
from fastai.vision.augment import Resize

from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.learner import match_learner
from fastmatch.match import candidates, choose_rule
from fastmatch.matcher import load_matcher

# random weights of the smallest of these make the same features of every picture
CHOSEN = {'xception_aligned': 'xception41'}
SIZES = 64, 224  # pixels that are tried, the smaller first
MOST_PARAMETERS = 120e6  # of a family's smallest model: the step of a larger one takes too long here
LISTINGS = 12
TOLERANCE = 1e-4  # between embeddings before and after a matcher was saved

WIDTH = 16
BERT = dict(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
LLAMA = dict(**BERT, num_key_value_heads=1, head_dim=8)
BART = dict(d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16)
T5 = dict(d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
GPT = dict(n_embd=WIDTH, n_layer=2, n_head=2)
NEO = dict(hidden_size=WIDTH, num_layers=2, num_heads=2, intermediate_size=16,
           attention_types=[[['global', 'local'], 1]])
MOE = dict(**LLAMA, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8)
# transformers' model type -> sizes of a tiny one
TITLES = {
    'albert': dict(**BERT, embedding_size=8), 'bart': BART, 'bert': BERT, 'big_bird': BERT,
    'bigbird_pegasus': BART, 'biogpt': BERT, 'blenderbot-small': BART,
    'bloom': dict(hidden_size=WIDTH, n_layer=2, n_head=2), 'camembert': BERT,
    'canine': dict(**BERT, num_hash_buckets=64), 'clip_text_model': BERT,
    'codegen': dict(**GPT, rotary_dim=4), 'convbert': dict(**BERT, embedding_size=8),
    'ctrl': dict(n_embd=WIDTH, n_layer=2, n_head=2, dff=16), 'data2vec-text': BERT, 'deberta': BERT,
    'deberta-v2': BERT, 'distilbert': dict(dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=16),
    'electra': dict(**BERT, embedding_size=8), 'ernie': BERT, 'esm': BERT, 'eurobert': LLAMA,
    'falcon': dict(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2),
    'flaubert': dict(emb_dim=WIDTH, n_layers=2, n_heads=2),
    'fnet': dict(hidden_size=WIDTH, num_hidden_layers=2, intermediate_size=16),
    'funnel': dict(d_model=WIDTH, n_head=2, d_head=8, d_inner=16, block_sizes=[1, 1], num_decoder_layers=1),
    'gemma': LLAMA, 'gemma2': LLAMA, 'gemma3_text': LLAMA, 'gpt2': GPT, 'gpt_neo': NEO, 'gpt_neox': BERT,
    'gptj': dict(**GPT, rotary_dim=4), 'ibert': BERT, 'layoutlm': BERT,
    'led': dict(**BART, attention_window=4), 'llama': LLAMA, 'longformer': dict(**BERT, attention_window=4),
    'longt5': T5, 'luke': dict(**BERT, entity_vocab_size=8, entity_emb_size=8), 'm2m_100': BART,
    'mamba': dict(hidden_size=WIDTH, num_hidden_layers=2, state_size=4), 'marian': BART, 'mbart': BART,
    'megatron-bert': BERT, 'mistral': LLAMA,
    'mixtral': dict(**LLAMA, num_local_experts=2, num_experts_per_tok=1),
    'mobilebert': dict(**BERT, embedding_size=8, intra_bottleneck_size=8, true_hidden_size=8),
    'modernbert': BERT, 'mpnet': BERT, 'mpt': dict(d_model=WIDTH, n_heads=2, n_layers=2), 'mra': BERT,
    'mt5': T5, 'nomic_bert': BERT, 'nystromformer': BERT, 'olmo2': LLAMA, 'openai-gpt': GPT,
    'opt': dict(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, ffn_dim=16,
        word_embed_proj_dim=WIDTH),
    'pegasus': BART, 'phi': BERT, 'phi3': dict(**BERT, num_key_value_heads=2),
    'prophetnet': dict(hidden_size=WIDTH, encoder_ffn_dim=16, num_encoder_layers=1,
        num_encoder_attention_heads=2, decoder_ffn_dim=16, num_decoder_layers=1,
        num_decoder_attention_heads=2),
    'qwen3': LLAMA, 'qwen3_moe': MOE,
    'reformer': dict(hidden_size=WIDTH, num_attention_heads=2, attention_head_size=8, feed_forward_size=16,
        attn_layers=['local', 'lsh'], axial_pos_embds_dim=[8, 8], axial_pos_shape=[8, 8]),
    'rembert': dict(**BERT, input_embedding_size=8, output_embedding_size=8), 'roberta': BERT,
    'roberta-prelayernorm': BERT, 'roc_bert': BERT, 'roformer': dict(**BERT, embedding_size=8),
    'rwkv': dict(hidden_size=WIDTH, num_hidden_layers=2), 'siglip_text_model': BERT, 'splinter': BERT,
    'squeezebert': dict(**BERT, embedding_size=WIDTH, q_groups=1, k_groups=1, v_groups=1,
        post_attention_groups=1, intermediate_groups=1, output_groups=1),
    'switch_transformers': dict(**T5, num_experts=2), 't5': T5, 'umt5': T5,
    'xglm': dict(d_model=WIDTH, num_layers=1, attention_heads=2, ffn_dim=16),
    'xlm': dict(emb_dim=WIDTH, n_layers=2, n_heads=2), 'xlm-roberta': BERT, 'xlm-roberta-xl': BERT,
    'xlnet': dict(d_model=WIDTH, n_layer=2, n_head=2, d_inner=16),
    'xmod': dict(**BERT, languages=['en_XX'], default_language='en_XX'), 'yoso': BERT}


def smallest(
    module: str,  # One of `timm.list_modules()`
    most: int = 40,  # Architectures that are looked at, the `test_` ones first
) -> tuple[str, int]:  # Its name and the number of its parameters
    "The smallest architecture of a module of timm's."
    import timm
    names = [CHOSEN[module]] if module in CHOSEN else timm.list_models(module=module)
    names = sorted(names, key=lambda name: not name.startswith('test_'))[:most]
    counts = {}
    for name in names:
        if counts and name.startswith('test_') < names[0].startswith('test_'): break
        with torch.device('meta'): model = timm.create_model(name, pretrained=False)
        counts[name] = sum(parameter.numel() for parameter in model.parameters())
    name = min(counts, key=counts.get)
    return name, counts[name]


@cache
def sample() -> pd.DataFrame:
    "Listings of the demo, two folds."
    df = pd.read_csv(demo_path()/'listings.csv')
    parts = [df[df.fold == fold].sort_values('label_group')[:LISTINGS] for fold in (0, 1)]
    return pd.concat(parts, ignore_index=True)


@cache
def loaders(
    size: int | None,  # Pixels of the pictures; None: titles alone
):
    "Pictures or titles, a batch of two listings an epoch."
    columns = dict(text_col=None) if size else dict(fn_col=None)
    picture_options = dict(item_tfms=Resize(size)) if size else {}
    return MatchDataLoaders.from_df(sample(), demo_path()/'images', fold_col='fold', bs=LISTINGS,
                                    num_workers=0, phash=False, max_len=16, **columns, **picture_options)


@cache
def tokenizer():
    "Words of the demo's titles; the padding token is 1, which MPNet can't do without."
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    titles = ' '.join(pd.read_csv(demo_path()/'listings.csv').title).lower()
    words = ['[UNK]', '[PAD]', 'listing', *sorted({*titles.split()} - {'listing'})[:120]]
    word_level = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, '[UNK]'))
    word_level.normalizer = normalizers.Lowercase()
    word_level.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=word_level, pad_token='[PAD]', unk_token='[UNK]')


def tiny_model(
    model_type: str,  # A key of `TITLES`
    folder,  # Where model and tokenizer are written to
):
    "A tiny model of transformers' with random weights, in a folder."
    from transformers import AutoConfig, AutoModel, SiglipTextModel
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer()) + 8, pad_token_id=1, bos_token_id=2,
                                  eos_token_id=3, **TITLES[model_type])
    # of Funnel there are two models
    if model_type == 'funnel': config.architectures = ['FunnelModel']
    torch.manual_seed(0)
    if model_type == 'siglip_text_model': model = SiglipTextModel(config)
    else: model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


class Gradients(Callback):
    "Counts the weights of each encoder that a step gives no gradient to."
    def before_step(self):
        self.unread = {modality: sum(parameter.grad is None for parameter in encoder.parameters())
                       for modality, encoder in self.learn.model.encoders.items()}


def taken_through(
    arch,  # Of the encoder: timm's name, or a folder
    size: int | None,  # Pixels; None: a title encoder
    folder,  # For the matcher
) -> str:  # What is worth knowing of it
    "Train, embed, save, load and embed again; raises what goes wrong."
    seed_everything(0)
    modality = 'image' if size else 'title'
    archs = dict(image_arch=arch, pretrained=False) if size else dict(text_arch=arch)
    learner = match_learner(loaders(size), opt_func=SGD, path=folder, lr_mult={}, **archs)
    encoder = learner.model.encoders[modality]
    before = [parameter.detach().clone() for parameter in encoder.parameters()]
    gradients = Gradients()
    with learner.no_bar(), learner.no_logging(), contextlib.redirect_stdout(io.StringIO()):
        learner.fit(1, 1e-2, cbs=gradients)
        embeddings = learner.embeddings()
    moved = [not torch.equal(old, new) for old, new in zip(before, encoder.parameters())]
    assert any(moved), 'no weight was trained'
    vectors = embeddings[modality]
    assert np.isfinite(vectors).all() and vectors.shape[1] == encoder.n_out
    assert np.ptp(vectors, axis=0).max() > 0, 'all embeddings are the same'
    rows = learner.dls.valid_df
    matcher = learner.matcher(rows, choose_rule(candidates(embeddings.spaces()), embeddings.groups))
    matcher.save(Path(folder)/'matcher')
    del learner, matcher
    loaded = load_matcher(Path(folder)/'matcher')
    pictures = [demo_path()/'images'/name for name in rows.image] if size else None
    again = loaded.encoder.embed(pictures, None if size else list(rows.title))[0]
    np.testing.assert_allclose(again[modality], vectors, atol=TOLERANCE)
    padded = '' if size else _changed_by_padding(loaded.encoder.model.encoders['title'])
    unread = gradients.unread[modality]
    trained = f', {unread} of its {len(moved)} weights are not read' if unread else ''
    return f'{encoder.n_out} wide{trained}{padded}'


def _changed_by_padding(encoder):
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    longer = torch.nn.functional.pad(ids, (0, 6), value=encoder.pad_id)
    with torch.no_grad(): same = torch.allclose(encoder(ids), encoder(longer), atol=TOLERANCE, rtol=0)
    return '' if same else ', changes with the padding of a batch'


def fitting(
    family: str,  # A key of `TITLES`, or one of `timm.list_modules()`
    kind: str,  # 'image' or 'text'
) -> dict:  # family, kind, model, result, note
    "Whether a family's smallest model can be an encoder."
    row = dict(family=family, kind=kind)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if kind == 'text':
            tiny_model(family, Path(folder)/family)
            return {**row, 'model': 'tiny', **_result(Path(folder)/family, [None], folder)}
        name, count = smallest(family)
        row['model'] = name
        if count > MOST_PARAMETERS:
            return {**row, 'result': 'not tried', 'note': f'{count / 1e6:.0f} million parameters'}
        return {**row, **_result(name, SIZES, folder)}


def _result(arch, sizes, folder):
    refusals = []
    for size in sizes:
        try: note = taken_through(str(arch), size, folder)
        except InputError as error:
            refusals.append(' '.join(str(error).replace(str(folder), '').split()))
            continue
        # whatever a library raises is what is looked for here
        except Exception as error:
            return dict(result='fails', note=f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
        finally: gc.collect()
        if size: note += f', {size} px' + (f' (not {sizes[0]})' if refusals else '')
        return dict(result='works', note=note)
    return dict(result='refused', note=refusals[-1])


def main():
    import timm
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('kinds', nargs='*', default=['image', 'text'], help='image, text')
    parser.add_argument('--names', nargs='*', help='families, default all')
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args()
    known = {'image': timm.list_modules(), 'text': list(TITLES)}
    rows = []
    for kind in options.kinds:
        for family in known[kind]:
            if options.names and family not in options.names: continue
            started_at = time.perf_counter()
            rows.append(fitting(family, kind))
            seconds = time.perf_counter() - started_at
            shown = (str(value)[:150] for value in rows[-1].values())
            print(f'{seconds:5.1f} s', *shown, sep=' | ', flush=True)
    table = pd.DataFrame(rows)
    print(table.groupby(['kind', 'result']).size().to_string())
    if options.out: table.to_csv(options.out, index=False)


if __name__ == '__main__': main()
