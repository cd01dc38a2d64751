"Token ids of titles as one tensor."
import pytest
import torch

from fastmatch.layers.padding import pad_token_ids


@pytest.mark.parametrize('rows, want', [
    ([[1, 2, 3], [4]], [[1, 2, 3], [4, 9, 9]]), ([[5]], [[5]]), ([[]], [[9]]),
    ([[], [7, 8]], [[9, 9], [7, 8]])])
def test_shorter_rows_are_filled_up(rows, want):
    ids = pad_token_ids(rows, 9)
    assert ids.dtype == torch.int64 and ids.tolist() == want


def test_no_titles(): assert pad_token_ids([], 0).shape == (0, 1)
