"What an event changed, so that it can be taken back: listings that came, listings that went, verdicts."
import numpy as np

from ..core import InputError, preview
from .record import Record

# verdicts that an event gave, or gave back, and that count
OF_EVENT = '((event = ?1 or restored = ?1) and withdrawn is null)'


def came_with(
    record: Record,
    event: int,
) -> np.ndarray:  # int64
    "The numbers of listings that came with an event, for the first time or again, and are still there."
    rows = record.execute('select distinct change.listing from change join listing on number = '
                          'change.listing where event = ? and before is null and after is not null '
                          'and removed is null', (event,))
    return np.array([number for number, in rows], np.int64)


def went_with(
    record: Record,
    event: int,
) -> np.ndarray:  # int64
    "Let listings that went with an event be there again; their numbers, rising."
    rows = record.execute('select number, id from listing where removed = ? order by number',
                          (event,)).fetchall()
    taken = record.numbers_of([listing for _, listing in rows], '')
    if taken: raise InputError(f'event {event}: added anew since: {preview(taken)}; remove them first')
    record.execute('update listing set removed = null, grp = 0 where removed = ?', (event,))
    return np.array([number for number, _ in rows], np.int64)


def take_back_verdicts(
    record: Record,
    event: int,  # That is undone
    number: int,  # Of the event that undoes it
) -> set:  # Numbers of listings
    "Let verdicts of an event count no more, and those that it took back count again."
    rows = record.execute(f'select first, second from verdict where {OF_EVENT} or withdrawn = ?1',
                          (event,)).fetchall()
    record.execute(f'update verdict set withdrawn = ?2 where {OF_EVENT}', (event, number))
    record.execute('update verdict set withdrawn = null, restored = ?2 where withdrawn = ?1', (event, number))
    ids = {listing for pair in rows for listing in pair}
    return set(record.numbers_of(ids, '').values())


def check_undoable(
    record: Record,
    event: int,
):
    "Raise `InputError` where there is no such event, or nothing left of it to take back."
    row = record.execute('select kind from event where number = ?', (event,)).fetchone()
    if row is None: raise InputError(f'event {event}: there is none of this number')
    left = record.execute(
        'select exists (select 1 from listing where removed = ?1) '
        f'or exists (select 1 from verdict where {OF_EVENT} or withdrawn = ?1)', (event,)).fetchone()[0]
    if not left and not len(came_with(record, event)):
        raise InputError(f'event {event} ({row[0]}): nothing is left of it to take back')


def revived_by(
    record: Record,
    event: int,
) -> dict:  # Number of a listing -> group
    "The groups that listings had before an event, of those that are still where it put them."
    return dict(record.execute(
        'select listing.number, before from change join listing on number = change.listing where event = ? '
        'and before is not null and (after is null or after = grp)', (event,)).fetchall())
