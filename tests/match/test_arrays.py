"The shared array operations against naive loops."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fastmatch.match.arrays import descending_bits, find_pairs, from_descending_bits, rank_within_row

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=20)
FLOATS = st_numpy.arrays(np.float32, st.integers(0, 30), elements=st.floats(allow_nan=False, width=32))


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 6), max_size=12), dtype=st.sampled_from([np.int64, np.int32]))
def test_rank_within_row(counts, dtype):
    expected = [rank for count in counts for rank in range(count)]
    actual = rank_within_row(np.array(counts, dtype))
    assert actual.tolist() == expected and actual.dtype == np.int64


def test_rank_within_row_changes_nothing_in_place():
    counts = np.array([2, 0, 3])
    assert rank_within_row(counts).tolist() == [0, 1, 0, 1, 2] and counts.tolist() == [2, 0, 3]


@settings(max_examples=200, deadline=None)
@given(pairs=PAIRS, wanted=PAIRS, seed=st.integers(0, 99), dtype=st.sampled_from([np.int64, np.int32]))
def test_find_pairs(pairs, wanted, seed, dtype):
    pairs = list(dict.fromkeys(pairs))  # no pair twice
    order = np.random.default_rng(seed).permutation(len(pairs))
    pairs = [pairs[i] for i in order]
    rows, ids = np.array(pairs, dtype).reshape(-1, 2).T
    wanted_rows, wanted_ids = np.array(wanted, dtype).reshape(-1, 2).T
    expected = [pairs.index(pair) if pair in pairs else -1 for pair in wanted]
    assert find_pairs(rows, ids, wanted_rows, wanted_ids, 7).tolist() == expected


def test_find_pairs_of_many_listings():
    "Keys are made in 64 bits: the numbers of a million listings squared don't fit in 32."
    n = 1_000_000
    rows = np.array([n - 1, 0, n - 1], np.int32)
    ids = np.array([n - 1, n - 1, 0], np.int32)
    assert find_pairs(rows, ids, rows[::-1], ids[::-1], n).tolist() == [2, 1, 0]
    assert find_pairs(rows, ids, ids[:1] - 1, ids[:1], n).tolist() == [-1]


@settings(max_examples=200, deadline=None)
@given(scores=FLOATS)
def test_descending_bits_order_and_return(scores):
    bits = descending_bits(scores)
    assert bits.dtype == np.uint32 and bits.shape == scores.shape
    for i, score in enumerate(scores):
        for j, other in enumerate(scores):
            assert (bits[i] < bits[j]) == (score > other) and (bits[i] == bits[j]) == (score == other)
    back = from_descending_bits(bits)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, scores)
    assert not np.signbit(back[back == 0]).any()


@pytest.mark.parametrize('shape', [(0,), (3, 4), ()])
def test_bits_keep_the_shape(shape):
    scores = np.full(shape, -.5, np.float32)
    assert from_descending_bits(descending_bits(scores)).shape == shape
