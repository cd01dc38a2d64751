"""Items that must not be trained on: those held out, and their twins by picture or title among the others.

A pseudo-label of a twin of a validation item teaches a model that item, and the validation then measures how
well it was remembered.
"""
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..data.pictures import picture_names
from ..data.read import check_listings
from ..data.split import components, file_digests, usable_hashes
from ..match.cells import comparable, texts_of


class HeldOut:
    """The items that are held out, and what makes another item their twin: the same id, the same pictures by
    their bytes or by perceptual hash (all of them, where an item has several), the same title but for
    capitals and blanks. A twin of a twin counts as one.

    A title or picture on more than 50 items is a placeholder and makes no twins, with a warning.
    """
    def __init__(
        self,
        dls,  # `ClassifyDataLoaders` or `MatchDataLoaders`: their validation items are held out
        # More items that are held out, such as the test set: a table, or a list of tables, with the columns
        # of `dls`
        more=(),
        phash: bool = True,  # Compare pictures by perceptual hash too, for which each has to be decoded
    ):
        self.columns = dls.columns
        self.image_columns = list(dls.image_columns)
        self.folder = Path(dls.image_folder)
        self.phash = phash
        self._digests, self._hashes = {}, {}  # by file name
        tables = [more] if isinstance(more, pd.DataFrame) else list(more)
        widened = [dls.widen(table) if hasattr(dls, 'widen') else table for table in tables]
        self.df = pd.concat([dls.valid_df, *widened], ignore_index=True)
        self.ids = texts_of(self.df[self.columns.id])
        self._keys = self._keys_of(self.df)

    def leaks(
        self,
        items: pd.DataFrame,  # (m,) to be trained on, with the columns of the dataloaders' own tables
    ) -> pd.DataFrame:  # `id`, `row` (position in `items`), `why`, `held_out` (id of the item held out)
        "The items that are held out, or twins of items that are."
        found = pd.DataFrame(columns=['id', 'row', 'why', 'held_out'])
        if not len(self.df) or not len(items): return found
        keys = self._keys_of(items)
        together = pd.DataFrame(index=range(len(self.df) + len(items)))
        component = components(together, keys={name: np.concatenate([self._keys[name], keys[name]])
                                               for name in keys})
        n_held = len(self.df)
        held_of = dict(zip(component[:n_held][::-1], self.ids[::-1]))
        rows = np.flatnonzero(np.isin(component[n_held:], component[:n_held]))
        ids = items[self.columns.id].to_numpy()
        reasons = [self._reason(keys, row, held_of[component[n_held + row]]) for row in rows]
        return pd.DataFrame([(ids[row], row, *reason) for row, reason in zip(rows, reasons)],
                            columns=found.columns)

    def refuse(
        self,
        items: pd.DataFrame,  # As for `leaks`
    ):
        "Raise `InputError` with the ids of items that are held out, or twins of items that are."
        leaks = self.leaks(items)
        if not len(leaks): return
        lines = preview(f'{leak.id} ({leak.why} of {leak.held_out})' for leak in leaks.itertuples())
        raise InputError(f'{len(leaks)} of {len(items)} items are held out, or twins of items that are: '
                         f'{lines}')

    def _reason(self, keys, row, linked_id):
        "(why a row leaks, the id of the item held out)."
        for name, of_items in keys.items():
            if of_items[row] is None: continue
            places = np.flatnonzero(self._keys[name] == of_items[row])
            if len(places): return f'same {name}', self.ids[places[0]]
        return 'twin of a twin', linked_id

    def _keys_of(self, df):
        "What twins share: name -> object (n,), None where an item has none."
        keys = {'id': texts_of(df[self.columns.id])}
        if self.image_columns:
            names = self._names_of(df)
            self._read(names)
            keys['picture'] = _joined(names, self._digests)
            if self.phash: keys['perceptual hash'] = _joined(names, self._hashes)
        if self.columns.title is not None:
            titles = [comparable(str(title)) if isinstance(title, str) else '' for title in
                      df[self.columns.title]]
            keys['title'] = _objects([title or None for title in titles])
        return keys

    def _names_of(self, df):
        "The file names of each item's pictures, each once."
        cells = df[self.image_columns].to_numpy(object).tolist()
        by_row = [[name for cell in row for name in picture_names(cell, self.folder)] for row in cells]
        return [list(dict.fromkeys(names)) for names in by_row]

    def _read(self, names):
        "Digest, and hash, the files that were not read yet."
        new = [name for name in dict.fromkeys(name for of_row in names for name in of_row)
               if name not in self._digests]
        if not new: return
        self._digests.update(zip(new, file_digests(pd.Series(new, dtype=object), self.folder)))
        if not self.phash: return
        checked = check_listings(pd.DataFrame({'file': new}), self.folder, image_col='file', id_col=None,
                                 on_error='skip', phash=True, min_rows=0, several=False)
        # of a file that can't be decoded, or of one color, there is none
        self._hashes.update(zip(checked.df.file, usable_hashes(checked.phash)))


def held_out_of(
    dls,  # As for `HeldOut`
    held_out=(),  # A `HeldOut` as it is, or more tables for one
    phash: bool = True,  # As for `HeldOut`
) -> HeldOut:
    "What is held out from training."
    return held_out if isinstance(held_out, HeldOut) else HeldOut(dls, held_out, phash)


def _joined(names, by_name):
    "A key of all pictures of each item; None where it has none, or one of them has no key."
    keys = [[by_name.get(name) for name in of_row] for of_row in names]
    return _objects([' '.join(sorted(of_row)) if of_row and None not in of_row else None for of_row in keys])



def _objects(values):
    "Strings and None as object (n,)."
    return np.array(values, dtype=object)
