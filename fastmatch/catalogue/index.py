"""The searchable side of a catalogue: spaces made from the record, and the pairs that a rule finds in them.

Nothing here is kept: whatever is in memory follows from the record and is made again when it is opened.
"""
import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..core import InputError
from ..match import Dense, Embeddings, Index, Pool, Rule
from ..match.spaces.approx import EXACT_ROWS
from ..match.spaces.keys import Keys

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
    known: object  # `KnownListings` of them


class SearchIndex:
    "All listings of a catalogue in one part or more, so that adding a few to a million copies only a few."
    def __init__(
        self,
        matcher,  # `Matcher`: its rule, and its weights of n-grams, which stay as they are
        exact_rows: int = EXACT_ROWS,  # Vectors of more listings than this are searched approximately
    ):
        self.matcher = matcher
        self.exact_rows = exact_rows
        self.parts = []

    def __len__(self): return sum(len(part.numbers) for part in self.parts)

    @property
    def numbers(self) -> np.ndarray:  # int64 (n,)
        "The numbers of all listings."
        return np.concatenate([np.empty(0, np.int64), *(part.numbers for part in self.parts)])

    def add(
        self,
        numbers: np.ndarray,  # int64 (m,)
        embeddings: Embeddings,  # Of the same listings
    ):
        "Take listings in."
        if not len(numbers): return
        if self.parts and len(self.parts[-1].numbers) + len(numbers) <= SMALL:
            self._append(self.parts[-1], numbers, embeddings)
            return
        # the last part is full
        self._merge_alike()
        self.parts.append(Part(numbers, self._known(embeddings)))
        if len(numbers) > SMALL: self._merge_alike()

    def _merge_alike(self):
        "Merge the last part into the one before it while that is not much larger: few copies in all."
        while len(self.parts) > 1 and len(self.parts[-2].numbers) <= SHARE * len(self.parts[-1].numbers):
            self.merge(len(self.parts) - 2)

    def _append(self, part, numbers, embeddings):
        part.known = part.known.append(embeddings)
        part.numbers = np.concatenate([part.numbers, numbers])

    def _known(self, embeddings):
        from ..matcher.known import KnownListings, make_spaces
        spaces = make_spaces(embeddings, self.matcher.rule.reads, like=self.matcher.spaces)
        if len(embeddings) > self.exact_rows:
            spaces = {name: Index(space.vectors, name, normalized=True) if type(space) is Dense else space
                      for name, space in spaces.items()}
        return KnownListings(np.asarray(embeddings.ids).astype(str), embeddings.titles,
                             embeddings.trained_on, spaces, embeddings.made_with)

    def remove(
        self,
        numbers,  # Of listings that are in it
    ):
        "Let listings go."
        for part in self.parts:
            is_kept = ~np.isin(part.numbers, numbers)
            if is_kept.all(): continue
            part.known = part.known.take(is_kept) if is_kept.any() else None
            part.numbers = part.numbers[is_kept]
        self.parts = [part for part in self.parts if len(part.numbers)]

    def merge(
        self,
        start: int = 0,  # Part to begin with
    ):
        "Make one part of several."
        parts = self.parts[start:]
        if len(parts) < 2: return
        titles = [part.known.titles for part in parts]
        spaces = {name: _in_one([part.known.spaces[name] for part in parts], titles)
                  for name in parts[0].known.spaces}
        whole = replace(parts[0].known, ids=np.concatenate([part.known.ids for part in parts]),
                        titles=None if titles[0] is None else sum(titles, []),
                        trained_on=np.concatenate([part.known.trained_on for part in parts]), spaces=spaces)
        self.parts[start:] = [Part(np.concatenate([part.numbers for part in parts]), whole)]


def _in_one(spaces, titles):
    "Several spaces of one modality behind each other; those of titles are in one vocabulary only afterwards."
    whole = spaces[0]
    for space, own_titles in zip(spaces[1:], titles[1:]):
        # n-grams that a later part brought have columns of their own in it
        if hasattr(space, 'added'): space = whole.transform(getattr(space, 'texts', own_titles))
        whole = whole.append(space)
    return whole


def find_pairs(
    index: SearchIndex,
    rule: Rule,  # At the threshold that counts for all listings, without thresholds for other numbers
    numbers: np.ndarray,  # int64 (m,), of new listings
    embeddings: Embeddings,  # Of the same
    overused: dict,  # Modality of keys -> keys on so many listings that they join nothing
    within: bool = True,  # Also among the new ones
):  # DataFrame: first, second, score, a column for each modality, why
    "What new listings match among those of the index, and among themselves."
    if not decides_pairwise(rule): index.merge()
    parts = index.parts or [None]
    found = []
    for place, part in enumerate(parts):
        if part is None: own = index._known(embeddings).spaces
        else: own = part.known.spaces_of(embeddings)
        own = {name: space.without(overused[name]) if overused.get(name) else space
               for name, space in own.items()}
        # among themselves once, with the last part
        with_own = within and place == len(parts) - 1
        spaces = {name: Pool(space, None if part is None else part.known.spaces[name], with_own)
                  for name, space in own.items()}
        behind = np.empty(0, np.int64) if part is None else part.numbers
        found.append(_table(rule.run(spaces), spaces, np.concatenate([numbers, behind])))
    return _each_once(pd.concat(found, ignore_index=True))


def all_pairs(
    index: SearchIndex,
    rule: Rule,
    names: dict,  # Number of a listing -> its id
):  # DataFrame, as `find_pairs` gives it
    "What all listings match among themselves, in the order of their ids, whatever the order they came in."
    index.merge()
    part = index.parts[0]
    order = np.array(sorted(range(len(part.numbers)), key=lambda row: names[int(part.numbers[row])]))
    spaces = {name: space.take(order) for name, space in part.known.spaces.items()}
    return _each_once(_table(rule.run(spaces), spaces, part.numbers[order]))


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
