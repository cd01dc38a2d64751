"""`CrossEncoder`: reads two texts together and says whether they are of the same product.

An encoder of titles reads one text at a time, and two listings meet as vectors only. Here every word of one
text sees every word of the other, as in Ditto (https://arxiv.org/abs/2004.00584) and in the cross-encoders
of sentence-transformers. That costs one pass of the model a pair, so it is meant for the few pairs that are
close to call, or for teaching faster models (`fastmatch.link`).
"""
import hashlib
import math
import random
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..core import TEXT_ARCH, InputError, check_device, preview
from ..layers.padding import most_tokens, pad_token_ids
from ..store import fingerprint, read_sealed, write_state
from .saved_tokenizer import tokenizer_files, tokenizer_of_files
from .sentence import pooled
from .text import TitleEncoder, load_tokenizer

FORMAT = 1  # raised with every change that older code can't read
MANIFEST = 'cross_encoder.json'
MAX_LEN = 128  # tokens of both texts together; three products in four are described in fewer
WARM_UP = .1  # share of the steps in which the learning rate rises
CHUNK = 32  # batches that are sorted by length together, so that little is padding
TEXTS_AT_ONCE = 4096  # pairs that a tokenizer is given at once


class PairNet(nn.Module):
    "A text encoder that reads two texts as one, with a layer on top: token ids (n,l) to log-odds (n,)."
    def __init__(
        self,
        encoder: TitleEncoder,  # Its body and pooling are taken
        dropout: float = .1,  # Before the last layer
    ):
        super().__init__()
        self.body = encoder.body
        self.pool = encoder.pool
        self.pad_id = encoder.pad_id
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.n_out, 1)

    def forward(self, ids, which):
        is_token = ids != self.pad_id
        # BERT and its kin are told which of the two texts a token is of; others have nothing to be told with
        told = {'token_type_ids': which} if getattr(self.body.config, 'type_vocab_size', 0) > 1 else {}
        features = self.body(input_ids=ids, attention_mask=is_token.long(), **told).last_hidden_state
        return self.head(self.dropout(pooled(features, is_token, self.pool).to(self.head.weight.dtype)))[:, 0]


class CrossEncoder:
    """`fit` on pairs of texts, then `scores` gives the probability that two others are of the same product.

    Which of the two is called the first makes no difference: they are always read in alphabetical order.
    Texts that are too long together lose words at the end of the longer one.
    """
    def __init__(
        self,
        name: str = TEXT_ARCH,  # Text encoder to start from, as `TitleEncoder` takes it
        *,
        pool: str | None = None,  # Pooling of the tokens, see `TitleEncoder`; None: as its folder asks
        max_len: int = MAX_LEN,  # Most tokens of both texts together
        # Calculate in bfloat16 where that loses nothing to speak of: twice as fast on processors that have it
        bf16: bool = False,
        device: str = 'cpu',  # Where the model runs
    ):
        if max_len < 8: raise InputError(f'max_len={max_len}: give 8 or more')
        check_device(device)
        self.name = str(name)
        self.pool = pool
        self.max_len = max_len
        self.bf16 = bf16
        self.device = device
        self.model = None  # `PairNet`, once it is fitted
        self.tokenizer = None
        self._encoder_spec = None  # what the model's encoder is built from again

    def __repr__(self):
        state = 'not fitted' if self.model is None else 'fitted'
        return f'CrossEncoder({self.name!r}, max_len={self.max_len}, {state})'

    def unfitted(self) -> 'CrossEncoder':
        "One with the settings of this one, to be fitted to other pairs."
        return CrossEncoder(self.name, pool=self.pool, max_len=self.max_len, bf16=self.bf16,
                            device=self.device)

    def fit(
        self,
        first,  # m texts
        second,  # m texts that they are paired with
        same,  # (m,) whether each pair is of one product; or the probability that it is
        *,
        epochs: int = 4,
        lr: float = 1e-4,  # Largest learning rate, after a tenth of the steps; then it falls to 0
        bs: int = 32,  # Pairs a batch
        seed: int = 0,  # Of the new layer, of the order and of dropout
        # Function of a text and a `random.Random` that gives a changed text, such as
        # `fastmatch.data.augment.TextChanges`: applied anew in each epoch
        augment: Callable | None = None,
        echo: Callable | None = None,  # Called with a line of text after each epoch
    ) -> 'CrossEncoder':
        """Train from the pretrained encoder, whatever was fitted before; returns itself.

        The same seed gives the same weights on the same machine. Raises `InputError` for empty texts, and
        where all pairs are of one kind.
        """
        first, second = _checked_texts(first, second)
        targets = _checked_targets(same, len(first))
        for option, value in (('epochs', epochs), ('bs', bs)):
            if value < 1: raise InputError(f'{option}={value}: give 1 or more')
        if not 0 < lr < 1: raise InputError(f'lr={lr}: give a number between 0 and 1')
        # what else draws random numbers goes on as if nothing had happened
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.tokenizer = load_tokenizer(self.name)
            encoder = TitleEncoder(self.name, pool=self.pool, pad_id=self.tokenizer.pad_token_id)
            model = PairNet(encoder).to(self.device)
            _train(model, lambda rng: self._tokens(*_augmented(first, second, augment, rng)), targets,
                   epochs, lr, bs, seed, self._autocast, echo)
        self._encoder_spec = encoder.spec()
        self.model = model.eval().requires_grad_(False)
        return self

    def scores(
        self,
        first,  # m texts
        second,  # m texts that they are paired with
        bs: int = 64,  # Pairs a batch
    ) -> np.ndarray:  # float32 (m,), 0..1
        "The probability that each pair is of one product; raises `InputError` where it is not fitted."
        if self.model is None: raise InputError('cross-encoder: not fitted: call fit, or load a saved one')
        first, second = _checked_texts(first, second)
        tokens = self._tokens(first, second)
        probabilities = np.empty(len(first), np.float32)
        by_length = np.argsort([len(ids) for ids, _ in tokens], kind='stable')
        with torch.inference_mode():
            for start in range(0, len(by_length), bs):
                rows = by_length[start:start + bs]
                with self._autocast(): log_odds = self.model(*_batch(tokens, rows, self.model))
                probabilities[rows] = log_odds.float().sigmoid().cpu().numpy()
        return probabilities

    @property
    def fingerprint(self) -> str:
        "A hash of all weights and of `max_len`: equal only for cross-encoders that read alike."
        if self.model is None: raise InputError('cross-encoder: not fitted: it has no weights of its own')
        digest = hashlib.sha256(f'{self.max_len} {self.bf16}'.encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f'{name} {fingerprint(tensor.cpu().numpy())}'.encode())
        return digest.hexdigest()

    def save(
        self,
        path,  # Folder; one that a cross-encoder was saved to before is replaced
    ):
        "Save as json and safetensors, without pickle; raises `InputError` where it is not fitted."
        from safetensors.torch import save as save_tensors
        if self.model is None: raise InputError('cross-encoder: not fitted: there is nothing to save')
        weights = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                   for name, tensor in self.model.state_dict().items()}
        content = {'format': FORMAT, 'encoder': self._encoder_spec, 'max_len': self.max_len,
                   'bf16': self.bf16}
        write_state(path, MANIFEST, content, {'weights.safetensors': save_tensors(weights),
                                              **tokenizer_files(self.tokenizer)})

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
        device: str = 'cpu',  # Where the model runs
    ) -> 'CrossEncoder':
        """Load a saved one after its hashes were checked: nothing is downloaded, and no code in the folder is
        executed. It scores as the one that was saved."""
        from safetensors.torch import load as load_tensors
        content, files = read_sealed(path, MANIFEST, FORMAT)
        spec = content['encoder']
        loaded = cls(spec['name'], pool=spec['pool'], max_len=content['max_len'], bf16=content['bf16'],
                     device=device)
        model = PairNet(TitleEncoder.from_spec(spec))
        model.load_state_dict(load_tensors(files['weights.safetensors']))
        loaded.model = model.to(device).eval().requires_grad_(False)
        loaded.tokenizer = tokenizer_of_files(files)
        loaded._encoder_spec = spec
        return loaded

    def _autocast(self):
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16)

    def _tokens(self, first, second):
        "(token ids, which text each is of) of each pair."
        ordered = [(one, other) if one <= other else (other, one) for one, other in zip(first, second)]
        limit, tokens = most_tokens(self.tokenizer, self.max_len), []
        for start in range(0, len(ordered), TEXTS_AT_ONCE):
            ones, others = map(list, zip(*ordered[start:start + TEXTS_AT_ONCE]))
            read = self.tokenizer(ones, others, truncation='longest_first', max_length=limit)
            ids = read['input_ids']
            tokens += zip(ids, read.get('token_type_ids') or [[0] * len(each) for each in ids])
        return tokens


def _train(model, tokens_of, targets, epochs, lr, bs, seed, autocast, echo):
    "Fit a model to pairs; `tokens_of` gives their tokens anew for each epoch."
    order, words = np.random.default_rng(seed), random.Random(seed)
    steps_an_epoch = math.ceil(len(targets) / bs)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rise_and_fall(steps_an_epoch * epochs))
    targets = torch.from_numpy(targets)
    model.train()
    for epoch in range(1, epochs + 1):
        tokens, total = tokens_of(words), 0.
        for rows in _epoch_batches([len(ids) for ids, _ in tokens], bs, order):
            with autocast(): log_odds = model(*_batch(tokens, rows, model))
            wanted = targets[rows].to(log_odds.device)
            loss = F.binary_cross_entropy_with_logits(log_odds.float(), wanted)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += float(loss.detach()) * len(rows)
        if echo is not None: echo(f'epoch {epoch} of {epochs}: loss {total / len(targets):.4f}')


def _rise_and_fall(n_steps):
    "Step -> the share of the largest learning rate: up in a straight line, then down to 0."
    n_rising = max(1, round(WARM_UP * n_steps))
    return lambda step: min((step + 1) / n_rising, (n_steps - step) / max(1, n_steps - n_rising))


def _epoch_batches(lengths, bs, rng):
    "Random batches of rows, pairs of similar length together."
    shuffled, lengths = rng.permutation(len(lengths)), np.asarray(lengths)
    batches = []
    for start in range(0, len(shuffled), bs * CHUNK):
        chunk = shuffled[start:start + bs * CHUNK]
        chunk = chunk[np.argsort(lengths[chunk], kind='stable')]
        batches += [chunk[first:first + bs] for first in range(0, len(chunk), bs)]
    return [batches[place] for place in rng.permutation(len(batches))]


def _batch(tokens, rows, model):
    "Token ids and which text each is of, int64 (n,l), on the model's device."
    ids, which = zip(*(tokens[row] for row in rows))
    device = model.head.weight.device
    return pad_token_ids(ids, model.pad_id).to(device), pad_token_ids(which, 0).to(device)


def _augmented(first, second, augment, rng):
    if augment is None: return first, second
    return [augment(text, rng) for text in first], [augment(text, rng) for text in second]


def _checked_texts(first, second):
    "Both as lists of texts; raises `InputError` for other lengths, for what is no text and for empty texts."
    texts = {'first': list(first), 'second': list(second)}
    if len(texts['first']) != len(texts['second']):
        raise InputError(f"{len(texts['first'])} first texts, {len(texts['second'])} second ones")
    for side, given in texts.items():
        wrong = [row for row, text in enumerate(given) if not isinstance(text, str) or not text.strip()]
        if wrong: raise InputError(f'{side}: no text in {len(wrong)} pairs: rows {preview(wrong)}')
    return texts['first'], texts['second']


def _checked_targets(same, n_pairs):
    targets = np.asarray(same)
    if targets.shape != (n_pairs,): raise InputError(f'same: shape {targets.shape} for {n_pairs} pairs')
    targets = targets.astype(np.float32)
    if not ((targets >= 0) & (targets <= 1)).all():
        raise InputError('same: give True and False, or probabilities from 0 to 1')
    if not n_pairs or targets.min() == targets.max():
        raise InputError(f'same: all {n_pairs} pairs are of one kind: pairs that match and pairs that do not '
                         'are needed to learn from')
    return targets
