"""A trained title encoder distilled to a vector for each token: far faster, and less exact.

Each token begins with what the teacher says of it alone, as model2vec has it
(https://github.com/MinishLab/model2vec), weighted down by how common it is (Arora et al., A Simple but
Tough-to-Beat Baseline for Sentence Embeddings, ICLR 2017). Then ridge regression moves the vectors to where
their means over real titles are what the teacher says of these.

Of MiniLM, untrained, on two cores: 39 times as many titles a second, three quarters of whose time the
tokenizer takes; row F1 of titles alone lost on groups that nobody saw: Amazon-Google .035 [.015, .056], the
sample .011 [-.005, .028].
"""
import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import Ridge
from torch import nn
from tqdm.auto import tqdm

from ..core import InputError
from ..models import MatchNet
from ..models.static import StaticTextEncoder
from .batches import batches_by_length, tokenize_titles
from .encode import Encoder

COMMON = 1e-3  # a token that makes up this share of all weighs half
RIDGE = .01  # of .003 to .1 it came nearest to the teacher on unseen titles of two catalogues
MOST_TITLES = 20_000  # that the vectors are fitted to: the time grows with them
FEWEST_TITLES = 2
BATCH = 256  # tokens that the teacher reads at once


def distil_static(
    teacher: Encoder,  # Of titles alone, trained
    titles: list,  # Real ones, n strings; of more than `MOST_TITLES` so many are drawn
    *,
    seed: int = 0,  # Of the titles that are drawn
) -> Encoder:  # With the teacher's tokenizer and width, without a neck
    """An encoder of one vector a token whose embeddings are near those of a teacher.

    Each token of the titles is fitted, all others stay as the teacher says them alone. Raises `InputError`
    for a teacher that reads pictures too.
    """
    if teacher.inputs != ['title'] or list(teacher.widths) != ['title']:
        raise InputError(f'a static encoder reads titles alone, this one reads {teacher.inputs}')
    titles = list(titles)
    if len(titles) < FEWEST_TITLES:
        raise InputError(f'{len(titles)} titles: give {FEWEST_TITLES} or more to distil with')
    drawn = np.random.default_rng(seed).permutation(len(titles))[:MOST_TITLES]
    titles = [titles[row] for row in drawn]
    token_ids = tokenize_titles(teacher.tokenizer, titles, teacher.max_len)
    vectors = _fitted(_tokens_alone(teacher), token_ids, teacher.embed(None, titles)[0]['title'])
    table = nn.Embedding.from_pretrained(torch.from_numpy(vectors))
    student = StaticTextEncoder('distilled', pad_id=teacher.tokenizer.pad_token_id, vectors=table)
    return Encoder(MatchNet(None, None, student, neck=False), None, teacher.tokenizer, teacher.max_len,
                   device=teacher.device)


def _tokens_alone(teacher):
    "What the teacher says of each token of its tokenizer between the marks of begin and end, float32 (t,d)."
    tokenizer = teacher.tokenizer
    marks = tokenizer('', truncation=True, max_length=teacher.max_len)['input_ids']
    begin, end = marks[:len(marks) // 2], marks[len(marks) // 2:]
    vectors = np.empty((len(tokenizer), teacher.widths['title']), np.float32)
    for tokens in tqdm(batches_by_length(len(tokenizer), BATCH), desc='tokens', delay=2, leave=False):
        ids = torch.tensor([[*begin, token, *end] for token in tokens.tolist()], device=teacher.device)
        vectors[tokens] = teacher.model.embed(ids)['title'].cpu()
    return vectors


def _fitted(alone, token_ids, targets):
    "Vectors of tokens (t,d) whose means over titles are near the targets (n,d) and near to what they were."
    lengths = [len(ids) for ids in token_ids]
    tokens = np.concatenate(token_ids).astype(np.int64)
    rows, shares = np.repeat(np.arange(len(lengths)), lengths), np.repeat(1 / np.maximum(lengths, 1), lengths)
    means = sparse.csr_matrix((shares, (rows, tokens)), (len(lengths), len(alone)))
    frequency = np.bincount(tokens, minlength=len(alone)) / len(tokens)
    vectors = alone * (COMMON / (COMMON + frequency))[:, None]
    found = means @ vectors
    # of the length of the targets, on the whole
    scale = (found * targets).sum() / max((found ** 2).sum(), 1e-12)
    used = np.unique(tokens)
    fit = Ridge(alpha=RIDGE, fit_intercept=False, solver='sparse_cg').fit(means[:, used],
                                                                          targets - scale * found)
    vectors = vectors * scale
    vectors[used] += fit.coef_.T
    return np.ascontiguousarray(vectors, np.float32)
