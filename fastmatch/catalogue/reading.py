"What a catalogue says when it is asked; a file and no matcher is enough for most of it."
import json

import numpy as np
import pandas as pd

from ..core import InputError
from .partition import joined
from .region import region_of
from .schema import snapshot
from .why import Why, explain_alone, explain_pair

COLUMNS_OF_EVENTS = ('event', 'kind', 'time', 'who', 'reason', 'detail')
COLUMNS_SHOWN = ('posting_id', 'title', 'pictures', 'group')


class Reading:
    "The questions that a `Catalogue` answers."
    def _snapshot(self): return snapshot(self.record.connection, self.file)

    def __len__(self):
        with self._snapshot(): return self.record.count()

    def __repr__(self):
        with self._snapshot():
            n_listings, n_groups = self.record.execute(
                'select count(*), count(distinct grp) from listing where removed is null').fetchone()
            last = self.record.last_event()
        return f'Catalogue({self.file}: {n_listings} listings in {n_groups} groups, event {last})'

    def __contains__(self, listing):
        with self._snapshot(): return bool(self.record.numbers_of([listing], ''))

    def known(
        self,
        ids,  # Texts
    ) -> list:  # Ids
        "Those of some ids that are in the catalogue."
        ids = [str(listing) for listing in ids]
        with self._snapshot(): there = self.record.numbers_of(ids, '')
        return [listing for listing in ids if listing in there]

    def remembered(
        self,
        name: str,  # As for `remember`
    ):
        "A note that was kept in the file, None where there is none."
        with self._snapshot(): return self.record.setting(f'note {name}')

    @property
    def last_event(self) -> int:
        "The number of the last event, 0 before the first."
        with self._snapshot(): return self.record.last_event()

    def groups(self):  # DataFrame: posting_id, group
        "Every listing with the number of its group, in the order of groups and ids."
        with self._snapshot():
            return self._table('select id, grp from listing where removed is null order by grp, id', (),
                               ('posting_id', 'group'))

    def group_of(
        self,
        listing,  # Its id
    ) -> int:
        "The number of a listing's group."
        with self._snapshot():
            number = self.record.numbers_of([listing])[str(listing)]
            return self.record.groups_of([number])[number]

    def resolve(
        self,
        group: int,  # A number that was once given
    ) -> int:
        "The number that a group goes by now: that of the older group into which it was merged."
        with self._snapshot(): return self.record.resolve(int(group))

    def members(
        self,
        group: int,  # Its number, or one that was merged into it
    ) -> list:  # Ids
        "The listings of a group."
        with self._snapshot():
            rows = self.record.members([self.record.resolve(int(group))])
            return sorted(self.record.names_of([number for number, _ in rows]).values())

    def listings(
        self,
        ids,  # Texts
    ):  # DataFrame: posting_id, title, pictures (a list of file names), group
        "What is shown of listings, in the order that they are asked for, without those that are not there."
        order = {str(listing): place for place, listing in enumerate(ids)}
        with self._snapshot():
            rows = self.record.rows('select id, title, pictures, grp from listing where removed is null and '
                                    'id in (select value from json_each(?))', list(order))
        rows.sort(key=lambda row: order[row[0]])
        return pd.DataFrame([(listing, title, _names(pictures), group)
                             for listing, title, pictures, group in rows], columns=list(COLUMNS_SHOWN))

    def search(
        self,
        text: str,  # Words, each of which is to be in the title; or an id
        n: int = 50,  # Listings to give
    ) -> list:  # Ids: one that is the text itself first, then the shortest titles
        "The listings whose title holds all words of a text, whatever their case."
        conditions, wanted = [], []
        for word in text.split():
            # SQLite folds the case of ASCII letters alone
            spellings = sorted({word, word.lower(), word.upper(), word.capitalize()})
            conditions.append(f'({" or ".join(["title like ? escape char(92)"] * len(spellings))})')
            wanted += [f'%{_escaped(spelling)}%' for spelling in spellings]
        with self._snapshot():
            exact = [listing for listing in (text.strip(),) if self.record.numbers_of([listing], '')]
            if not conditions: return []
            rows = self.record.execute('select id from listing where removed is null and '
                                       f'{" and ".join(conditions)} order by length(title), id limit ?',
                                       (*wanted, int(n))).fetchall()
        return list(dict.fromkeys([*exact, *(listing for listing, in rows)]))[:int(n)]

    def largest_groups(
        self,
        n: int = 20,  # Groups to give
        start: int = 0,  # Groups to pass over
        least: int = 1,  # Listings that a group must have
    ):  # DataFrame: group, listings (how many)
        "Groups from the largest to the smallest; of equal ones the older first."
        with self._snapshot():
            return self._table(
                'select grp, count(*) from listing where removed is null group by grp having count(*) >= ? '
                'order by count(*) desc, grp limit ? offset ?', (int(least), int(n), int(start)),
                ('group', 'listings'))

    @property
    def n_groups(self) -> int:
        "How many groups have listings."
        with self._snapshot():
            return self.record.execute(
                'select count(distinct grp) from listing where removed is null').fetchone()[0]

    @property
    def threshold(self) -> float:
        "Pairs with this score or more match, among as many listings as there are."
        with self._snapshot(): return self.record.setting('threshold')

    def events(
        self,
        last: int | None = None,  # Only so many, the last ones; None: all
    ):  # DataFrame: event, kind, time (UTC), who, reason, detail
        "Every event, the first one first."
        with self._snapshot():
            table = self._table('select number, kind, time, who, reason, detail from event order by number '
                                'desc limit ?', (-1 if last is None else int(last),), COLUMNS_OF_EVENTS)
        return table.iloc[::-1].reset_index(drop=True)

    def history(
        self,
        group: int,  # A number that was once given
    ):  # DataFrame: event, kind, time, posting_id, before, after, who, reason
        "Every listing that came into a group or left it, and by which event."
        with self._snapshot():
            if self.record.execute('select 1 from grp where number = ?', (int(group),)).fetchone() is None:
                raise InputError(f'group {group}: there is none of this number')
            table = self._table(
                'select event, kind, time, id, before, after, who, reason from change '
                'join event on event.number = change.event join listing on listing.number = change.listing '
                'where before = ?1 or after = ?1 order by event, listing.number', (int(group),),
                ('event', 'kind', 'time', 'posting_id', 'before', 'after', 'who', 'reason'))
            return table.astype({'before': 'Int64', 'after': 'Int64'})

    def verdicts(self):  # DataFrame: first, second, same, event, who, reason
        "What people said, the last word on each pair."
        with self._snapshot():
            table = self._table(
                'select first, second, same, max(verdict.number), event, who, event.reason from verdict join '
                'event on event.number = verdict.event where withdrawn is null group by first, second '
                'order by verdict.number', (),
                ('first', 'second', 'same', 'number', 'event', 'who', 'reason'))
            return table.drop(columns='number').astype({'same': bool})

    def pairs(self):  # DataFrame: first, second, score, a dict of scores by modality, why
        "Every pair that matches, with its score and the reason."
        with self._snapshot():
            threshold = self.record.setting('threshold')
            table = self._table(
                'select one.id, other.id, score, scores, reason from edge '
                'join listing one on one.number = first join listing other on other.number = second '
                'where stands or score >= ? order by score desc, '
                'one.id, other.id', (threshold,), ('first', 'second', 'score', 'scores', 'why'))
        return table.assign(scores=[json.loads(scores) for scores in table.scores])

    def close_calls(
        self,
        n: int = 50,  # Pairs to give
        scores: bool = False,  # Also a column `scores`: a dict of scores by modality
    ):  # DataFrame: first, second, score, matches, why
        """The pairs nearest to the threshold on which nobody said anything yet: those to show to a person
        first. Pairs below the threshold are known where the rule decides on each pair by itself."""
        with self._snapshot():
            threshold = self.record.setting('threshold')
            table = self._table(
                'select one.id, other.id, score, score >= ?1, reason, scores from edge '
                'join listing one on one.number = first join listing other on other.number = second '
                'where not exists (select 1 from verdict where withdrawn is null '
                'and verdict.first = min(one.id, other.id) and verdict.second = max(one.id, other.id)) '
                'and (stands = 0 or score < 2) order by abs(score - ?1), one.id, other.id limit ?2',
                (threshold, int(n)), ('first', 'second', 'score', 'matches', 'why', 'scores'))
        table = table.astype({'matches': bool})
        if not scores: return table.drop(columns='scores')
        return table.assign(scores=[json.loads(by_modality) for by_modality in table.scores])

    def why(
        self,
        first,  # Id of a listing
        second=None,  # Id of another one; None: what holds the first in its group
    ) -> Why:
        "Why two listings are in one group or in two, or why a listing is in its group."
        with self._snapshot():
            if second is None: return explain_alone(self, str(first))
            return explain_pair(self, str(first), str(second))

    def check(self) -> list:  # Sentences; empty where all is well
        "Whether the file is whole, and its groups are those that its pairs and verdicts make."
        faults = []
        with self._snapshot():
            said = self.record.execute('pragma integrity_check').fetchone()[0]
            if said != 'ok': faults.append(f'{self.file}: {said}')
            there = self.record.present()
            region = region_of(self.record, there, self.record.setting('threshold'))
            blocks, _ = joined(region.listings, region.pairs, region.apart, region.names)
            together = {*zip(blocks.tolist(), region.groups.tolist())}
            if not len(together) == len(np.unique(blocks)) == len(np.unique(region.groups)):
                faults.append(f'{self.file}: the groups are not those that pairs and verdicts make')
            if self.matcher is not None and sorted(self.index().numbers) != there.tolist():
                faults.append(f'{self.file}: the index holds other listings than the record')
        return faults

    def _table(self, statement, arguments, names):
        return pd.DataFrame(self.record.execute(statement, arguments).fetchall(), columns=list(names))


def _names(pictures):
    "The file names of a listing's pictures, as the record keeps them: json of one cell, or nothing."
    from ..data.pictures import picture_names
    return [] if pictures is None else picture_names(json.loads(pictures))


def _escaped(word):
    "A word as a pattern of SQLite's `like` that stands for itself."
    return ''.join(f'\\{letter}' if letter in '\\%_' else letter for letter in word)
