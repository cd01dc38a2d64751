"Titles in fastai's batches: text until a batch is put together, then token ids padded to its longest title."
from fastai.data.block import TransformBlock
from fastai.torch_core import TensorBase
from fasttransform import Transform

from ..layers.padding import most_tokens, pad_token_ids

MAX_LEN = 64  # tokens of a title: Shopee's longest take about 60 words, most under 20


class Title(str):
    "A listing's title before it is tokenized."
    @classmethod
    def create(cls, text): return cls(text)


class TensorTitle(TensorBase):
    "Token ids of titles, int64 (n,l), padded at the end."


class CharacterTokenizer:
    "Stands in for a tokenizer until a title encoder brings its own: a token is a character."
    pad_token_id = 0

    def __call__(self, titles, max_length, **kwargs):
        # four characters to a token, as word pieces have about that many
        return {'input_ids': [[ord(character) for character in title[:max_length * 4]] for title in titles]}

    def decode(self, ids, **kwargs):
        "The text of token ids, without padding."
        return ''.join(chr(code) for code in ids if code)


class Tokenize(Transform):
    """Turns titles of a batch into `TensorTitle`. In a Learner's own copy of its dataloaders `tokenizer` is
    that of its title encoder."""
    def __init__(
        self,
        tokenizer=None,  # A transformers tokenizer; None: characters, for looking at batches
        max_len: int = MAX_LEN,  # Most tokens of a title; the rest is left out
    ):
        self.tokenizer = CharacterTokenizer() if tokenizer is None else tokenizer
        self.max_len = max_len

    def encodes(self, samples: list):
        title_index = next((index for index, part in enumerate(samples[0]) if isinstance(part, Title)), None)
        if title_index is None: return samples
        titles = [str(sample[title_index]) for sample in samples]
        limit = most_tokens(self.tokenizer, self.max_len)
        token_ids = self.tokenizer(titles, truncation=True, max_length=limit)['input_ids']
        padded_ids = pad_token_ids(token_ids, self.tokenizer.pad_token_id)
        return [(*sample[:title_index], TensorTitle(title_ids), *sample[title_index + 1:])
                for sample, title_ids in zip(samples, padded_ids)]

    def decodes(self, x: TensorTitle):
        return Title(self.tokenizer.decode(x.tolist(), skip_special_tokens=True))


def TitleBlock(
    tokenizer=None,  # A transformers tokenizer; None: the Learner sets its title encoder's
    max_len: int = MAX_LEN,  # Most tokens of a title; the rest is left out
):
    "A `TransformBlock` for titles, tokenized and padded batch by batch."
    return TransformBlock(type_tfms=Title.create, dls_kwargs={'before_batch': Tokenize(tokenizer, max_len)})
