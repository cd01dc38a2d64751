"Token ids of titles as one tensor."
import pytest
import torch

from fastmatch.layers.padding import pad_token_ids


@pytest.mark.parametrize('token_ids, expected', [
    ([[1, 2, 3], [4]], [[1, 2, 3], [4, 9, 9]]), ([[5]], [[5]]), ([[]], [[9]]),
    ([[], [7, 8]], [[9, 9], [7, 8]])])
def test_shorter_rows_are_filled_up(token_ids, expected):
    padded_ids = pad_token_ids(token_ids, 9)
    assert padded_ids.dtype == torch.int64 and padded_ids.tolist() == expected


def test_no_titles(): assert pad_token_ids([], 0).shape == (0, 1)
