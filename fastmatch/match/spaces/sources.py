"Search among listings that come from elsewhere: another shop's table, another seller."
import numpy as np

from ...core import InputError, preview
from ..neighbors import Neighbors, group_codes
from .asymmetric import AsymmetricSpace
from .base import Space
from .keys import Keys
from .pool import Pool

WHY = 'matching listings of different sources'


def search_other_sources(
    space: Space | Pool,  # n listings that are looked up, in a pool of p
    k: int,  # Neighbors a row, the listing itself included
    sources,  # (p,) where each listing comes from, of any types
) -> Neighbors:  # (n,k), padded where other sources have fewer listings
    "The `k` - 1 nearest of each listing among those of other sources, itself at rank 0."
    codes = group_codes(sources, space.pool, 'sources')
    n_rows = len(space)
    if isinstance(space, Pool):
        listings = space.whole(WHY)
        queries = listings
    elif isinstance(space, AsymmetricSpace): listings, queries = space.listings, space.queries
    else: listings, queries = space, space
    found = Neighbors(np.full((n_rows, k), -1, np.int64), np.full((n_rows, k), -np.inf, np.float32))
    own_rows = np.arange(n_rows)
    found.ids[:, 0] = own_rows
    found.scores[:, 0] = np.nan_to_num(space.scores(own_rows, own_rows), nan=1.)
    for source in np.unique(codes[:n_rows]):
        rows = np.flatnonzero(codes[:n_rows] == source)
        others = np.flatnonzero((codes != source) & ~listings.removed)
        n_wanted = min(k - 1, len(others))
        if not n_wanted: continue
        nearest = listings.take(others).search(n_wanted, queries=queries.take(rows))
        found.ids[rows, 1:n_wanted + 1] = np.where(nearest.ids >= 0, others[nearest.ids], -1)
        found.scores[rows, 1:n_wanted + 1] = nearest.scores
    found.scores[:, 0] = np.maximum(found.scores[:, 0], found.scores.max(1))
    return found


def sources_of(
    space: Keys | Pool,  # Of the sources' names
) -> np.ndarray:  # object (pool,), strings
    """Where each listing of the pool comes from.

    Raises `InputError` for a listing without a source, and where all come from one: none could match.
    """
    sources = _named(space)
    missing = np.flatnonzero([source is None for source in sources])
    if len(missing): raise InputError(f'source: missing in rows {preview(missing)}')
    if len(set(sources)) < 2:
        raise InputError(f'all {len(sources)} listings are of the source {next(iter(sources), None)!r}: '
                         'none may match another')
    return sources


def of_one_source(
    space: Keys | Pool,  # The sources as a space
) -> bool:
    "Whether all listings of the pool come from one source, so that none may match another."
    return len(set(_named(space))) < 2


def _named(space):
    spaces = [space.new, space.catalogue] if isinstance(space, Pool) else [space]
    return np.concatenate([part.keys for part in spaces if part is not None])
