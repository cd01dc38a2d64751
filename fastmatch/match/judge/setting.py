"""Where a rule is judged: which listings are looked up, and among which others.

The same threshold means another thing among 500 listings and among 50,000. A rule is chosen and judged in the
setting that it is going to work in: *in the catalogue*, where listings that were never trained on are looked
up among all that the matcher holds, or *among themselves*, as a competition's closed test set is matched.
"""
from dataclasses import dataclass, replace

import numpy as np

from ...core import InputError, preview
from ..candidates import trained_on_of
from ..cells import codes_of
from ..embeddings import SOURCE, Embeddings
from ..neighbors import refuse_trained_on
from ..spaces.pool import Pool, holds_column, holds_field, holds_keys
from ..spaces.sources import sources_of
from .groups import Groups

AMONG_THEMSELVES = 'among themselves'
IN_THE_CATALOGUE = 'in the catalogue'
READ_ONLY = ('units', 'titles', SOURCE)  # spaces that steps read, and that no candidates come from


@dataclass(frozen=True)
class Setting:
    """Listings that are looked up (the rows), and the pool they are looked up in, the rows first."""
    name: str  # What to call it in tables: 'in the catalogue', 'among themselves'
    spaces: dict  # Name -> space or `Pool`: all that a rule may read
    groups: Groups  # Of the whole pool; `len` is the number of rows
    order: np.ndarray  # int (p,), for each listing of the pool its row in the embeddings

    def __post_init__(self):
        sizes = {name: (len(space), space.pool) for name, space in self.spaces.items()}
        wanted = len(self.groups), self.groups.pool
        wrong = {name: size for name, size in sizes.items() if size != wanted}
        if not self.spaces or wrong:
            raise InputError(f'setting: spaces of (rows, pool) {wrong}, groups of {wanted}')
        refuse_trained_on(trained_on_of(self.spaces), 'judging a rule')

    def __len__(self): return len(self.groups)
    def __repr__(self): return f'Setting({self.name!r}: {len(self)} listings, a pool of {self.pool})'

    @property
    def pool(self) -> int:
        "How many listings are searched, the rows included."
        return self.groups.pool

    @property
    def keys(self) -> tuple:
        "The names of the spaces that hold exact keys, which match by themselves."
        return tuple(name for name, space in self.spaces.items()
                     if holds_keys(space) and name not in READ_ONLY)

    @property
    def modalities(self) -> tuple:
        """The names of the spaces whose similarities are fused: vectors and titles, or, where there are none,
        columns of text."""
        return tuple(name for name in self._similar() if name not in self.fields)

    @property
    def fields(self) -> tuple:
        """The names of the further columns of the table, which a rule may add to the fusion one at a time:
        with all of them its grid would be too large."""
        columns = tuple(name for name in self._similar() if holds_column(self.spaces[name]))
        if len(columns) < len(self._similar()): return columns
        return tuple(name for name in columns if holds_field(self.spaces[name]))

    def _similar(self): return [name for name in self.spaces if name not in (*self.keys, *READ_ONLY)]

    @property
    def apart(self) -> str | None:
        """The space that says where listings come from, of which none matches another of its source; None
        where that isn't known. Mates of one source are then missed by every rule."""
        return SOURCE if SOURCE in self.spaces else None

    @property
    def sources(self) -> np.ndarray | None:  # object (p,), strings
        "Where each listing of the pool comes from; None where that isn't known."
        return None if self.apart is None else sources_of(self.spaces[self.apart])

    def part(
        self,
        pool: int,  # Listings that are to be searched, the rows included; about so many are left
        seed: int = 0,  # Of the draw
    ) -> 'Setting':
        """The same rows in a smaller pool: whole groups of the other listings are left out at random.

        A group that has a row in it stays whole. Raises `InputError` for a pool smaller than what stays, or
        larger than there is.
        """
        codes = self.groups.codes
        is_kept = self._is_needed()
        if not self.needed <= pool <= self.pool:
            raise InputError(f'pool={pool}: from {self.needed}, the listings that are looked up and their '
                             f'groups, to {self.pool}, all there are')
        other_codes = np.unique(codes[~is_kept])
        sizes = np.bincount(codes)
        shuffled = np.random.default_rng(seed).permutation(other_codes)
        room = pool - is_kept.sum()
        is_kept |= np.isin(codes, shuffled[sizes[shuffled].cumsum() <= room])
        return self._keep(is_kept)

    def alone(self) -> 'Setting':
        "The rows looked up among themselves, as a matcher does it that leaves its catalogue out."
        spaces = {name: space.new if isinstance(space, Pool) else space
                  for name, space in self.spaces.items()}
        return Setting(AMONG_THEMSELVES, spaces, Groups(self.groups.row_codes), self.order[:len(self)])

    @property
    def needed(self) -> int:
        "The size of the smallest pool that `part` can make: the rows and the listings of their groups."
        return int(self._is_needed().sum())

    def _is_needed(self): return np.isin(self.groups.codes, self.groups.row_codes)

    def dealt(
        self,
        pool: int,  # Listings of a part, about
        seed: int = 0,  # Of the draw
    ) -> list:  # `Setting`s
        """As many smaller settings as there are in this one: whole groups are dealt at random, rows and
        others alike, and no listing is in two of them. Parts without a row are left out.

        Where `part` can go no lower, and where there is nothing but rows. Raises `InputError` for a pool
        below 1 or above what there is.
        """
        if not 1 <= pool <= self.pool: raise InputError(f'pool={pool}: from 1 to {self.pool}, all there are')
        sizes = np.bincount(self.groups.codes)
        shuffled = np.random.default_rng(seed).permutation(len(sizes))
        # a group belongs where its middle falls
        middles = sizes[shuffled].cumsum() - sizes[shuffled] / 2
        part_of_group = np.empty(len(sizes), int)
        part_of_group[shuffled] = (middles / pool).astype(int)
        part_of_listing = part_of_group[self.groups.codes]
        of_rows = np.unique(part_of_listing[:len(self)])
        return [self._keep(part_of_listing == part) for part in of_rows if part < self.pool // pool]

    def without_mates(
        self,
        share: float,  # Of the groups of the rows: 0 leaves all as it is, 1 takes every mate away
        seed: int = 0,  # Of the draw
    ) -> 'Setting':
        """The setting with more listings that have no match: of this share of the groups one row each stays,
        and its mates are taken out of the pool.

        Rules that force matches (min2, chisel) pay for it here, as they do in a catalogue that is open.
        """
        if isinstance(share, bool) or not isinstance(share, (int, float, np.number)) or not 0 <= share <= 1:
            raise InputError(f'matchless={share!r}: a share of the groups, from 0 to 1')
        rng = np.random.default_rng(seed)
        n_groups = self.groups.count
        chosen_groups = rng.permutation(n_groups)[:int(round(share * n_groups))]
        shuffled_rows = rng.permutation(len(self))
        # of each group the first of the shuffled rows stays
        _, first = np.unique(self.groups.row_codes[shuffled_rows], return_index=True)
        is_kept = ~np.isin(self.groups.codes, chosen_groups)
        is_kept[shuffled_rows[first]] = True
        return self._keep(is_kept)

    def _keep(self, is_kept):
        n_rows = len(self)
        rows, others = is_kept[:n_rows], is_kept[n_rows:]

        def kept(space):
            if not isinstance(space, Pool): return space.take(rows)
            catalogue = space.catalogue.take(others) if others.any() else None
            return Pool(space.new.take(rows), catalogue, space.within)
        groups = Groups(self.groups.codes[is_kept], rows=int(rows.sum()))
        spaces = {name: kept(space) for name, space in self.spaces.items()}
        return replace(self, spaces=spaces, groups=groups, order=self.order[is_kept])


def among_themselves(
    embeddings: Embeddings,  # With groups; of listings that no encoder was trained on
    only: tuple | None = None,  # Modalities, as for `Embeddings.spaces`; default all
) -> Setting:
    "The listings looked up among themselves, as in a competition's closed test set."
    embeddings.refuse_trained_on('judging a rule')
    groups = Groups(_known_groups(embeddings))
    return Setting(AMONG_THEMSELVES, _all_spaces(embeddings, only), groups, np.arange(len(embeddings)))


def in_the_catalogue(
    embeddings: Embeddings,  # With groups; of all that the matcher will hold
    rows,  # bool (n,), the listings that are looked up: none that an encoder was trained on
    only: tuple | None = None,  # Modalities, as for `Embeddings.spaces`; default all
) -> Setting:
    """Listings that were never trained on, looked up among all: those that were trained on are only found.

    Others may have no group: each counts as a group of its own, so that a match with one is wrong. It may be
    a true one that nobody labelled, and then the figures are too low.

    Raises `InputError` for rows that were trained on or have no group, and where no listing is looked up or
    none only found.
    """
    rows = np.asarray(rows)
    if rows.dtype != bool or rows.shape != (len(embeddings),):
        raise InputError(f'rows of dtype {rows.dtype}, shape {rows.shape}: give bool ({len(embeddings)},)')
    trained = rows & embeddings.trained_on
    if trained.any():
        raise InputError(
            f'rows: {trained.sum()} listings were trained on ({preview(embeddings.ids[trained])}): '
            'a rule is chosen on listings that the encoder never saw'
        )
    if not rows.any(): raise InputError('rows: no listing is looked up')
    if rows.all(): raise InputError('rows: all listings are looked up: take `among_themselves`')
    known_groups = _each_its_own(_known_groups(embeddings), rows)
    order = np.concatenate([np.flatnonzero(rows), np.flatnonzero(~rows)])
    groups = Groups(known_groups[order], rows=int(rows.sum()))
    spaces = {name: Pool(space.take(rows), space.take(~rows))
              for name, space in _all_spaces(embeddings, only).items()}
    return Setting(IN_THE_CATALOGUE, spaces, groups, order)


def _known_groups(embeddings):
    if embeddings.groups is None:
        raise InputError('the listings have no groups: a rule is judged against the true ones')
    return np.asarray(embeddings.groups)


def _each_its_own(groups, rows):
    "The groups as they are, or, where some are missing, as numbers: a new one for each listing without."
    codes = codes_of(groups)
    is_missing = codes < 0
    if not is_missing.any(): return groups
    asked = np.flatnonzero(is_missing & rows)
    if len(asked): raise InputError(f'rows: {len(asked)} listings that are looked up have no group, rows '
                                    f'{preview(asked)}: nothing says what they should match')
    codes[is_missing] = codes.max() + 1 + np.arange(is_missing.sum())
    return codes


def _all_spaces(embeddings, only):
    "The modalities' spaces, and those that steps may read."
    spaces = embeddings.spaces(only=only)
    made_of = {'units': embeddings.titles, 'titles': embeddings.titles, SOURCE: embeddings.source}
    read_only = [name for name in READ_ONLY if name not in spaces and made_of[name] is not None]
    return {**spaces, **embeddings.spaces(only=tuple(read_only))}
