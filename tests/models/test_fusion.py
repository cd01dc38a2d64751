"Frames and text in one model: against plain loops, with what is missing, encoders that can't take frames."
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    FNetConfig,
    GPT2Config,
    LlamaConfig,
    MPNetConfig,
    RobertaConfig,
    RoFormerConfig,
    T5Config,
    T5EncoderModel,
)

from fastmatch.core import InputError
from fastmatch.models import ClassifyNet, ImageEncoder, MatchNet
from fastmatch.models.fusion import (
    DoubleStream,
    SingleStream,
    StreamBatch,
    StreamNet,
    make_fusion,
    masked_mean,
)
from fastmatch.models.text import TitleEncoder

WIDTH, FRAME_WIDTH, PAD = 24, 7, 0
SIZES = dict(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
             vocab_size=60,
             # large weights: with those that training starts from, a wrong position hardly shows
             initializer_range=.4)
FUSIONS = {'single': SingleStream, 'frames': DoubleStream, 'text': partial(DoubleStream, queries='text')}


def encoder(config=None, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(pad_token_id=PAD, **SIZES) if config is None else config
    return TitleEncoder('tiny', pad_id=config.pad_token_id, body=AutoModel.from_config(config)).eval()


def net(fusion='single', seed=0):
    title = encoder(seed=seed)
    made = StreamNet(FUSIONS[fusion](title, FRAME_WIDTH), None, title, FRAME_WIDTH).eval()
    # positions and types that training would have moved
    with torch.no_grad(): made.fusion.frames.kind.normal_()
    return made


def batch(n=4, frames=3, length=6, seed=0):
    "Items with 0 to 3 frames and texts of 6, 4, 2 and 0 tokens."
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor([3, 1, 2, 1])[:n]
    lengths = torch.tensor([6, 4, 2, 0])[:n]
    features = torch.randn(n, frames, FRAME_WIDTH, generator=generator)
    ids = torch.randint(5, 60, (n, length), generator=generator)
    is_token = torch.arange(length) < lengths[:, None]
    has_frame = torch.arange(frames) < counts[:, None]
    return StreamBatch(features, has_frame, torch.where(is_token, ids, PAD), is_token)


def padded(given, frames=2, tokens=3):
    "The same items with more room for frames and tokens, and anything at all in it."
    n = len(given)
    more_frames = torch.full((n, frames, FRAME_WIDTH), 9.)
    more_ids = torch.full((n, tokens), PAD)
    return StreamBatch(torch.cat([given.frames, more_frames], 1),
                       torch.cat([given.has_frame, torch.zeros(n, frames, dtype=torch.bool)], 1),
                       torch.cat([given.ids, more_ids], 1),
                       torch.cat([given.is_token, torch.zeros(n, tokens, dtype=torch.bool)], 1))


@pytest.mark.parametrize('fusion', FUSIONS)
def test_what_is_not_there_and_the_order_of_items_change_nothing(fusion):
    made, given = net(fusion), batch()
    with torch.no_grad():
        plain, wide = made.fuse(given), made.fuse(padded(given))
        order = torch.tensor([2, 0, 3, 1])
        moved = made.fuse(given.of(order))
        alone = torch.cat([made.fuse(given.of(torch.tensor([row]))).pooled for row in range(4)])
    assert plain.pooled.shape == (4, WIDTH) and plain.frames.shape == (4, 3, WIDTH)
    assert torch.isfinite(plain.pooled).all()
    torch.testing.assert_close(wide.pooled, plain.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wide.frames[:, :3][given.has_frame], plain.frames[given.has_frame], atol=1e-5,
                               rtol=1e-5)
    torch.testing.assert_close(moved.pooled, plain.pooled[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, plain.pooled, atol=1e-5, rtol=1e-5)
    # what a missing frame or padding holds is not read
    spoilt = replace(given, frames=torch.where(given.has_frame[..., None], given.frames, 1e4))
    with torch.no_grad(): torch.testing.assert_close(made.fuse(spoilt).pooled, plain.pooled)


@pytest.mark.parametrize('fusion', FUSIONS)
def test_frames_and_words_both_matter(fusion):
    made, given = net(fusion), batch()
    with torch.no_grad():
        plain = made.fuse(given).pooled
        other_frames = made.fuse(given.with_frames_of(torch.tensor([1, 2, 3, 0]))).pooled
        other_texts = made.fuse(given.with_texts_of(torch.tensor([1, 2, 0, 0]))).pooled
    assert ((plain - other_frames).abs().amax(1) > 1e-3).all()
    assert ((plain - other_texts).abs().amax(1) > 1e-3).all()


def test_a_single_stream_without_frames_is_the_text_encoder():
    made = net('single')
    given = batch(3)
    no_frames = StreamBatch(given.frames, torch.zeros_like(given.has_frame), given.ids, given.is_token)
    with torch.no_grad():
        expected = made.encoders['title'](given.ids)
        torch.testing.assert_close(made.fuse(no_frames).pooled, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.text_alone(given), expected)


def test_a_single_stream_equals_the_layers_of_bert_by_hand():
    made, given = net('single'), batch(1, frames=3, length=4)
    body = made.encoders['title'].body
    embeddings = body.embeddings
    with torch.no_grad():
        rows = []
        for place in range(3):
            frame = made.fusion.frames.linear(made.fusion.frames.norm(given.frames[0, place]))
            rows.append((frame + made.fusion.frames.position[place] + made.fusion.frames.kind, place))
        for place in range(4): rows.append((embeddings.word_embeddings(given.ids[0, place]), place))
        positions, kind = embeddings.position_embeddings.weight, embeddings.token_type_embeddings.weight[0]
        states = torch.stack([embeddings.LayerNorm(vector + positions[place] + kind)
                              for vector, place in rows])[None]
        expected = body.encoder(states).last_hidden_state[0]
        fused = made.fuse(given)
    torch.testing.assert_close(fused.frames[0], expected[:3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused.tokens[0], expected[3:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused.pooled[0], expected.mean(0), atol=1e-5, rtol=1e-5)


def array(tensor): return tensor.double().detach().numpy()


def attention(layer, queries, keys, heads=12):
    "Multi-head attention of torch's module, written out for one item in float64."
    width = queries.shape[1]
    weight, bias = array(layer.in_proj_weight), array(layer.in_proj_bias)
    projected = [states @ weight[part * width:(part + 1) * width].T + bias[part * width:(part + 1) * width]
                 for part, states in enumerate((queries, keys, keys))]
    per_head, found = width // heads, []
    for head in range(heads):
        q, k, v = (states[:, head * per_head:(head + 1) * per_head] for states in projected)
        scores = q @ k.T / np.sqrt(per_head)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        found.append(shares / shares.sum(1, keepdims=True) @ v)
    out = layer.out_proj
    return np.concatenate(found, 1) @ array(out.weight).T + array(out.bias)


def test_a_double_stream_equals_a_plain_loop():
    made, given = net('frames'), batch()
    layers = made.fusion.cross.layers

    def apply(module, states): return module.double()(torch.from_numpy(states)).detach().numpy()
    with torch.no_grad():
        fused = made.fuse(given)
        body = made.encoders['title'].body
        tokens = body(given.ids, attention_mask=given.is_token.long()).last_hidden_state
        embedded = made.fusion.frames(given.frames)
        summary = made.fusion.summary
        for row in range(3):
            memory = tokens[row][given.is_token[row]].double().numpy()
            states = torch.cat([summary[None], embedded[row][given.has_frame[row]]]).double().numpy()
            for layer in layers:
                normed = apply(layer.norm1, states)
                states = states + attention(layer.self_attn, normed, normed)
                states = states + attention(layer.multihead_attn, apply(layer.norm2, states), memory)
                hidden = apply(layer.linear1, apply(layer.norm3, states))
                hidden = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
                states = states + apply(layer.linear2, hidden)
            expected = apply(made.fusion.cross.norm, states).mean(0)
            made.float()
            np.testing.assert_allclose(fused.pooled[row].numpy(), expected, atol=1e-4)


def test_the_published_size_of_a_double_stream():
    title = encoder(BertConfig(pad_token_id=PAD, **{**SIZES, 'hidden_size': 36}))
    made = make_fusion('double', title, FRAME_WIDTH)
    assert len(made.cross.layers) == 3 and made.cross.layers[0].self_attn.num_heads == 12
    assert DoubleStream(encoder(), FRAME_WIDTH).cross.layers[0].self_attn.num_heads == 12
    odd = encoder(BertConfig(pad_token_id=PAD, **{**SIZES, 'hidden_size': 26}))
    assert DoubleStream(odd, FRAME_WIDTH).cross.layers[0].self_attn.num_heads == 2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('fusion', FUSIONS)
def test_masks_hold_in_half_precision(fusion, dtype):
    "Neither too weak, so that padding is read, nor so strong that nothing is a number."
    made, given = net(fusion), batch()
    spoilt = padded(given)
    with torch.no_grad(), torch.autocast('cpu', dtype):
        plain, wide = made.fuse(given).pooled.float(), made.fuse(spoilt).pooled.float()
    assert torch.isfinite(wide).all()
    torch.testing.assert_close(wide, plain, atol=.05, rtol=.05)


def test_each_gradient_reaches_what_it_should():
    for fusion in FUSIONS:
        made, given = net(fusion), batch()
        made.fuse(given).pooled.square().sum().backward()
        missing = [name for name, parameter in made.named_parameters() if parameter.grad is None]
        assert missing == [], fusion
        words = made.encoders['title'].body.get_input_embeddings().weight.grad.abs().sum(1)
        assert set(words.nonzero().flatten().tolist()) <= set(given.ids[given.is_token].tolist()) | {PAD}


def test_pictures_and_their_features_are_the_same():
    torch.manual_seed(0)
    image = ImageEncoder('test_efficientnet', pretrained=False).eval()
    title = encoder()
    fusion = DoubleStream(title, image.n_out)
    reads_pictures = StreamNet(fusion, image, title).eval()
    reads_features = StreamNet(fusion, None, title, image.n_out).eval()
    pictures = torch.rand(2, 3, 3, 32, 32)
    counts, ids = torch.tensor([3, 1]), batch(2).ids
    with torch.no_grad():
        features = image(pictures.flatten(0, 1)).unflatten(0, (2, 3))
        expected = reads_features(features, counts, ids)
        found = reads_pictures(*pictures.unbind(1), counts, ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_missing_pictures_have_no_share_in_running_statistics():
    torch.manual_seed(0)
    image = ImageEncoder('test_efficientnet', pretrained=False)
    made = StreamNet(DoubleStream(encoder(), image.n_out), image, encoder()).train()
    pictures = torch.rand(2, 2, 3, 32, 32)
    ids, counts = batch(2).ids, torch.tensor([2, 1])

    def statistics(last):
        image.load_state_dict(start)
        made(*torch.cat([pictures[:, :1], last], 1).unbind(1), counts, ids)
        return torch.cat([buffer.flatten() for name, buffer in image.named_buffers() if 'running' in name])
    start = {name: tensor.clone() for name, tensor in image.state_dict().items()}
    spoilt = pictures[:, 1:].clone()
    spoilt[1] = 1e3
    torch.testing.assert_close(statistics(pictures[:, 1:]), statistics(spoilt))


@pytest.mark.parametrize('config', [
    RobertaConfig(pad_token_id=1, **SIZES), ElectraConfig(pad_token_id=PAD, **SIZES),
    AlbertConfig(pad_token_id=PAD, embedding_size=16, **SIZES),
    DistilBertConfig(vocab_size=60, dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=32, initializer_range=.4)],
    ids=lambda config: config.model_type)
def test_encoders_of_berts_kind(config):
    made = SingleStream(encoder(config), FRAME_WIDTH)
    assert made.frames.linear.out_features == getattr(config, 'embedding_size', WIDTH)


OTHERS = MPNetConfig(pad_token_id=1, **SIZES), RoFormerConfig(pad_token_id=PAD, **SIZES)


@pytest.mark.parametrize('config', OTHERS, ids=lambda config: config.model_type)
def test_encoders_of_another_kind_are_refused_with_words(config):
    title = encoder(config)
    title.train()
    with pytest.raises(InputError, match="bert, roberta.*fusion='double' takes any"):
        SingleStream(title, FRAME_WIDTH)
    assert title.training
    DoubleStream(title, FRAME_WIDTH)


LEFT_TO_RIGHT = (LlamaConfig(pad_token_id=PAD, **SIZES),
                 GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, vocab_size=60, pad_token_id=PAD,
                            bos_token_id=1, eos_token_id=2))


@pytest.mark.parametrize('config', LEFT_TO_RIGHT, ids=lambda config: config.model_type)
def test_frames_would_see_no_word_where_an_encoder_reads_from_left_to_right(config):
    title = encoder(config)
    with pytest.raises(InputError, match='reads from left to right, so that no frame would see a word'):
        SingleStream(title, FRAME_WIDTH)
    made = StreamNet(DoubleStream(title, FRAME_WIDTH), None, title, FRAME_WIDTH).eval()
    wide, plain = made.fuse(padded(batch())), made.fuse(batch())
    torch.testing.assert_close(wide.pooled, plain.pooled, atol=1e-5, rtol=1e-5)


def test_encoders_that_read_padding_are_refused():
    sizes = {name: size for name, size in SIZES.items() if name != 'num_attention_heads'}
    with pytest.raises(InputError, match="FNetModel.*reads padding as if it were words.*fusion='double'"):
        DoubleStream(encoder(FNetConfig(pad_token_id=PAD, **sizes)), FRAME_WIDTH)
    t5 = T5Config(d_model=WIDTH, d_kv=12, num_layers=2, num_heads=2, d_ff=32, vocab_size=60, pad_token_id=PAD)
    # the encoder with its decoder, which wants a text of its own
    with pytest.raises(InputError, match='T5Model.*can not read token ids with padding .ValueError'):
        DoubleStream(encoder(t5), FRAME_WIDTH)
    DoubleStream(TitleEncoder('tiny', pad_id=PAD, body=T5EncoderModel(t5)), FRAME_WIDTH)


def test_refusals():
    title = encoder()
    for given, message in (('triple', "fusion='triple': choose one of"), (nn.Linear(2, 2), 'choose one of')):
        with pytest.raises(InputError, match=message): make_fusion(given, title, FRAME_WIDTH)
    with pytest.raises(InputError, match="queries='words'"): DoubleStream(title, FRAME_WIDTH, queries='words')
    with pytest.raises(InputError, match='layers=0'): DoubleStream(title, FRAME_WIDTH, layers=0)
    with pytest.raises(InputError, match='heads=5'): DoubleStream(title, FRAME_WIDTH, heads=5)
    with pytest.raises(InputError, match='one vector a text'): SingleStream(nn.Linear(3, 4), FRAME_WIDTH)
    with pytest.raises(InputError, match='33 frames an item: at most 32'):
        net().fusion.frames(torch.zeros(1, 33, FRAME_WIDTH))
    with pytest.raises(InputError, match='reads features of frames'):
        net()(torch.zeros(2, 3, 8, 8), torch.tensor([1, 1]), torch.ones(2, 3, dtype=torch.int64))


def test_masked_mean():
    vectors = torch.randn(5, 4, 3, dtype=torch.float64)
    is_there = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1]]).bool()
    expected = [[float(np.mean([vectors[row, k, d] for k in range(4) if is_there[row, k]] or [0.]))
                 for d in range(3)] for row in range(5)]
    np.testing.assert_allclose(masked_mean(vectors, is_there).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize('fusion', ['single', 'double'])
def test_nets_with_a_fusion(fusion):
    title = encoder()
    features, counts, ids = batch().frames, torch.tensor([3, 1, 2, 1]), batch().ids
    classify = ClassifyNet(5, title=title, frames=3, frame_width=FRAME_WIDTH,
                           fusion=make_fusion(fusion, title, FRAME_WIDTH)).eval()
    assert list(classify.param_groups()) == ['title', 'fusion', 'head']
    assert classify(features, counts, ids).shape == (4, 5)
    assert classify.train()(features, counts, ids).shape == (4, 5)
    match = MatchNet(6, title=title, fusion=make_fusion(fusion, title, FRAME_WIDTH), frame_width=FRAME_WIDTH)
    assert list(match.train()(features, counts, ids)) == ['joint'] == list(match.widths)
    found = match.embed(features, counts, ids)['joint']
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    grouped = [id(parameter) for group in match.param_groups().values() for parameter in group]
    assert sorted(grouped) == sorted(map(id, match.parameters()))


def test_late_fusion_takes_the_mean_of_the_frames_that_are_there():
    made = ClassifyNet(5, frames=3, frame_width=FRAME_WIDTH).eval()
    given = batch()
    features = made.features(given.frames, torch.tensor([3, 1, 2, 1]))['image']
    torch.testing.assert_close(features[1], given.frames[1, 0])
    torch.testing.assert_close(features[2], given.frames[2, :2].mean(0))


@pytest.mark.parametrize('fusion', FUSIONS)
def test_attention_of_frames_to_words(fusion):
    made, given = net(fusion), batch()
    implementation = made.encoders['title'].body.config._attn_implementation
    with torch.no_grad():
        before = made.fuse(given).pooled
        shares = made.fusion.attention(made.encoders['title'], given)
        after = made.fuse(given).pooled
    assert shares.shape == (4, 3, 6)
    torch.testing.assert_close(before, after)
    assert made.encoders['title'].body.config._attn_implementation == implementation
    if fusion != 'text':
        # nothing looks at padding
        is_padding = given.has_frame[:3, :, None] & ~given.is_token[:3, None]
        assert float(shares[:3][is_padding].abs().max()) <= 1e-6
    sums = shares[0][given.has_frame[0]].sum(1)
    if fusion == 'frames': torch.testing.assert_close(sums, torch.ones(len(sums)))
    if fusion == 'single': assert (sums > 0).all() and (sums < 1).all()
