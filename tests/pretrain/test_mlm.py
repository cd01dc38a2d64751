"Masked words: which are drawn and how often, the loss against transformers' own and a plain loop."
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from fastmatch.core import InputError
from fastmatch.models.fusion import StreamBatch
from fastmatch.models.sentence import PromptTokenizer
from fastmatch.pretrain import MLM
from fastmatch.pretrain.mlm import NgramDraw, word_beginnings
from tests.pretrain.small import (
    CLS,
    FIRST_PIECE,
    FRAME_WIDTH,
    FUSIONS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    UNK,
    VOCABULARY,
    Net,
    batch,
    bert_config,
    float64,
    gradients,
    texts,
    tokenizer,
    weights64,
)
from tests.reference import pretrain as reference

each_fusion = pytest.mark.parametrize('fusion', FUSIONS)


def fixed_mask(items, seed=0):
    "Some of the tokens that are there."
    generator = torch.Generator().manual_seed(seed)
    return items.is_token & (torch.rand(items.ids.shape, generator=generator) < .4)


def loss_with(objective, net, items, chosen):
    "The loss where the chosen tokens are all replaced by the mask token."
    hidden = replace(items, ids=torch.where(chosen, MASK, items.ids))
    return objective.hidden_loss(net, net.fuse(hidden), items, chosen)


def many(n_rows=400, length=20): return texts([length] * n_rows)


@each_fusion
def test_equals_a_plain_loop(fusion):
    net, items = Net(fusion), batch()
    objective = MLM(net, tokenizer())
    torch.nn.init.normal_(objective.bias)
    chosen = fixed_mask(items)
    hidden = replace(items, ids=torch.where(chosen, MASK, items.ids))
    words = float64(net.encoders['title'].body.embeddings.word_embeddings.weight)
    expected = reference.masked_words(float64(net.fuse(hidden).tokens), items.ids.numpy(), chosen.numpy(),
                                      weights64(objective), words, 1e-12)
    assert float(loss_with(objective, net, items, chosen)) == pytest.approx(expected, rel=1e-5)


def test_without_frames_it_is_the_loss_of_transformers():
    torch.manual_seed(0)
    theirs = BertForMaskedLM(bert_config()).eval()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    net = Net(body=theirs.bert)
    objective = MLM(net, tokenizer())
    transform = theirs.cls.predictions.transform
    objective.dense.load_state_dict(transform.dense.state_dict())
    objective.norm.load_state_dict(transform.LayerNorm.state_dict())
    objective.bias.data.copy_(theirs.cls.predictions.bias)
    items = batch((0, 0, 0), (5, 7, 3))
    chosen = fixed_mask(items)
    labels = items.ids.masked_fill(~chosen, -100)
    hidden_ids = torch.where(chosen, MASK, items.ids)
    expected = theirs(input_ids=hidden_ids, attention_mask=items.is_token.long(), labels=labels).loss
    found = loss_with(objective, net, items, chosen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # weights are shared with the embeddings in both: the same gradient comes back to them
    embeddings = net.encoders['title'].body.get_input_embeddings()
    theirs_too = torch.autograd.grad(expected, theirs.get_input_embeddings().weight)[0]
    ours_too = torch.autograd.grad(found, embeddings.weight)[0]
    torch.testing.assert_close(ours_too, theirs_too, rtol=1e-4, atol=1e-6)


@each_fusion
def test_the_order_of_items_and_what_is_not_there_change_nothing(fusion):
    net = Net(fusion)
    objective = MLM(net, tokenizer())
    items = batch()
    chosen = fixed_mask(items)
    loss = loss_with(objective, net, items, chosen)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(loss_with(objective, net, items.of(order), chosen[order]), loss)
    wider = batch(more_frames=2, more_padding=3)
    padded = torch.nn.functional.pad(chosen, (0, 3))
    torch.testing.assert_close(loss_with(objective, net, wider, padded), loss, rtol=1e-5, atol=1e-5)


def test_nothing_else_is_changed_and_special_tokens_stay():
    torch.manual_seed(0)
    items = batch()
    items.ids[0, 2] = UNK
    before = copy.deepcopy(items)
    objective = MLM(Net(), tokenizer(), rate=.6)
    for _ in range(50):
        hidden, chosen = objective.hide(items)
        # an attention mask that is changed in place is wrong in the next pass
        for name in ('frames', 'has_frame', 'ids', 'is_token'):
            torch.testing.assert_close(getattr(items, name), getattr(before, name))
        assert torch.equal(hidden.is_token, items.is_token) and hidden.frames is items.frames
        assert torch.equal(hidden.ids[~chosen], items.ids[~chosen])
        assert not chosen[~items.is_token].any()
        assert not torch.isin(items.ids[chosen], torch.tensor([PAD, UNK, CLS, SEP, MASK])).any()


def test_shares():
    torch.manual_seed(0)
    ids = many()
    objective = MLM(Net(), tokenizer(), whole_words=False)
    no_frame = torch.zeros(len(ids), 0, dtype=bool)
    items = StreamBatch(torch.zeros(len(ids), 0, FRAME_WIDTH), no_frame, ids, ids != PAD)
    fates, n_chosen = [], []
    for _ in range(20):
        hidden, chosen = objective.hide(items)
        n_chosen.append(int(chosen.sum()))
        new, old = hidden.ids[chosen], ids[chosen]
        fates.append([float((new == MASK).float().mean()), float((new == old).float().mean())])
        replaced = new[(new != MASK) & (new != old)]
        assert replaced.min() >= len(SPECIAL) and replaced.max() < len(VOCABULARY)
        # all of them come up
        assert len(replaced.unique()) > 40
    n_ordinary = len(VOCABULARY) - len(SPECIAL)
    assert np.sum(n_chosen) / (20 * 400 * 20) == pytest.approx(.15, abs=.004)
    masked, same = np.mean(fates, 0)
    assert masked == pytest.approx(.8, abs=.012)
    # one in so many random tokens is the one that was there
    assert same == pytest.approx(.1 + .1 / n_ordinary, abs=.01)


@pytest.mark.parametrize('rate', [.05, .15, .4])
@pytest.mark.parametrize('max_ngram', [1, 2, 3, 5])
def test_each_place_is_drawn_alike(rate, max_ngram):
    torch.manual_seed(0)
    drawn = NgramDraw(rate, max_ngram).draw(40_000, 9, 'cpu').float()
    # five standard deviations
    np.testing.assert_allclose(drawn.mean(0), rate, atol=5 * (rate * (1 - rate) / 40_000)**.5)


def test_lengths_of_runs():
    torch.manual_seed(0)
    lengths = NgramDraw(.15, 3).lengths((1000, 400), 'cpu')
    counts = torch.bincount(lengths.flatten(), minlength=4)[1:].double()
    np.testing.assert_allclose(counts / counts.sum(), np.array([6, 3, 2]) / 11, atol=.01)
    # seldom enough that runs do not touch, what is drawn has those lengths as well
    chosen = NgramDraw(.003, 3).draw(20_000, 300, 'cpu').int()
    edges = torch.nn.functional.pad(chosen, (1, 1)).diff(dim=1)
    runs = (edges == -1).nonzero()[:, 1] - (edges == 1).nonzero()[:, 1]
    found = torch.bincount(runs, minlength=4)[1:4].double()
    np.testing.assert_allclose(found / found.sum(), np.array([6, 3, 2]) / 11, atol=.02)


def test_pieces_of_a_word_go_together():
    torch.manual_seed(0)
    ids = torch.tensor([[CLS, 5, FIRST_PIECE, FIRST_PIECE + 1, 6, 7, FIRST_PIECE + 2, SEP, PAD, PAD]])
    word = torch.tensor([0, 1, 1, 1, 2, 3, 3, 0, 0, 0])
    objective = MLM(Net(), tokenizer(), rate=.3)
    seen = set()
    for _ in range(300):
        chosen = objective.choose(ids, ids != PAD)[0]
        for number in (1, 2, 3): assert len(set(chosen[word == number].tolist())) == 1
        assert not chosen[word == 0].any()
        seen.add(tuple(chosen.tolist()))
    assert len(seen) == 7
    alone = MLM(Net(), tokenizer(), rate=.3, whole_words=False, max_ngram=1)
    apart = {tuple(alone.choose(ids, ids != PAD)[0, 1:4].tolist()) for _ in range(300)}
    assert len(apart) == 8


def test_a_piece_that_follows_no_word_begins_one():
    torch.manual_seed(0)
    # after the token that begins a text, after an unknown word
    ids = torch.tensor([[CLS, FIRST_PIECE, FIRST_PIECE, UNK, FIRST_PIECE, SEP]])
    objective = MLM(Net(), tokenizer(), rate=.3, max_ngram=1)
    seen = {tuple(objective.choose(ids, ids != PAD)[0].int().tolist()) for _ in range(200)}
    assert seen == {(0, 1, 1, 0, 0, 0), (0, 0, 0, 0, 1, 0), (0, 1, 1, 0, 1, 0)}


def test_what_begins_a_word():
    piece = {'▁red': 0, '▁': 1, 'dish': 2, '帽': 3, '帽子': 4, '<s>': 5, ',': 6, 'สี': 7, '': 8}
    begins = {token: bool(word_beginnings(piece, {5})[token]) for token in piece if token != '<s>'}
    assert begins == {'▁red': True, '▁': True, 'dish': False, '帽': True, '帽子': True, ',': False, 'สี': True,
                      '': True}
    assert word_beginnings({'red': 0, '##dish': 1}, set()) == {'red': True, '##dish': False}
    # the marks of GPT's vocabularies are not read, and a few signs of number are no marks
    assert word_beginnings({'Ġred': 0, 'dish': 1}, set()) == {}
    assert word_beginnings({**{f'token{i}': i for i in range(300)}, '##': 300}, set()) == {}


def test_one_token_at_least():
    torch.manual_seed(0)
    items = batch((1, 1), (2, 1))
    objective = MLM(Net(), tokenizer(), rate=1e-9, whole_words=False)
    places = set()
    for _ in range(100):
        chosen = objective.choose(items.ids, items.is_token)
        assert chosen.sum() == 1
        places.add(tuple(chosen.nonzero()[0].tolist()))
    assert places == {(0, 1), (0, 2), (1, 1)}
    whole = MLM(Net(), tokenizer(), rate=1e-9)
    ids = torch.tensor([[CLS, SEP, PAD], [FIRST_PIECE, FIRST_PIECE, FIRST_PIECE]])
    assert whole.choose(ids, ids != PAD).tolist() == [[False] * 3, [True] * 3]


@each_fusion
@pytest.mark.parametrize('lengths', [(0, 0), (3, 0)])
def test_texts_that_are_not_there(fusion, lengths):
    net = Net(fusion)
    objective = MLM(net, tokenizer())
    items = batch((2, 3), lengths, more_padding=3)
    if not any(lengths): assert not items.is_token.any()
    loss = objective(net, items)
    assert loss.isfinite()
    loss.backward()
    parameters = [*net.parameters(), *objective.parameters()]
    grads = [weight.grad for weight in parameters if weight.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    if not any(lengths): assert float(loss) == 0 and not any(grad.any() for grad in grads)


def test_what_learns():
    net = Net()
    objective = MLM(net, tokenizer())
    torch.manual_seed(0)
    moved = gradients(objective(net, batch()), net, objective)
    assert {'dense.weight', 'norm.weight', 'bias', 'fusion.frames.linear.weight',
            'encoders.title.body.embeddings.word_embeddings.weight'} <= moved
    assert all(name.startswith(('encoders.title', 'fusion', 'dense', 'norm', 'bias')) for name in moved)


def test_tokenizers_that_will_not_do():
    class NoMask:
        mask_token_id = None
    with pytest.raises(InputError, match='NoMask has no mask token'): MLM(Net(), NoMask())
    with pytest.raises(InputError, match='no mask token'): MLM(Net(), None)
    larger = tokenizer()
    larger.add_tokens(['more', 'words'])
    with pytest.raises(InputError, match='67 tokens, the text encoder 65'): MLM(Net(), larger)


def test_a_prompt_is_looked_through():
    plain, prompted = MLM(Net(), tokenizer()), MLM(Net(), PromptTokenizer(tokenizer(), 'query: '))
    assert prompted.mask_id == MASK
    for name, table in plain.named_buffers(): assert torch.equal(table, prompted.get_buffer(name))


@pytest.mark.parametrize('options, message', [
    ({'rate': 0}, 'rate=0'), ({'rate': 1.}, 'rate=1.0'), ({'rate': float('nan')}, 'rate=nan'),
    ({'rate': '.1'}, 'rate='), ({'max_ngram': 0}, 'max_ngram=0'), ({'max_ngram': 2.5}, 'max_ngram=2.5'),
    ({'mask_share': .8, 'random_share': .3}, 'mask_share=0.8'), ({'random_share': -.1}, 'random_share=-0.1')])
def test_options_that_will_not_do(options, message):
    with pytest.raises(InputError, match=message): MLM(Net(), tokenizer(), **options)
