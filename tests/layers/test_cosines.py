"The cosines with class centers: their gradients, in blocks of any size, and against the plain form."
import pytest
import torch
import torch.nn.functional as F

from fastmatch import core
from fastmatch.layers import cosines
from fastmatch.layers.cosines import Cosines

N, D, C = 6, 5, 11  # embeddings, their width, centers


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('block_rows', [C, 4, 1])
@pytest.mark.parametrize('rows', [None, [1, 4, 9]])
def test_cosines_gradcheck(rows, block_rows, monkeypatch):
    rows = None if rows is None else torch.tensor(rows)
    embeddings, weight = F.normalize(rand(N, D)).requires_grad_(), rand(C, D, seed=1).requires_grad_()
    monkeypatch.setattr(cosines, 'BLOCK_SIZE', block_rows * D)
    def both(vectors, matrix): return Cosines.apply(vectors, matrix, rows)
    assert torch.autograd.gradcheck(both, (embeddings, weight))
    assert torch.autograd.gradcheck(lambda vectors, matrix: both(vectors, matrix)[1], (embeddings, weight))
    found_cosines, norms = Cosines.apply(embeddings, weight, rows)
    centers = weight if rows is None else weight[rows]
    torch.testing.assert_close(found_cosines, embeddings @ F.normalize(centers).t())
    torch.testing.assert_close(norms, centers.norm(dim=1))


def test_blocks_cover_all_rows_once():
    blocks = core.row_blocks(C, torch.zeros(C, core.BLOCK_SIZE // 4))
    assert [list(range(C))[block] for block in blocks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
