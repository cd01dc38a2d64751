"Token ids of titles as one tensor."
import numpy as np
import pytest
import torch

from fastmatch.layers.padding import pad_token_ids, parts_of_like_length


@pytest.mark.parametrize('token_ids, expected', [
    ([[1, 2, 3], [4]], [[1, 2, 3], [4, 9, 9]]), ([[5]], [[5]]), ([[]], [[9]]),
    ([[], [7, 8]], [[9, 9], [7, 8]])])
def test_shorter_rows_are_filled_up(token_ids, expected):
    padded_ids = pad_token_ids(token_ids, 9)
    assert padded_ids.dtype == torch.int64 and padded_ids.tolist() == expected


def test_no_titles(): assert pad_token_ids([], 0).shape == (0, 1)


def test_parts_of_like_length():
    random = np.random.default_rng(0)
    for n_rows, width in ((1, 1), (16, 9), (17, 30), (64, 44), (200, 7)):
        lengths = random.integers(0, width + 1, n_rows)
        is_token = torch.arange(width) < torch.tensor(lengths)[:, None]
        order, parts = parts_of_like_length(is_token)
        assert sorted(order.tolist()) == list(range(n_rows))
        seen = [row for rows, _ in parts for row in order[rows].tolist()]
        assert seen == order.tolist()
        for rows, n_columns in parts:
            # nothing but padding is left out
            assert not is_token[order[rows], n_columns:].any() and 1 <= n_columns <= width
        if len(parts) > 1:
            assert sum(len(order[rows]) * n_columns for rows, n_columns in parts) <= .85 * n_rows * width
            assert all(len(order[rows]) <= 16 for rows, _ in parts)
            for rows, n_columns in parts: assert n_columns == max(1, lengths[order[rows].numpy()].max())
    assert len(parts_of_like_length(torch.ones(64, 20, dtype=bool))[1]) == 1
    assert len(parts_of_like_length(torch.arange(40) < torch.tensor([[3]] * 63 + [[40]]))[1]) == 4
