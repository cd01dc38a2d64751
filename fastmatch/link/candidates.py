"The pairs across two tables that may match, with all that a pair model reads of them."
from dataclasses import dataclass, replace

import numpy as np

from ..core import InputError
from ..match.arrays import find_pairs
from ..match.candidates import Candidates, candidates, with_pairs
from ..match.embeddings import Embeddings
from ..match.fields.blocks import Blocks
from ..match.fields.categories import Categories
from ..match.fields.numbers import Numbers
from ..match.fuse import fuse
from ..match.neighbors import Neighbors
from ..match.pairs.model import PairModel
from ..match.pairs.rule_pairs import RulePairs


@dataclass
class TablePairs:
    "Candidate pairs of two tables, as the left one sees them."
    spaces: dict  # Name -> space of all listings, those of the left table first
    sources: np.ndarray  # (n+m,), the table of each listing
    n_left: int  # Listings of the left table
    found: Candidates  # Of all listings, each with those of the other table
    pairs: RulePairs  # Of the left table's listings

    @classmethod
    def search(
        cls,
        embeddings: Embeddings,  # Of both tables
        n_left: int,  # Listings of the left one
        k: int,  # Candidates of each space
        model: PairModel | None = None,  # That reads the pairs; None: one that is not fitted yet
    ) -> 'TablePairs':
        "Search every space for each listing among those of the other table."
        spaces = with_blocks(embeddings.spaces())
        if not any(space.is_searched for space in spaces.values()):
            raise InputError(f'{", ".join(spaces)}: no column finds candidates: give a text or a code')
        n_searched = min(k + 1, len(embeddings))
        found = candidates(spaces, n_searched, embeddings.source)
        return cls(spaces, embeddings.source, n_left, found, _pairs(found, spaces, n_left, model))

    def with_pairs(
        self,
        left,  # int (m,), rows of the left table
        right,  # int (m,), rows of the right table
        model: PairModel | None = None,  # That reads the pairs
    ) -> 'TablePairs':
        "The candidates and these pairs besides."
        left, right = np.asarray(left, np.int64), np.asarray(right, np.int64) + self.n_left
        found = with_pairs(self.found, self.spaces, np.concatenate([left, right]),
                           np.concatenate([right, left]))
        if found is self.found: return self
        return replace(self, found=found, pairs=_pairs(found, self.spaces, self.n_left, model))

    def __len__(self): return len(self.pairs)

    @property
    def left(self) -> np.ndarray:  # int (p,)
        "The row of each pair in the left table."
        return self.pairs.rows

    @property
    def right(self) -> np.ndarray:  # int (p,)
        "The row of each pair in the right table."
        return self.pairs.ids - self.n_left

    def places(
        self,
        left: np.ndarray,  # int (m,), rows of the left table
        right: np.ndarray,  # int (m,), rows of the right table
    ) -> np.ndarray:  # int (m,)
        "Where pairs stand among the candidates, -1 for those that are none."
        n_right = len(self.sources) - self.n_left
        return find_pairs(self.left, self.right, left, right, max(n_right, 1))


def with_blocks(
    spaces: dict,  # Name -> space
) -> dict:
    "The spaces and, where none of them finds candidates, blocks of each category with each number."
    if any(space.is_searched for space in spaces.values()): return spaces
    categories = [space for space in spaces.values() if isinstance(space, Categories)]
    numbers = [space for space in spaces.values() if isinstance(space, Numbers)]
    blocks = [Blocks(category, number) for category in categories for number in numbers]
    return {**spaces, **{block.name: block for block in blocks}}


def _pairs(found, spaces, n_left, model):
    "What a pair model reads: similarities, ranks and crowding on both sides, and the cells themselves."
    weights = {name: 1. for name, space in spaces.items() if space.is_searched and name not in found.join}
    fused: Neighbors = fuse(found, 'mean', weights)
    return RulePairs(fused, spaces, modalities=[name for name in spaces if name not in found.join],
                     n_rows=n_left, model=model)
