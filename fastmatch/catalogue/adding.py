"From listings as a user gives them to what the record keeps: embeddings, and the files of their pictures."
import numpy as np
import pandas as pd

from ..match import Embeddings
from ..match.cells import texts_of
from .finding import Finding


def without_known(
    catalogue,  # `Catalogue`
    listings,  # DataFrame, or `Embeddings`
    on_known: str,  # 'raise', 'skip' or 'replace'
) -> tuple:  # The listings to add; ids that are left as they are
    "With 'skip' the listings that are not there yet: they need not be embedded."
    if on_known != 'skip': return listings, []
    is_table = isinstance(listings, pd.DataFrame)
    column = catalogue._needed_matcher().columns.id
    if is_table and column not in listings: return listings, []
    ids = texts_of(listings[column] if is_table else listings.ids)
    there = catalogue.record.numbers_of([listing for listing in ids if listing is not None], '')
    is_new = np.array([listing not in there for listing in ids], bool)
    known = [listing for listing, new in zip(ids, is_new) if not new]
    if not is_new.any(): return [], known
    return (listings[is_new] if is_table else listings.take(is_new)), known


def embedded(
    catalogue,  # `Catalogue`
    listings,  # DataFrame, or `Embeddings`
    path,  # Folder of the images
    bs: int,  # Listings a batch
    on_error: str,  # 'raise' or 'skip'
) -> tuple:  # `Embeddings`; the picture files of each or None; what was skipped, as a DataFrame
    "Embed listings, before anything is locked."
    from ..matcher.known import check_ids
    matcher = catalogue._needed_matcher()
    embeddings, skipped = matcher._embedded(listings, path, bs, on_error)
    ids = check_ids(embeddings.ids, 'new listings')
    vectors = {modality: embeddings.pictures.get(modality, embeddings[modality])
               for modality in catalogue.record.setting('widths') if modality in embeddings}
    embeddings = Embeddings(vectors, ids, embeddings.titles, phash=embeddings.phash,
                            made_with=embeddings.made_with,
                            fields={name: (column.field, column.cells)
                                    for name, column in embeddings.fields.items()}, source=embeddings.source)
    return embeddings, _picture_names(listings, matcher.columns, ids), skipped


def _picture_names(listings, columns, ids):
    "The cells of the column of pictures that name files, for the listings that were embedded."
    if not isinstance(listings, pd.DataFrame) or columns.image not in listings: return None
    cells = dict(zip(texts_of(listings[columns.id]), listings[columns.image]))
    return [_names(cells[listing]) for listing in ids]


def _names(cell):
    "A cell as json takes it; None where pictures were given in memory, which have no name."
    if isinstance(cell, str): return cell
    if isinstance(cell, (list, tuple)) and all(isinstance(part, str) or hasattr(part, '__fspath__')
                                               for part in cell): return [str(part) for part in cell]
    return str(cell) if hasattr(cell, '__fspath__') else None


def matches_of(
    catalogue,  # `Catalogue`
    embeddings: Embeddings,  # Of listings that are not added
    within: bool = True,  # Also among themselves
) -> pd.DataFrame:
    "What listings match: each pair from the side of the new one."
    index = catalogue.index()
    own = -1 - np.arange(len(embeddings))
    finding = Finding(catalogue.record, catalogue.matcher, index, None)
    table = finding.matches(own, embeddings, within)
    swapped = table.rename(columns={'first': 'second', 'second': 'first'})
    table = pd.concat([table[table['first'] < 0], swapped[swapped['first'] < 0]])
    known = table['second'].unique()
    names = catalogue.record.names_of(known) | dict(zip(own.tolist(), embeddings.ids))
    # a listing that is there already is taken from the new ones, and its group is known all the same
    is_copy = (table['second'] > 0) & table['second'].map(names).isin(embeddings.ids)
    table = table[~is_copy.to_numpy()]
    numbers = catalogue.record.numbers_of(set(table['second'].map(names)), '')
    groups = catalogue.record.groups_of(numbers.values())
    table.insert(0, 'posting_id', table['first'].map(names))
    table.insert(1, 'match', table['second'].map(names))
    table.insert(2, 'group', pd.array([groups.get(numbers.get(listing)) for listing in table['match']],
                                      'Int64'))
    table = table.drop(columns=['first', 'second'])
    order = {listing: place for place, listing in enumerate(embeddings.ids)}
    table = table.assign(place=table['posting_id'].map(order))
    table = table.sort_values(['place', 'score', 'match'], ascending=[True, False, True])
    return table.drop(columns='place').reset_index(drop=True)
