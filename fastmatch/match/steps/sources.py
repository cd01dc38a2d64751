"Steps on matches that know where listings come from: two shops' tables, matched one to one."
import numpy as np

from ...core import InputError
from ..matches import Matches, row_pointers
from ..neighbors import Neighbors
from ..spaces.sources import sources_of
from ..stable import stable_pairs


def across_sources(
    matches: Matches,  # Of all listings of the pool, or of the first ones
    sources: np.ndarray,  # (pool,) where each listing comes from
) -> Matches:
    "The matches without those of two listings of one source; the listing itself stays."
    rows = _rows_of(matches)
    return _kept(matches, rows, (rows == matches.ids) | (sources[rows] != sources[matches.ids]))


def one_to_one(
    matches: Matches,  # Of all listings of the pool
    neighbors: Neighbors,  # Candidates that they were chosen from
    sources,  # `Keys`: where each listing comes from
    several: list | tuple = (),  # Sources whose listings may have more than one match in another source
) -> Matches:
    """Give each listing one match at most in each other source, from the highest score down, see
    `stable_pairs`. For one-to-many name the source whose listings may have many matches in `several`."""
    names = sources_of(sources)
    if len(names) != len(matches):
        raise InputError(f'one_to_one: {len(matches)} rows of {len(names)} listings: it needs those of all')
    unknown = set(several) - set(names)
    if unknown: raise InputError(f'several={sorted(unknown)}: the sources are {sorted(set(names))}')
    rows = _rows_of(matches)
    n_listings = len(names)
    # seen from both sides a pair may have two scores: the better one counts, as where groups are made
    pair_keys = np.minimum(rows, matches.ids) * n_listings + np.maximum(rows, matches.ids)
    best_first = np.lexsort((pair_keys, -matches.scores))
    distinct, places = np.unique(pair_keys[best_first], return_index=True)
    first, second = np.divmod(distinct, n_listings)
    source_names, codes = np.unique(names.astype(str), return_inverse=True)
    has_several = np.isin(names.astype(str), list(several))

    def slots_of(listings, mates):
        slots = listings * len(source_names) + codes[mates]
        return np.where(has_several[listings] | (listings == mates), -1, slots)
    slots = np.stack([slots_of(first, second), slots_of(second, first)], 1)
    is_kept = stable_pairs(np.argsort(places), slots)
    return _kept(matches, rows, is_kept[np.searchsorted(distinct, pair_keys)])


def _rows_of(matches): return np.repeat(np.arange(len(matches)), np.diff(matches.indptr))


def _kept(matches, rows, is_kept):
    counts = np.bincount(rows[is_kept], minlength=len(matches))
    return Matches(row_pointers(counts), matches.ids[is_kept], matches.scores[is_kept])
