"A step that reads close pairs again: both texts together, by a cross-encoder that is handed in."
import numpy as np

from ...core import InputError
from ..fuse import sorted_neighbors
from ..neighbors import Neighbors
from ..spaces.asymmetric import AsymmetricSpace
from ..spaces.pool import Pool
from ..spaces.titles import Titles


def cross_encoder(
    neighbors: Neighbors,  # Candidates
    titles,  # `Titles` of all listings, or a `Pool` of them
    scorer,  # With `scores(first_texts, second_texts)` -> (m,) from 0 to 1, such as a fitted `CrossEncoder`
    low: float,  # Pairs of this score or more are close ...
    high: float,  # ... those below this one
) -> Neighbors:
    """Give each close pair a new score between `low` and `high`: as far up as the scorer says.

    All other scores stay as they are, and above or below the close ones as before; so `low` and `high` are
    put around the threshold, and the threshold is chosen again: halfway between them it asks for a
    probability of .5. A pair that lacks a text keeps its score. Each pair of texts is read once.
    """
    rows, columns = np.nonzero(neighbors.ids[:, 1:] >= 0)
    columns += 1
    scores = neighbors.scores[rows, columns]
    ids = neighbors.ids[rows, columns]
    texts = _all_texts(titles)
    is_close = (scores >= low) & (scores < high)
    close = [place for place in np.flatnonzero(is_close)
             if texts[rows[place]].strip() and texts[ids[place]].strip()]
    if not close: return neighbors
    # from both sides a pair is the same two texts
    numbers: dict[tuple, int] = {}
    pair_numbers = [numbers.setdefault(tuple(sorted((texts[rows[place]], texts[ids[place]]))), len(numbers))
                    for place in close]
    first, second = map(list, zip(*numbers))
    read = np.asarray(scorer.scores(first, second), np.float64)
    if read.shape != (len(numbers),) or not ((read >= 0) & (read <= 1)).all():
        raise InputError(f"step 'cross_encoder': {type(scorer).__name__}.scores gave {read.shape} for "
                         f'{len(numbers)} pairs, or numbers that are not from 0 to 1')
    changed = neighbors.scores.astype(np.float64)
    changed[rows[close], columns[close]] = low + (high - low) * read[pair_numbers]
    # ties go to the smaller id, as in every other step
    behind_all = neighbors.ids.max() + 1
    others = np.where(neighbors.ids[:, 1:] < 0, behind_all, neighbors.ids[:, 1:])
    rising = np.concatenate([np.zeros((len(others), 1), np.int64), 1 + np.argsort(others, axis=1)], 1)
    return sorted_neighbors(np.take_along_axis(neighbors.ids, rising, 1),
                            np.take_along_axis(changed, rising, 1))


def check_band(
    low,  # As for `cross_encoder`
    high,
):
    "Raise `InputError` unless these are two numbers, the lower one first."
    are_numbers = all(isinstance(bound, (int, float, np.number)) and not isinstance(bound, bool)
                      for bound in (low, high))
    if not are_numbers or not low < high:
        raise InputError(f"step 'cross_encoder': low={low!r}, high={high!r}: give two scores around the "
                         'threshold, the lower one first')


def _all_texts(titles):
    "The texts of all listings of the pool, in the order of its ids."
    if isinstance(titles, Pool):
        return titles.new.titles + ([] if titles.catalogue is None else titles.catalogue.titles)
    if isinstance(titles, AsymmetricSpace): titles = titles.listings
    if not isinstance(titles, Titles):
        raise InputError(f"step 'cross_encoder': reads the titles, not {type(titles).__name__}")
    return titles.titles
