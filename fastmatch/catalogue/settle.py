"After pairs or verdicts changed: the groups of all listings that this may concern, and their numbers."
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..core import InputError, preview
from .partition import joined, number_blocks
from .record import Record
from .region import grown_region, region_of


@dataclass
class Changes:
    """What an event did. `frame` has a row for each listing whose group changed: `posting_id`, `before` and
    `after` (numbers of groups, missing where it was or is in none)."""
    event: int | None  # Its number; None after a dry run, which keeps nothing
    kind: str  # 'add', 'remove', 'verdict', 'split', 'undo', 'regroup', 'embed'
    frame: object  # DataFrame
    opened: list = field(default_factory=list)  # Groups that are new
    merged: dict = field(default_factory=dict)  # Group -> the older one that holds its listings now
    gone: list = field(default_factory=list)  # Groups without any listing now
    skipped: object = None  # DataFrame of listings that can't be used: `id`, `row`, `column`, `reason`
    known: list = field(default_factory=list)  # Ids that were there before and were left as they are
    # (before, now): the threshold, where it moved with the number of listings, which may move any group
    threshold: tuple | None = None

    def __len__(self): return len(self.frame)

    def __repr__(self):
        return f'{self.name}, {self.kind}: {self.in_words()}'

    @property
    def name(self) -> str:
        "Which event it is, or why it is none."
        if self.event: return f'event {self.event}'
        return 'nothing new' if self.known and not len(self.frame) else 'dry run, nothing kept'

    def in_words(self) -> str:
        "How many listings and groups it concerned."
        before, after = self.frame.before.notna(), self.frame.after.notna()
        is_new_group = self.frame.after.isin(self.opened)
        figures = [(int((~before & after).sum()), 'listings came'), (int((before & ~after).sum()), 'went'),
                   (int((~before & after & ~is_new_group).sum()), 'joined a group that was there'),
                   (int((before & after).sum()), 'changed their group'), (len(self.opened), 'groups opened'),
                   (len(self.merged), 'merged into an older one'), (len(self.gone), 'closed'),
                   (len(self.known), 'listings were there before'),
                   (0 if self.skipped is None else len(self.skipped), 'rows skipped')]
        told = [f'{count} {words}' for count, words in figures if count] or ['no group changed']
        if self.threshold is not None:
            told.append('the threshold moved from {:.4f} to {:.4f}'.format(*self.threshold))
        return ', '.join(told)


def settle(
    record: Record,
    event: int,  # That changed something
    touched,  # Numbers of listings whose pairs or verdicts changed, or which came
    threshold: float,  # Pairs with this score or more match
    taken_out: dict | None = None,  # Listings that went: number -> the group that they were in
    revived: dict | None = None,  # Number of a listing -> the group that it had before what is undone
) -> Changes:
    "Give every listing of the region its group, write what changed, and say it."
    taken_out = taken_out or {}
    emptied = set(taken_out.values()) - {0}
    touched = {*touched, *(number for number, _ in record.members(list(emptied)))}
    region = None if taken_out or revived else grown_region(record, touched, threshold)
    is_grown = region is not None
    if not is_grown: region = region_of(record, touched, threshold)
    blocks, _ = joined(region.listings, region.pairs, region.apart, region.names)
    place_of = {number: place for place, number in enumerate(region.listings.tolist())}
    wanted = None
    if revived:
        wanted = region.groups.copy()
        for number, group in revived.items():
            if number in place_of: wanted[place_of[number]] = group
    numbering = number_blocks(blocks, region.groups, emptied, wanted)
    opened, groups = _opened(record, event, numbering.groups)
    came_back = set(groups.tolist()) - set(region.groups.tolist()) - set(opened)
    _write_groups(record, event, numbering, came_back)
    is_changed = groups != region.groups
    changed = zip(region.listings[is_changed].tolist(), region.groups[is_changed].tolist(),
                  groups[is_changed].tolist())
    rows = [(number, before or None, after) for number, before, after in changed]
    if is_grown and numbering.merged:
        # each of these groups had one of its listings in the region
        rows = [row for row in rows if row[1] is None]
        rows += [(number, group, numbering.merged[group])
                 for number, group in record.members(list(numbering.merged))]
        rows.sort()
    record.connection.executemany('update listing set grp = ? where number = ?',
                                  [(after, number) for number, _, after in rows])
    rows += [(number, group or None, None) for number, group in taken_out.items()]
    record.connection.executemany('insert into change values (?, ?, ?, ?)', [(event, *row) for row in rows])
    names = record.names_of([number for number, _, _ in rows])
    frame = pd.DataFrame({'posting_id': [names[number] for number, _, _ in rows],
                          'before': pd.array([before for _, before, _ in rows], 'Int64'),
                          'after': pd.array([after for _, _, after in rows], 'Int64')})
    return Changes(event, '', frame, opened, numbering.merged, numbering.gone)


def _opened(record, event, groups):
    "The numbers of new groups, and the groups with them in place of -1, -2, ...."
    n_new = -int(groups.min(initial=0))
    if not n_new: return [], groups
    last = record.execute("select coalesce((select seq from sqlite_sequence where name = 'grp'), 0)"
                          ).fetchone()[0]
    numbers = np.arange(last + 1, last + 1 + n_new)
    record.connection.executemany('insert into grp (number, opened) values (?, ?)',
                                  [(number, event) for number in numbers.tolist()])
    return numbers.tolist(), np.where(groups < 0, numbers[np.clip(-groups - 1, 0, n_new - 1)], groups)


def _write_groups(record, event, numbering, came_back):
    record.connection.executemany('update grp set merged = ? where number = ?',
                                  [(into, group) for group, into in numbering.merged.items()])
    record.connection.executemany('update grp set closed = ? where number = ?',
                                  [(event, group) for group in numbering.gone])
    record.connection.executemany('update grp set merged = null, closed = null where number = ?',
                                  [(group,) for group in came_back])


def check_verdicts(
    record: Record,
    ids,  # Of listings that people just judged
):
    "Raise `InputError` where what people said contradicts itself: different, yet the same through others."
    same_as, verdicts = {}, set()
    frontier = set(map(str, ids))
    seen = set(frontier)
    while frontier:
        found = record.verdicts(frontier)
        verdicts.update(found)
        frontier = {listing for first, second, same in found if same for listing in (first, second)} - seen
        seen |= frontier
    for first, second, same in verdicts:
        if same:
            same_as.setdefault(first, set()).add(second)
            same_as.setdefault(second, set()).add(first)
    for first, second, same in sorted(verdicts):
        if same: continue
        reached, waiting = {first}, [first]
        while waiting:
            for other in same_as.get(waiting.pop(), ()):
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        if second in reached:
            others = preview(sorted(reached - {first, second}), 3)
            raise InputError(f'{first} and {second}: called different, and the same through {others}: take '
                             'one of these back first')
