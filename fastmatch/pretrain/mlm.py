"Masked language modelling: words are hidden, and told from what is around them and in the frames."
from dataclasses import replace
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError
from ..losses.base import upcast
from ..models.sentence import PromptTokenizer
from .base import MaskedObjective, check_between, text_width, with_one

CONTINUED = '##'  # before pieces that go on with a word: BERT's WordPiece
BEGUN = '▁'  # before pieces that begin one: SentencePiece
# least share of a vocabulary that is so marked: a single token may look like it by chance
MARKED = .01
# scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, kana, Chinese characters): there a
# piece of SentencePiece stands for a word, as it has no mark although it begins one
NO_SPACES = ((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF),
             (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class MLM(MaskedObjective):
    """Hidden words are told, as in BERT, https://arxiv.org/abs/1810.04805, in runs of up to three, as in
    MacBERT, https://arxiv.org/abs/2004.13922

    Each word is chosen with the same probability, wherever it stands. Of the chosen tokens most are replaced
    by the mask token, some by a random one, and some are left; the loss is the cross-entropy at all of them.
    Special tokens (the unknown one among them) and padding are never chosen. The output layer shares its
    weights with the word embeddings.

    With a double stream whose queries are frames, tokens see no frames: this then trains the text encoder
    alone.
    """
    def __init__(
        self,
        net: nn.Module,  # With `Streams`
        tokenizer,  # Of its text encoder; raises `InputError` for one without a mask token
        *,
        rate: float = .15,  # Share of the words that are chosen
        max_ngram: int = 3,  # Most words in a run; runs of n are drawn in proportion to 1/n
        # Pieces of a word are chosen together, where the vocabulary marks what belongs to one, as WordPiece
        # and SentencePiece do; with others, and with False, each token counts as a word
        whole_words: bool = True,
        mask_share: float = .8,  # Of the chosen tokens, how many are replaced by the mask token
        random_share: float = .1,  # Of the chosen tokens, how many are replaced by a random one
    ):
        super().__init__()
        check_between('rate', rate, 0, 1)
        if not isinstance(max_ngram, Integral) or max_ngram < 1:
            raise InputError(f'max_ngram={max_ngram!r}: give 1 or more')
        if not (mask_share >= 0 and random_share >= 0 and mask_share + random_share <= 1):
            raise InputError(f'mask_share={mask_share}, random_share={random_share}: 0 or above, and 1 '
                             'together at most')
        self.shares = mask_share, random_share
        self.ngrams = NgramDraw(rate, max_ngram)
        words = net.encoders['title'].body.get_input_embeddings()
        self._read_vocabulary(tokenizer, words.num_embeddings, whole_words)
        width = text_width(net)
        self.dense = nn.Linear(width, words.embedding_dim)
        config = getattr(net.encoders['title'].body, 'config', None)
        self.norm = nn.LayerNorm(words.embedding_dim, eps=getattr(config, 'layer_norm_eps', 1e-12))
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))

    def _read_vocabulary(self, tokenizer, n_words, whole_words):
        "Note the mask token, and of all tokens which are special, which are not, and which begin a word."
        if isinstance(tokenizer, PromptTokenizer): tokenizer = tokenizer.tokenizer
        self.mask_id = getattr(tokenizer, 'mask_token_id', None)
        if self.mask_id is None:
            raise InputError(f'mlm: {type(tokenizer).__name__} has no mask token; leave mlm out, or choose a '
                             'text_arch that was trained with one (BERT and its kin)')
        vocabulary = tokenizer.get_vocab()
        special_ids = set(tokenizer.all_special_ids)
        if max(vocabulary.values()) >= n_words:
            raise InputError(f'mlm: the tokenizer has {max(vocabulary.values()) + 1} tokens, the text '
                             f'encoder {n_words}: it belongs to another one')
        is_special = torch.zeros(n_words, dtype=torch.bool)
        is_special[list(special_ids)] = True
        ordinary = sorted(set(vocabulary.values()) - special_ids)
        if not ordinary: raise InputError('mlm: the tokenizer has special tokens only')
        begins = torch.ones(n_words, dtype=torch.bool)
        if whole_words:
            for token, begins_word in word_beginnings(vocabulary, special_ids).items():
                begins[vocabulary[token]] = begins_word
        # all of them follow from the tokenizer: saved weights have no use for them
        self.register_buffer('is_special', is_special, persistent=False)
        self.register_buffer('begins', begins, persistent=False)
        self.register_buffer('ordinary', torch.tensor(ordinary), persistent=False)

    def choose(
        self,
        ids: torch.Tensor,  # int64 (n,l)
        is_token: torch.Tensor,  # bool (n,l)
    ) -> torch.Tensor:  # bool (n,l)
        "The tokens to be told: one at least where there is any that is not special."
        may_be = is_token & ~self.is_special[ids]
        before = F.pad(may_be, (1, 0))[:, :-1]
        begins = may_be & (self.begins[ids] | ~before)
        word = (begins.cumsum(1) - 1).clamp(min=0)
        chosen = self.ngrams.draw(*ids.shape, ids.device).gather(1, word) & may_be
        # the word of that token goes with it
        single = with_one(chosen, may_be)
        single_word = torch.where(single, word, -1).amax(1, keepdim=True)
        return chosen | ((word == single_word) & may_be)

    def hide(self, batch):
        chosen = self.choose(batch.ids, batch.is_token)
        fate = torch.rand(chosen.shape, device=chosen.device)
        others = self.ordinary[torch.randint(len(self.ordinary), chosen.shape, device=chosen.device)]
        mask_share, random_share = self.shares
        changed = torch.where(fate < mask_share + random_share, others, batch.ids)
        changed = torch.where(fate < mask_share, self.mask_id, changed)
        return replace(batch, ids=torch.where(chosen, changed, batch.ids)), chosen

    def hidden_loss(self, net, fused, batch, chosen):
        states = fused.tokens[chosen]
        if not len(states): return self.nothing()
        words = net.encoders['title'].body.get_input_embeddings().weight
        states = self.norm(F.gelu(self.dense(states.to(self.dense.weight.dtype))))
        logits = F.linear(states, words.to(states.dtype), self.bias)
        return F.cross_entropy(upcast(logits), batch.ids[chosen])


class NgramDraw:
    """Draws runs of words so that each word is in one with the same probability, wherever it stands.

    A run may begin at each word, and its length n is drawn in proportion to 1/n. Runs may overlap, and may
    begin before the first word; those that reach beyond an end are cut there.
    """
    def __init__(
        self,
        rate: float,  # Probability of a word
        max_ngram: int,  # Most words in a run
    ):
        harmonics = [1 / length for length in range(1, max_ngram + 1)]
        # of a run to be longer than 0, 1, 2, ... words
        self.longer = [sum(harmonics[k:]) / sum(harmonics) for k in range(max_ngram)]
        self.begin = _begin_probability(rate, self.longer)

    def lengths(
        self,
        shape: tuple,
        device,
    ) -> torch.Tensor:  # int64
        "The length of the run that begins at each place, 0 for none."
        begins = torch.rand(shape, device=device) < self.begin
        drawn = torch.rand(shape, device=device)
        return begins * sum((drawn < share).long() for share in self.longer)

    def draw(
        self,
        n_rows: int,
        n_words: int,
        device,
    ) -> torch.Tensor:  # bool (n_rows, n_words)
        "The words that are in a run."
        before = len(self.longer) - 1
        lengths = self.lengths((n_rows, before + n_words), device)
        chosen = torch.zeros(n_rows, n_words, dtype=torch.bool, device=device)
        for k in range(len(self.longer)):
            first = before - k
            chosen |= lengths[:, first:first + n_words] > k
        return chosen


def _begin_probability(rate, longer):
    "With which probability a run must begin at each word, for a word to be in one with that of `rate`."
    low, high = 0., 1.
    for _ in range(60):
        middle = (low + high) / 2
        missed = 1.
        for share in longer: missed *= 1 - middle * share
        if 1 - missed < rate: low = middle
        else: high = middle
    return (low + high) / 2


def word_beginnings(
    vocabulary: dict,  # Token -> id
    special_ids: set,
) -> dict:  # Token -> bool; empty where the vocabulary doesn't tell
    "Which tokens begin a word, told by the marks of WordPiece or SentencePiece; without special tokens."
    tokens = [token for token, token_id in vocabulary.items() if token_id not in special_ids]
    least = MARKED * len(tokens)
    if sum(token.startswith(BEGUN) for token in tokens) > least:
        return {token: token.startswith(BEGUN) or _needs_no_space(token) for token in tokens}
    if sum(token.startswith(CONTINUED) for token in tokens) > least:
        return {token: not token.startswith(CONTINUED) for token in tokens}
    return {}


def _needs_no_space(token):
    return any(first <= ord(token[0]) <= last for first, last in NO_SPACES) if token else True
