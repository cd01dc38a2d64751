"Steps on matches that know where listings come from: two shops' tables, matched one to one."
import numpy as np

from ...core import InputError
from ..matches import Matches, row_pointers
from ..neighbors import Neighbors
from ..spaces.sources import sources_of


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
    several: list = (),  # Sources whose listings may have more than one match in another source
) -> Matches:
    """Give each listing one match at most in each other source: pairs are taken from the highest score down,
    a pair as long as neither listing has a match in the other's source yet.

    No pair is left out that both listings would rather have than what they got: a stable matching
    (https://doi.org/10.1080/00029890.1962.11989827), which this order finds where both see one score. For
    one-to-many name the source whose listings may have many matches in `several`.
    """
    names = sources_of(sources)
    if len(names) != len(matches):
        raise InputError(f'one_to_one: {len(matches)} rows of {len(names)} listings: it needs those of all')
    unknown = set(several) - set(names)
    if unknown: raise InputError(f'several={sorted(unknown)}: the sources are {sorted(set(names))}')
    rows = _rows_of(matches)
    is_other = rows != matches.ids
    first = np.minimum(rows, matches.ids)[is_other]
    second = np.maximum(rows, matches.ids)[is_other]
    # seen from both sides a pair may have two scores: the better one counts, as where groups are made
    order = np.lexsort((second, first, -matches.scores[is_other]))
    taken, chosen = set(), set()
    for one, other in zip(first[order].tolist(), second[order].tolist()):
        if (one, other) in chosen: continue
        slots = [(listing, names[mate]) for listing, mate in ((one, other), (other, one))
                 if names[listing] not in several]
        if any(slot in taken for slot in slots): continue
        taken.update(slots)
        chosen.add((one, other))
    is_chosen = np.array([not other or (min(pair), max(pair)) in chosen for other, pair in zip(
        is_other.tolist(), zip(rows.tolist(), matches.ids.tolist()))], bool)
    return _kept(matches, rows, is_chosen)


def _rows_of(matches): return np.repeat(np.arange(len(matches)), np.diff(matches.indptr))


def _kept(matches, rows, is_kept):
    counts = np.bincount(rows[is_kept], minlength=len(matches))
    return Matches(row_pointers(counts), matches.ids[is_kept], matches.scores[is_kept])
