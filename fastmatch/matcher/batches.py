"The one loop that embeds listings, used by the matcher's `Encoder` and by `learn.embeddings`."
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..core import InputError
from ..layers.padding import most_tokens
from ..match.spaces.picture_sets import Pictures
from ..models.views import Views, views_of

TITLES_AT_ONCE = 4096  # a tokenizer keeps by-products of all titles it was given at once


class Batch(NamedTuple):
    "What one step of the loop works on."
    rows: np.ndarray  # int (m,): the rows that are embedded, those that could be read
    inputs: list  # What the model reads, in its order: images (m,3,h,w), token ids (m,l)
    n_asked: int  # How many rows were to be read, for the progress bar


def tokenize_titles(
    tokenizer,  # A transformers tokenizer
    titles: list,  # Strings
    max_len: int,  # Tokens after which a title is truncated
) -> list[list[int]]:
    "The token ids of each title, not yet padded."
    token_ids, limit = [], most_tokens(tokenizer, max_len)
    for first_title in range(0, len(titles), TITLES_AT_ONCE):
        next_titles = titles[first_title:first_title + TITLES_AT_ONCE]
        token_ids += tokenizer(next_titles, truncation=True, max_length=limit)['input_ids']
    return token_ids


def batches_by_length(
    n: int,  # Number of listings
    bs: int,  # Listings a batch
    token_ids: list | None = None,  # The token ids of each title; None keeps the listings in their order
) -> list[np.ndarray]:  # int, the rows of each batch
    "Rows dealt into batches so that titles of similar length come together, which saves padding."
    if bs < 1: raise InputError(f'bs={bs}: give 1 or more')
    if token_ids is None: by_length = np.arange(n)
    else: by_length = np.argsort([len(title_ids) for title_ids in token_ids], kind='stable')
    return [by_length[first_row:first_row + bs] for first_row in range(0, n, bs)]


def embed_batches(
    model,  # `MatchNet`
    batches,  # `Batch`es, of a list or a generator
    n: int,  # Number of listings
    tta: bool | Views,  # Average each picture's embedding with its mirror image's, or with further `Views`
) -> dict:  # Modality -> float32 (n,d)
    "The embeddings of all batches, each in its listing's row; rows that are in no batch are NaN."
    views = views_of(tta)
    vectors = {modality: np.full((n, width), np.nan, np.float32)
               for modality, width in views.widths(model.widths).items()}
    with tqdm(total=n, desc='embedding', delay=2, leave=False) as progress_bar:
        for batch in batches:
            if len(batch.rows):
                for modality, embeddings in views.embed(model, *batch.inputs).items():
                    vectors[modality][batch.rows] = embeddings.cpu().numpy()
            progress_bar.update(batch.n_asked)
    return vectors


def by_listing(
    vectors: dict,  # Modality -> float32 (m,d), one row a picture
    listings: np.ndarray,  # int (m,), the listing of each picture, rising from 0
) -> dict:  # Modality -> float32 (n,d), or `Pictures` where listings have several
    """What was embedded picture by picture, as `Embeddings` take it.

    The joint embedding is made of each picture with the listing's title, as in training, and is a set like
    the pictures; the title's own, which is the same beside each of them, is taken once.
    """
    if (listings == np.arange(len(listings))).all(): return vectors
    firsts = np.flatnonzero(np.diff(listings, prepend=-1))
    return {modality: array[firsts] if modality == 'title' else Pictures(array, listings)
            for modality, array in vectors.items()}
