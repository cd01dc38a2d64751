"A text encoder without attention: a vector for each token, and a title is the mean of its tokens' vectors."
import torch
from torch import nn

from ..core import TEXT_ARCH, InputError
from .text import TitleEncoder, load_tokenizer

KIND = 'static'


class StaticTextEncoder(nn.Module):
    """Token ids (n,l), padded with `pad_id`, to features (n, n_out): the mean of a vector for each token.

    By its name, 'static:all-MiniLM-L6-v2', it begins with that model's own word vectors and is trained like
    any encoder. `fastmatch.matcher.static.distil_static` makes one of a trained encoder instead. It costs
    little more than the tokenizer, and word order means nothing to it.
    """
    def __init__(
        self,
        name: str = TEXT_ARCH,  # Title encoder, as `TitleEncoder` takes it, whose tokens and vectors are used
        pretrained: bool = True,  # Begin with its word vectors; False: with random ones of the same shape
        pad_id: int | None = None,  # Padding token; None asks the tokenizer
        vectors: nn.Embedding | None = None,  # Vectors (tokens, n_out) that are made already
    ):
        super().__init__()
        self.name = str(name)
        self.pad_id = load_tokenizer(self.name).pad_token_id if pad_id is None else pad_id
        self.vectors = _word_vectors(self.name, pretrained, self.pad_id) if vectors is None else vectors
        self.n_out = self.vectors.embedding_dim

    def forward(self, ids):
        is_token = (ids != self.pad_id)[..., None]
        total = (self.vectors(ids) * is_token).sum(1)
        return total / is_token.sum(1).clamp(min=1)

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json."
        return {'name': self.name, 'tokens': self.vectors.num_embeddings, 'n_out': self.n_out,
                'pad_id': self.pad_id}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'StaticTextEncoder':
        "Build the encoder that `spec` describes, with random vectors."
        return cls(spec['name'], pad_id=spec['pad_id'], vectors=nn.Embedding(spec['tokens'], spec['n_out']))


def _word_vectors(name, pretrained, pad_id):
    "The vectors that a transformers model looks its tokens up in, in a table of their own."
    words = TitleEncoder(name, pretrained, pad_id=pad_id).body.get_input_embeddings()
    if not isinstance(words, nn.Embedding):
        raise InputError(f'text_arch={KIND}:{name}: its model looks its tokens up in no table of vectors')
    with torch.no_grad(): return nn.Embedding.from_pretrained(words.weight.clone(), freeze=False)
