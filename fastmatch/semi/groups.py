"Pseudo-labels for matching: new listings join known groups, or form new ones, by matches that are sure."
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..core import InputError, preview
from ..data.block import MatchDataLoaders
from ..match.cells import is_among, texts_of
from .leaks import held_out_of

NEW = 'new group'  # how a listing came to its group


def pseudo_groups(
    # `posting_id`, `match`, `score`: `result.pairs()` of a matcher whose catalogue holds the known listings,
    # those held out too
    pairs: pd.DataFrame,
    dls: MatchDataLoaders,  # With the listings whose groups are known, and those held out
    df: pd.DataFrame | None = None,  # The new listings, with the columns of `dls`; None: `dls.unlabelled`
    *,
    least: float,  # Score that a match needs to be sure; above the threshold that decides, as a rule
    margin: float = 0.,  # How far a listing's best group must be above its second, to be joined
    max_size: int = 10,  # Listings of a new group at most: a larger one is a chain of mistakes, and left out
    held_out=(),  # A `HeldOut`, or tables of more listings that must not be trained on
    on_leak: str = 'raise',  # 'raise' for listings held out and their twins, or 'skip' them
) -> pd.DataFrame:  # the id column, the group column, `how` (the known listing, or 'new group'), `score`
    """Groups of new listings, as a table that can be read and edited: the surest first.

    A listing with a sure match among known ones joins the group of its best; one whose second group is within
    `margin` joins none. The others form new groups by their sure matches among each other, unless one of them
    matches a listing that has joined a group or is in doubt between two: it may belong there. New groups are
    named 'new 0', 'new 1', and so on.

    Listings that surely match a held-out one are of a product that is validated on: they are left out with
    all their mates. So are, or raise `InputError`, listings that are held out and their twins.
    """
    _check(pairs, dls, least, margin, max_size, on_leak)
    items = dls.unlabelled if df is None else df
    if items is None or not len(items): raise InputError('there are no new listings: give df')
    held_out = held_out_of(dls, held_out)
    if on_leak == 'raise': held_out.refuse(items)
    leaks = set(texts_of(held_out.leaks(items)['id'].tolist()))
    new_ids = list(texts_of(items[dls.columns.id]))
    sure = _sure_pairs(pairs, least)
    held = {*held_out.ids, *leaks}
    beside_held = set(sure.first[is_among(sure['second'], held)]) | held
    group_of = dict(zip(texts_of(dls.train_df[dls.columns.id]), dls.train_df[dls.columns.group]))
    candidates = [item_id for item_id in new_ids if item_id not in beside_held and item_id not in group_of]
    joined, in_doubt = _joined(sure, candidates, group_of, margin)
    taken = {*joined, *in_doubt, *beside_held, *group_of}
    rows = [(item_id, *found) for item_id, found in joined.items()]
    rows += _new_groups(sure, [item_id for item_id in candidates if item_id not in taken], taken, max_size)
    table = pd.DataFrame(rows, columns=[dls.columns.id, dls.columns.group, 'how', 'score'])
    return table.sort_values('score', ascending=False, kind='stable', ignore_index=True)


def with_pseudo_groups(
    dls: MatchDataLoaders,  # With the listings whose groups are known, and those held out
    labels: pd.DataFrame,  # From `pseudo_groups`, edited or read from a CSV
    df: pd.DataFrame | None = None,  # The new listings; None: `dls.unlabelled`
    held_out=(),  # As for `pseudo_groups`
) -> pd.DataFrame:
    """All listings to train on and to validate on, with a column `is_valid`, for
    `MatchDataLoaders.from_df(..., fold_col='is_valid', valid_fold=True)`.

    Raises `InputError` with the ids of listings that are held out, their twins, and those put into a group
    that is held out.
    """
    id_column, group_column = dls.columns.id, dls.columns.group
    lacking = [column for column in (id_column, group_column) if column not in labels.columns]
    if lacking: raise InputError(f'labels lacks the columns {preview(lacking)}: pseudo_groups makes them')
    items = dls.unlabelled if df is None else df
    place = {item_id: row for row, item_id in enumerate(texts_of(items[id_column]))}
    ids = texts_of(labels[id_column])
    for name, table in (('validation listings', dls.valid_df), ('listings with a group', dls.train_df)):
        among = ids[is_among(ids, table[id_column])]
        if len(among): raise InputError(f'labels: {len(among)} are {name} of dls: {preview(among)}')
    unknown = [item_id for item_id in ids if item_id not in place]
    if unknown: raise InputError(f'labels: {len(unknown)} ids are no new listings ({preview(unknown)})')
    leaking = ids[is_among(labels[group_column], dls.valid_df[group_column])]
    if len(leaking):
        raise InputError(f'labels: {len(leaking)} listings are put into groups that are held out: '
                         f'{preview(leaking)}')
    chosen = items.iloc[[place[item_id] for item_id in ids]]
    held_out_of(dls, held_out).refuse(chosen)
    chosen = chosen.assign(**{group_column: labels[group_column].to_numpy(object), 'is_valid': False})
    known = dls.df.assign(**{group_column: dls.df[group_column].astype(object), 'is_valid': dls.is_valid})
    return pd.concat([known, chosen], ignore_index=True)


def _check(pairs, dls, least, margin, max_size, on_leak):
    "Raise `InputError` for options out of range."
    if not isinstance(dls, MatchDataLoaders): raise InputError('dls: make them with MatchDataLoaders.from_df')
    lacking = {'posting_id', 'match', 'score'} - set(getattr(pairs, 'columns', ()))
    if lacking: raise InputError(f'pairs lacks the columns {sorted(lacking)}: give result.pairs()')
    if not np.isfinite(least): raise InputError(f'least={least}: give a finite number')
    if not margin >= 0: raise InputError(f'margin={margin}: 0 or above')
    if max_size < 2: raise InputError(f'max_size={max_size}: 2 or more')
    if on_leak not in ('raise', 'skip'): raise InputError(f"on_leak={on_leak!r}: choose 'raise' or 'skip'")


def _sure_pairs(pairs, least):
    "`first`, `second`, `score`: each sure pair in both directions, with its better score, the best first."
    sure = pairs[pairs['score'] >= least]
    first, second = texts_of(sure['posting_id']), texts_of(sure['match'])
    both = pd.DataFrame({'first': [*first, *second], 'second': [*second, *first],
                         'score': np.tile(sure['score'].to_numpy(float), 2)})
    both = both[both['first'] != both['second']].sort_values('score', ascending=False, kind='stable')
    return both.drop_duplicates(['first', 'second'], ignore_index=True)


def _joined(sure, candidates, group_of, margin):
    "(listing -> (group, the known listing that it matches, score), listings in doubt between two groups)."
    to_known = sure[is_among(sure['first'], candidates) & is_among(sure['second'], group_of)]
    joined, in_doubt = {}, set()
    for item_id, matches in to_known.groupby('first', sort=False):
        groups = [group_of[mate] for mate in matches['second']]
        scores = matches['score'].tolist()
        second_best = next((score for group, score in zip(groups, scores) if group != groups[0]), -np.inf)
        if scores[0] - second_best > margin or second_best == -np.inf:
            joined[item_id] = groups[0], matches['second'].iloc[0], scores[0]
        else: in_doubt.add(item_id)
    return joined, in_doubt


def _new_groups(sure, others, taken, max_size):
    "Rows of the listings that form groups of their own: (listing, name of the group, NEW, least score)."
    place = {item_id: number for number, item_id in enumerate(others)}
    links = sure[is_among(sure['first'], others)]
    among = links[is_among(links['second'], others)]
    ends = [np.array([place[item_id] for item_id in among[column]], np.int64)
            for column in ('first', 'second')]
    graph = coo_matrix((np.ones(len(among), np.int8), ends), shape=(len(others),) * 2)
    component = connected_components(graph, directed=False)[1] if others else np.empty(0, np.int64)
    spoilt = {component[place[item_id]] for item_id in links['first'][is_among(links['second'], taken)]}
    best_score = among.groupby('first')['score'].max()
    rows, n_groups = [], 0
    for number in dict.fromkeys(component.tolist()):
        members = [others[row] for row in np.flatnonzero(component == number)]
        if number in spoilt or not 2 <= len(members) <= max_size: continue
        rows += [(item_id, f'new {n_groups}', NEW, best_score[item_id]) for item_id in members]
        n_groups += 1
    return rows
