"Random cases full of what goes wrong: exact duplicates, ties, listings that are alone, empty titles."
import numpy as np
import pytest
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Neighbors

WORDS = 'merah biru kaos kaus lengan panjang pria wanita 250ml 500ml sabun susu milk red blue shirt'.split()
# the first three are next to each other in float32: a threshold between them is none of that type
SCORES = [np.float32(.5), np.float32(.5 + 2**-24), np.float32(.5 + 2**-23), np.float32(.25),
          np.float32(-.75), np.float32(0), np.float32(100), np.float32(1)]


def halves_of_one(count, dim, seed):
    """Vectors with four entries of +-1: normalized and multiplied without rounding, full of ties and
    duplicates."""
    rng = np.random.default_rng(seed)
    vectors = np.zeros((count, dim))
    for vector in vectors: vector[rng.choice(dim, 4, replace=False)] = rng.choice([-1., 1.], 4)
    return vectors


def noisy(count, dim, seed, copies=0):
    "Normal vectors, `copies` of them exact or rescaled duplicates."
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    for _ in range(copies):
        vectors[rng.integers(count)] = vectors[rng.integers(count)] * rng.choice([1, 2, .25])
    return vectors


def titles(count, seed):
    "Titles of one to four words, some of them twice, some empty."
    rng = np.random.default_rng(seed)
    texts = [' '.join(rng.choice(WORDS, rng.integers(1, 5))) for _ in range(count)]
    for i in range(0, count, 6): texts[i] = texts[int(rng.integers(count))]
    for i in range(0, count, 7): texts[i] = ''
    return texts


def pair_grid(count):
    "Rows and ids of all pairs of `count` listings, to score: (count, 1) and (count,)."
    return np.arange(count)[:, None], np.arange(count)


def checked_search(search, k, count):
    "`search(k)`; of fewer than `k` listings the error that says so, and then what is found without a `k`."
    if k <= count: return search(k)
    with pytest.raises(InputError, match=f'^k={k}: there are {count} listings$'): search(k)
    return search(None)


@st.composite
def cases(draw, smallest=2, largest=9):
    "A self-join with heavy ties and padding, and groups, some of one listing."
    count = draw(st.integers(smallest, largest))
    values = draw(st.lists(st.sampled_from(SCORES), min_size=1, max_size=5, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    pairs = rng.random((count, count)) < draw(st.sampled_from([0., .3, .8, 1.]))
    rows, ids = np.nonzero(pairs)
    groups = rng.integers(0, draw(st.integers(1, count)), count)
    # most scores follow the groups, so that a threshold in the middle is worth something
    scores = np.sort(rng.choice(values, (len(rows), 2)), axis=1)
    same_group = (groups[rows] == groups[ids]) ^ (rng.random(len(rows)) < .2)
    chosen_scores = scores[np.arange(len(rows)), same_group.astype(int)]
    return Neighbors.from_pairs(rows, ids, chosen_scores, count), groups
