"""Candidates: every listing's neighbors in any modality, each pair scored exactly in all modalities, ready
to be fused."""
from dataclasses import dataclass, replace

import numpy as np

from ..core import InputError, preview
from .arrays import rank_within_row
from .neighbors import NEAREST, k_among_more, refuse_trained_on, resolve_k
from .spaces.asymmetric import AsymmetricSpace
from .spaces.base import Space
from .spaces.pool import Pool, holds_field, holds_keys
from .spaces.sources import search_other_sources


@dataclass
class Candidates:
    """The union of all modalities' neighbors, each pair with its score in every modality: what `fuse` makes
    one score of."""
    ids: np.ndarray  # int64 (n,K), the listing itself first, then rising; padded with -1
    scores: dict  # modality -> float32 (n,K), -inf at the padding
    k: int = NEAREST  # Neighbors that a rule chosen on these takes from each modality
    join: tuple = ()  # Modalities that are exact keys: not fused; a pair with equal keys matches
    pool: int | None = None  # Number of listings that ids may point to; None: as many as there are rows
    present: dict | None = None  # modality -> bool (pool,), False where a listing has none; None: all have
    rows: np.ndarray | None = None  # int (m,), rows of the pairs where `ids` and `scores` are flat (m,)
    made_with: dict | None = None  # How the vectors were made, as `Embeddings` know it; None: not known
    # bool (n,), rows that an encoder was trained on: nothing is chosen or judged on them; None: not known
    trained_on: np.ndarray | None = None
    searched: int | None = None  # Neighbors that were taken from each modality; None: not known
    # Modalities that are columns of a table: compared, and not looked at for how crowded it is around a
    # listing. A score is NaN where one of both listings lacks the column
    fields: tuple = ()

    def refuse_trained_on(
        self,
        what: str,  # What they would be used for, for the message
    ) -> 'Candidates':
        "Return `self`, or raise `InputError` where an encoder was trained on some of the rows."
        refuse_trained_on(self.trained_on, what)
        return self


def candidates(
    spaces: dict,  # Modality -> space (`Dense`, `Tfidf`, ...) or `Pool`, of the same listings in one order
    k: int | None = None,  # Neighbors of each, the listing itself included; None: 50, or all where fewer
    sources=None,  # (pool,) where each listing comes from: of one source none is another's candidate
    # What was found in some of these spaces before, with the same `k` and `sources`, as `Remembered` holds it
    remembered=None,
) -> Candidates:
    "Search every modality, and score every pair that one of them found in all of them, from its vectors."
    if not spaces: raise InputError('spaces: give one modality at least')
    listing_counts = {modality: len(space) for modality, space in spaces.items()}
    listing_count = _same_size('modalities of different length', listing_counts)
    pool_sizes = {modality: space.pool for modality, space in spaces.items()}
    pool_size = _same_size('modalities with catalogues of different length', pool_sizes)
    searched = resolve_k(k, pool_size)
    id_grid = _union_grid(spaces, searched, listing_count, pool_size, sources, remembered)
    row_numbers = np.arange(listing_count)[:, None]
    known_scores = {} if remembered is None else remembered.scores(spaces, row_numbers, id_grid)
    return Candidates(
        ids=id_grid,
        scores={modality: known_scores[modality] if modality in known_scores
                else space.scores(row_numbers, id_grid) for modality, space in spaces.items()},
        k=k_among_more(k, pool_size),
        join=tuple(modality for modality, space in spaces.items() if holds_keys(space)),
        pool=pool_size,
        present={modality: present_in(space) for modality, space in spaces.items()},
        made_with=made_with_of(spaces),
        trained_on=trained_on_of(spaces),
        searched=searched,
        fields=tuple(modality for modality, space in spaces.items() if holds_field(space)))


def made_with_of(
    spaces: dict,  # Modality -> space or `Pool`
) -> dict | None:
    "How the vectors of these spaces were made, None where no space knows."
    known_settings = [space.made_with for space in spaces.values() if space.made_with]
    return known_settings[0] if known_settings else None


def trained_on_of(
    spaces: dict,  # Modality -> space or `Pool`
) -> np.ndarray | None:  # bool (n,)
    "Which rows of these spaces an encoder was trained on in any modality, None where no space knows."
    known_flags = [space.trained_on for space in spaces.values() if space.trained_on is not None]
    return np.any(known_flags, axis=0) if known_flags else None


def _same_size(problem, size_by_modality):
    if len(set(size_by_modality.values())) > 1: raise InputError(f'{problem}: {size_by_modality}')
    return next(iter(size_by_modality.values()))


def with_pairs(
    found: Candidates,  # Of these spaces
    spaces: dict,  # Modality -> space
    rows,  # int (m,)
    ids,  # int (m,), the listing of the pool that each row is paired with
) -> Candidates:
    "The candidates and further pairs, which are scored in all modalities; those that are there stay."
    rows, ids = np.asarray(rows, np.int64), np.asarray(ids, np.int64)
    n_rows, pool_size = len(found.ids), len(found.ids) if found.pool is None else found.pool
    is_outside = (rows < 0) | (rows >= n_rows) | (ids < 0) | (ids >= pool_size)
    if is_outside.any():
        raise InputError(f'pairs {preview(np.flatnonzero(is_outside))} name rows or listings that are not '
                         f'there: {n_rows} rows, {pool_size} listings')
    held = np.nonzero(found.ids >= 0)
    held_ids = found.ids[held]
    held_keys = _keys_of(held[0], held_ids, pool_size)
    pair_keys = np.unique(np.concatenate([held_keys, _keys_of(rows, ids, pool_size)]))
    if len(pair_keys) == len(held_keys): return found
    new_rows, new_ids = np.divmod(pair_keys, pool_size + 1)
    new_ids = np.where(new_ids == 0, new_rows, new_ids - 1)
    counts = np.bincount(new_rows, minlength=n_rows)
    columns = rank_within_row(counts)
    id_grid = np.full((n_rows, counts.max()), -1, np.int64)
    id_grid[new_rows, columns] = new_ids
    # ids rise within a row of both grids, so that the keys of the old one are in the order of its cells
    places = np.searchsorted(pair_keys, held_keys)
    is_new = np.ones(len(pair_keys), bool)
    is_new[places] = False
    scores = {}
    for modality, space in spaces.items():
        scores[modality] = np.full(id_grid.shape, -np.inf, np.float32)
        scores[modality][new_rows[places], columns[places]] = found.scores[modality][held]
        scores[modality][new_rows[is_new], columns[is_new]] = space.scores(new_rows[is_new], new_ids[is_new])
    return replace(found, ids=id_grid, scores=scores)


def _keys_of(rows, ids, pool_size): return rows * (pool_size + 1) + np.where(rows == ids, 0, ids + 1)


def _union_grid(spaces, k, listing_count, pool_size, sources, remembered):
    "The ids that any space finds for each row, int64 (n,K): the listing itself, then rising, padded with -1."
    removed = np.any([space.removed for space in spaces.values()], axis=0)
    keys_by_space = [_pair_keys(_found(modality, space, k, sources, remembered), removed, pool_size)
                     for modality, space in spaces.items()]
    pair_keys = np.concatenate(keys_by_space)
    del keys_by_space
    # np.unique hashes whole numbers before it sorts them, which takes twenty times as long
    pair_keys.sort()
    pair_keys = pair_keys[np.append(True, pair_keys[1:] != pair_keys[:-1])]
    # each array of one number a pair is dropped once it is used, because a whole rule's memory peaks here
    row_numbers, found_ids = np.divmod(pair_keys, pool_size + 1)
    del pair_keys
    found_ids -= 1
    np.copyto(found_ids, row_numbers, where=found_ids < 0)
    found_counts = np.bincount(row_numbers, minlength=listing_count)
    id_grid = np.full((listing_count, found_counts.max()), -1, np.int64)
    id_grid[row_numbers, rank_within_row(found_counts)] = found_ids
    return id_grid


def _found(modality, space, k, sources, remembered):
    "The ids of the nearest of each row: of all listings, or of those of other sources."
    def search(): return (space.search(k) if sources is None else search_other_sources(space, k, sources)).ids
    return search() if remembered is None else remembered.ids(modality, space, search)


def _pair_keys(found_ids, removed, pool_size):
    "One number for each pair that was found; they sort by row, the listing itself first, then by id."
    row_numbers = np.arange(len(found_ids))[:, None]
    pair_keys = np.where(found_ids == row_numbers, 0, found_ids + 1)
    is_kept = found_ids >= 0
    # a listing that was removed from one modality is nobody's candidate in any
    if removed.any(): is_kept &= (found_ids == row_numbers) | ~(removed[row_numbers] | removed[found_ids])
    pair_keys += row_numbers * (pool_size + 1)
    return pair_keys[is_kept]


def present_in(
    space: Space | Pool,
) -> np.ndarray:  # bool (pool,)
    "Whether each listing has something in this space: what is similar to itself."
    if isinstance(space, Pool):
        subspaces = [subspace for subspace in (space.new, space.catalogue) if subspace is not None]
        return np.concatenate([present_in(subspace) for subspace in subspaces])
    if isinstance(space, AsymmetricSpace): return present_in(space.listings)
    return space.present
