"""The searchable side of a catalogue: spaces made from the record, and the pairs that a rule finds in them.

Nothing here decides: whatever is in memory follows from the record. `saved` keeps it beside the file, so that
it need not be made again.
"""
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core import InputError
from ..match import Dense, Embeddings, Index, Pool, Rule, Tfidf
from ..match.prepared import LastPrepared
from ..match.spaces.approx import EXACT_ROWS
from ..match.spaces.keys import Keys
from ..match.spaces.picture_sets import alike

SMALL = 500  # the last part takes new listings in up to so many; then a new one begins
SHARE = 8  # a part is merged into the one before it where that has up to 8 times its listings
NEAR = .02  # pairs so far below the threshold are kept as close calls, which people may decide
# steps on neighbors that decide on each pair by itself, whatever else is there
PAIRWISE = ('veto', 'cross_encoder')


def decides_pairwise(
    rule: Rule,
) -> bool:
    """Whether a pair matches or not whatever other listings there are: then a new listing changes nothing
    among the earlier ones, and looking up the new ones alone is enough."""
    if any(step.do not in PAIRWISE for step in rule.steps): return False
    # the band of a cross-encoder moves with the threshold
    return rule.pools is None or not rule.steps


@dataclass
class Part:
    "Some of the listings, ready to be searched."
    numbers: np.ndarray  # int64 (n,), of the listings
    spaces: dict  # Modality -> space of them
    saved_as: str = ''  # Name of its folder, where it was saved

    def __len__(self): return len(self.numbers)

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'Part':
        "Some of the listings."
        return Part(self.numbers[rows], {name: space.take(rows) for name, space in self.spaces.items()})


class SearchIndex:
    """All listings of a catalogue in one part or more, so that adding a few to a million copies only a few.

    The n-grams that listings bring beside the matcher's get numbers that hold for all parts: a title is taken
    apart once.
    """
    def __init__(
        self,
        matcher,  # `Matcher`: its rule, and its weights of n-grams, which stay as they are
        exact_rows: int = EXACT_ROWS,  # Vectors of more listings than this are searched approximately
    ):
        self.matcher = matcher
        self.exact_rows = exact_rows
        self.parts = []
        self.like = {name: matcher.spaces[name] for name in matcher.rule.reads}
        self.last_prepared = LastPrepared()

    def __len__(self): return sum(map(len, self.parts))

    @property
    def numbers(self) -> np.ndarray:  # int64 (n,)
        "The numbers of all listings."
        return np.concatenate([np.empty(0, np.int64), *(part.numbers for part in self.parts)])

    def part_of(
        self,
        numbers: np.ndarray,  # int64 (m,)
        embeddings: Embeddings,  # Of the same listings
    ) -> Part:
        "Listings ready to be searched and looked up, which are not among those of the index yet."
        from ..matcher.known import make_spaces
        spaces = make_spaces(embeddings, self.matcher.rule.reads, like=self.like)
        return self._searchable(Part(numbers, spaces))

    def add(
        self,
        part: Part,  # As `part_of` gave it
    ):
        "Take listings in."
        if not len(part): return
        self.know(part)
        has_room = self.parts and len(self.parts[-1]) + len(part) <= SMALL
        if not has_room: self._merge_alike()
        self.parts.append(part)
        if has_room: self.merge(len(self.parts) - 2)
        elif len(part) > SMALL: self._merge_alike()

    def know(
        self,
        part: Part,
    ):
        "Give the n-grams that these listings brought the same numbers in all that come later."
        self.like |= {name: space.take(np.arange(0)) for name, space in part.spaces.items()
                      if len(getattr(space, 'added', ())) > len(getattr(self.like[name], 'added', ()))}

    def _merge_alike(self):
        "Merge the last part into the one before it while that is not much larger: few copies in all."
        while len(self.parts) > 1 and len(self.parts[-2]) <= SHARE * len(self.parts[-1]):
            self.merge(len(self.parts) - 2)

    def _searchable(self, part):
        if len(part) <= self.exact_rows: return part
        return Part(part.numbers, {
            name: Index(space.vectors, name, normalized=True) if type(space) is Dense else space
            for name, space in part.spaces.items()})

    def remove(
        self,
        numbers,  # Of listings that are in it
    ):
        "Let listings go."
        is_kept = [~np.isin(part.numbers, numbers) for part in self.parts]
        self.parts = [part if kept.all() else part.take(kept) for part, kept in zip(self.parts, is_kept)
                      if kept.any()]

    def merge(
        self,
        start: int = 0,  # Part to begin with
    ):
        "Make one part of several."
        parts = self.parts[start:]
        if len(parts) < 2: return
        # what was made for searching them alone takes as much memory again
        self.parts[start:] = []
        numbers = np.concatenate([part.numbers for part in parts])
        spaces = {}
        for name in list(parts[0].spaces): spaces[name] = _in_one([part.spaces.pop(name) for part in parts])
        self.parts.append(self._searchable(Part(numbers, spaces)))


def _in_one(spaces):
    "Several spaces of one modality behind each other."
    whole = spaces[0]
    for space in spaces[1:]:
        whole, space = alike(whole, space)
        whole = whole.append(space)
    return whole


def find_pairs(
    index: SearchIndex,
    rule: Rule,  # At the threshold that counts for all listings, without thresholds for other numbers
    new: Part,  # New listings, as `SearchIndex.part_of` gives them
    overused: dict,  # Modality of keys -> keys on so many listings that they join nothing
    within: bool = True,  # Also among the new ones
):  # DataFrame: first, second, score, a column for each modality, why
    "What new listings match among those of the index, and among themselves."
    if not decides_pairwise(rule): index.merge()
    own = {name: space.without(overused[name]) if overused.get(name) else space
           for name, space in new.spaces.items()}
    least = least_similarities(rule)
    parts = index.parts or [None]
    found = []
    for place, part in enumerate(parts):
        # among themselves once, with the last part
        with_own = within and place == len(parts) - 1
        spaces = {name: Pool(_bounded(space, least.get(name)),
                             None if part is None else _bounded(part.spaces[name], least.get(name)), with_own)
                  for name, space in own.items()}
        behind = np.empty(0, np.int64) if part is None else part.numbers
        prepared = None if part is None else index.last_prepared.of(rule, part.spaces, len(new))
        found.append(_table(rule.run(spaces, prepared), spaces, np.concatenate([new.numbers, behind])))
    return _each_once(pd.concat(found, ignore_index=True))


def least_similarities(
    rule: Rule,
) -> dict:  # Modality -> similarity; without those where any pair may match
    """How similar two listings must be in a modality to match by the mean of several, whatever the others
    say: no similarity is above 1. A search need not find pairs below."""
    if rule.how != 'mean' or rule.steps or rule.pools or rule.apart or not rule.threshold <= 1: return {}
    total = sum(rule.weights.values())
    # means are of float32
    return {name: 1 - (1 - rule.threshold) * total / weight - 1e-5
            for name, weight in rule.weights.items() if weight}


def _bounded(space, least):
    return space if least is None or type(space) is not Tfidf else space.at_least(least)


def all_pairs(
    index: SearchIndex,
    rule: Rule,
    names: dict,  # Number of a listing -> its id
):  # DataFrame, as `find_pairs` gives it
    "What all listings match among themselves, in the order of their ids, whatever the order they came in."
    index.merge()
    part = index.parts[0]
    part = part.take(np.array(sorted(range(len(part)), key=lambda row: names[int(part.numbers[row])])))
    least = least_similarities(rule)
    spaces = {name: _bounded(space, least.get(name)) for name, space in part.spaces.items()}
    return _each_once(_table(rule.run(spaces), spaces, part.numbers))


def _table(decision, spaces, numbers):
    from ..matcher.result import MatchResult
    result = MatchResult(numbers, decision.matches, decision.neighbors, spaces, decision.rule,
                         trail=decision.trail, rule_pairs=decision.pairs)
    return result.pairs().rename(columns={'posting_id': 'first', 'match': 'second'}).drop(columns='where')


def _each_once(table):
    "Each pair once, the smaller number first, with the better of its scores."
    first = np.minimum(table['first'], table['second']).astype(np.int64)
    second = np.maximum(table['first'], table['second']).astype(np.int64)
    table = table.assign(first=first, second=second)
    table = table.sort_values(['first', 'second', 'score'], ascending=[True, True, False], kind='stable')
    return table.drop_duplicates(['first', 'second']).reset_index(drop=True)


def edge_rows(
    table,  # DataFrame, as `find_pairs` gives it
    rule: Rule,
    pairwise: bool,  # Whether the rule decides on each pair by itself
) -> list:  # Rows as `Record.add_edges` takes them
    "Pairs as the record keeps them."
    names = [name for name in table if name not in ('first', 'second', 'score', 'why')]
    stands = np.ones(len(table), bool)
    if pairwise:
        stands = np.zeros(len(table), bool)
        for name in rule.join: stands |= (table[name] == 1).to_numpy()
    by_modality = [json.dumps({name: round(float(score), 6) for name, score in zip(names, scores)
                               if np.isfinite(score)}) for scores in table[names].to_numpy(np.float64)]
    scores = table['score'].to_numpy(np.float64)
    # equal keys may have a score that has no end
    scores = np.where(np.isfinite(scores), scores, np.finfo(np.float32).max)
    return list(zip(table['first'].tolist(), table['second'].tolist(), scores.tolist(), by_modality,
                    table['why'].tolist(), stands.astype(int).tolist()))


def keys_of(
    embeddings: Embeddings,  # Of m listings
    rule: Rule,
) -> dict:  # Modality -> (m,) keys
    "The keys by which listings join, as the record counts them."
    from ..match.spaces.keys import title_keys
    found = {}
    for name in rule.join:
        if name == 'same_title' and embeddings.titles is not None: keys = title_keys(embeddings.titles)
        elif name == 'phash' and embeddings.phash is not None: keys = embeddings.phash
        else: continue
        found[name] = Keys(keys).keys
    return found


def check_fits(
    embeddings: Embeddings,  # Of new listings
    widths: dict,  # As `vector_widths` gives them
):
    "Raise `InputError` where the vectors are not those that the catalogue keeps."
    for modality, width in widths.items():
        if modality not in embeddings:
            raise InputError(f'the catalogue keeps {modality!r} of each listing: the new ones have '
                             f'{list(embeddings)}')
        if embeddings[modality].shape[1] != width:
            raise InputError(f'{modality}: new listings have {embeddings[modality].shape[1]} dimensions, '
                             f'the catalogue {width}')
