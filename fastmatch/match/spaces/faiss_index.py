"""The approximate indexes of faiss behind `Index`: what each kind takes, how it is built, and how it is
searched.

- 'hnsw' is a graph of links between near listings, https://arxiv.org/abs/1603.09320. Adding a few listings at
  a time works well. It took more time than 'ivfpq' at every size tried and takes ten times its memory, and it
  misses listings where more of them are equal than a listing has links.
- 'ivf' divides the listings into cells and searches the nearest cells only.
- 'ivfpq' is the same with vectors shortened to codes, https://arxiv.org/abs/1702.08734: candidates are found
  by their codes and ranked by their vectors. It is quicker than exact search from about 25,000 listings on.
- 'exact' needs no index.
"""
import numpy as np

from ...core import require_package
from .base import BLOCK_FLOATS, SPARE
from .recall import draw_rows

KINDS = ['exact', 'hnsw', 'ivf', 'ivfpq']

# HNSW: links a listing has (twice as many on the ground level), faiss' own default
LINKS = 32
# HNSW: listings compared with a new one to link it; with faiss' default of 40 more listings can't be reached
BUILD_EFFORT = 80
# IVF: listings to train on for each cell; faiss warns below 39
POINTS_PER_CELL = 40
# IVF-PQ: its codes propose REFINE * k + REFINE_MORE listings, of which the vectors choose k
REFINE = 4
REFINE_MORE = 64
# bytes that blocks of queries and everything small may take
ROOM = 1 << 28


def memory_needed(
    kind: str,  # One of `KINDS`
    n: int,  # Listings
    dim: int,  # Length of a vector
) -> float:  # GB
    """About how much memory an index takes while it is built and searched, beside the vectors and what is
    found."""
    per_listing = {'exact': 0, 'hnsw': 4 * dim + 8 * LINKS + 16,
                   # lists grow by doubling
                   'ivf': 2 * (4 * dim + 8), 'ivfpq': 2 * (_code_count(dim) // 2 + 8)}[kind]
    n_cells = _cell_count(n) if kind in ('ivf', 'ivfpq') else 0
    # the cells' centers, and the listings to train on: a copy, of which faiss makes another
    per_cell = (2 * POINTS_PER_CELL + 1) * 4 * dim
    return (n * per_listing + n_cells * per_cell + ROOM) / 1e9


def build_index(
    kind: str,  # 'hnsw', 'ivf' or 'ivfpq'
    vectors: np.ndarray,  # float32 (n,d), unit length
    remaining: np.ndarray,  # int, rows that were not removed: only they are trained on
    seed: int,  # Of the training
):  # A faiss index
    "An index of all vectors."
    faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
    n, dim = vectors.shape
    if kind == 'hnsw':
        index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_EFFORT
    else:
        # 'PQ..x4fsr': codes of 4 bits for every two dimensions of what a listing differs from its cell's
        # center
        storage = 'Flat' if kind == 'ivf' else f'PQ{_code_count(dim)}x4fsr'
        index = faiss.index_factory(dim, f'IVF{_cell_count(n)},{storage}', faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = POINTS_PER_CELL
        index.cp.min_points_per_centroid = 1
        index.cp.seed = 1234 + seed
        if kind == 'ivfpq': index.pq.cp.min_points_per_centroid = 1
        index.train(vectors[draw_rows(remaining, _cell_count(n) * POINTS_PER_CELL, seed)])
    add_vectors(index, vectors)
    return index


def add_vectors(
    index,  # A faiss index
    vectors: np.ndarray,  # float32 (m,d), unit length
):
    "Put vectors into an index, in blocks, because faiss holds as much again of what it is given."
    block_size = max(1, 4 * BLOCK_FLOATS // vectors.shape[1])
    for block_start in range(0, len(vectors), block_size):
        index.add(vectors[block_start:block_start + block_size])


def effort_steps(
    kind: str,  # 'hnsw', 'ivf' or 'ivfpq'
    index,  # A faiss index of this kind
    k: int,  # Neighbors a row
) -> list:  # Rising
    """Efforts to try one after the other: how many listings a graph's search keeps in view, how many cells
    are looked into."""
    if kind == 'hnsw': return [k + SPARE << step for step in range(8)]
    return [*(1 << step for step in range(2, 20) if 1 << step < index.nlist), index.nlist]


def proposal_count(
    kind: str | None,  # One of `KINDS`, or None: what exact search needs
    k: int,  # Neighbors a row
    n: int,  # Listings
) -> int:
    "How many listings an index proposes a row, so that exact scores find the `k` best among them."
    return min(n, REFINE * k + REFINE_MORE if kind == 'ivfpq' else k + SPARE)


def propose(
    kind: str,  # 'hnsw', 'ivf' or 'ivfpq'
    index,  # A faiss index of this kind
    queries: np.ndarray,  # float32 (b,d)
    count: int,  # Listings to propose a row
    effort: int,  # One of `effort_steps`
    removed: np.ndarray,  # bool (n,), listings that are not to be proposed
) -> np.ndarray:  # int64 (b,count), padded with -1
    "The nearest listings that an index finds with this effort."
    faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
    allowed = faiss.IDSelectorBitmap(np.packbits(~removed, bitorder='little')) if removed.any() else None
    if kind == 'hnsw': parameters = faiss.SearchParametersHNSW(sel=allowed, efSearch=effort)
    else: parameters = faiss.SearchParametersIVF(sel=allowed, nprobe=effort)
    return index.search(queries, count, params=parameters)[1]


def cell_order(
    index,  # An IVF index of faiss
) -> np.ndarray:  # int64 (n,)
    "All listings cell by cell: looked up in this order, queries in a row look into the same cells."
    faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
    lists = index.invlists
    def members(cell): return faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)).copy()
    return np.concatenate([members(cell) for cell in range(index.nlist) if lists.list_size(cell)])


def _cell_count(n): return max(1, min(round(4 * n**.5), n // POINTS_PER_CELL))  # 4 sqrt(n), as faiss advises


def _code_count(dim): return dim // 2 if dim % 2 == 0 else dim
