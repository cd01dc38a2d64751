"Which listings match, written into the record: of those that come, of those left when some go, of all."
from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np

from ..match.spaces.keys import MAX_SHARED
from .index import NEAR, all_pairs, decides_pairwise, edge_rows, find_pairs, keys_of
from .record import CHUNK


@dataclass
class Loss:
    "Listings that went."
    groups: dict = field(default_factory=dict)  # Number of a listing -> the group that it was in
    touched: set = field(default_factory=set)  # Listings that matched them
    overused: dict = field(default_factory=dict)  # Modality -> keys of theirs that were on too many listings


class Finding:
    """The pairs of a catalogue while one event is written.

    A rule that decides on each pair by itself is carried out on new listings alone. Any other one is carried
    out on all listings each time, in the order of their ids: what it finds depends on no order in time.
    """
    def __init__(
        self,
        record,  # `Record`, inside a transaction
        matcher,  # `Matcher`
        index,  # `SearchIndex` of the listings that were there
        read_embeddings,  # Function of numbers of listings: their `Embeddings`
    ):
        self.record = record
        self.matcher = matcher
        self.index = index
        self.read_embeddings = read_embeddings
        self.pairwise = decides_pairwise(matcher.rule)

    def take_out(
        self,
        numbers,  # Of listings
        event: int,
    ) -> Loss:
        "Let listings go, with all pairs that they are in."
        numbers = [int(number) for number in numbers]
        if not numbers: return Loss()
        pairs = self.record.pairs_at(numbers, self.record.setting('threshold'))
        touched = {listing for first, second, _ in pairs for listing in (first, second)} - set(numbers)
        loss = Loss(self.record.groups_of(numbers), touched, self._overused_of(numbers))
        self.record.take_out(numbers, event)
        self.index.remove(np.array(numbers))
        return loss

    def come(
        self,
        numbers: np.ndarray,  # int64 (m,), of listings that are in the record and not in the index
        embeddings,  # Of the same
        loss: Loss,  # Of listings that went in the same event
    ) -> set:  # Numbers of listings
        "Find what new listings match; all listings that this may concern."
        for kind, keys in keys_of(embeddings, self.matcher.rule).items():
            self.record.add_keys(kind, keys, numbers)
        new = self.index.part_of(numbers, embeddings)
        if not self.pairwise:
            self.index.add(new)
            return {*numbers.tolist(), *self._run_all(), *loss.touched}
        crowded = np.array(sorted(self._newly_overused(numbers) - set(numbers.tolist())), np.int64)
        self._search(new, embeddings)
        self.index.add(new)
        return {*numbers.tolist(), *self._search_again(crowded), *self.left(loss)}

    def left(
        self,
        loss: Loss,  # What `take_out` gave
    ) -> set:  # Numbers of listings
        "What listings that went change among those that stay."
        if not self.pairwise: return self._run_all() | loss.touched
        freed = {listing for kind, keys in loss.overused.items() for key in keys
                 for listing in self._freed(kind, key)}
        again = np.array(sorted(freed), np.int64)
        return loss.touched | self._search_again(again) | self._moved_threshold()

    def all_anew(self) -> set:  # Numbers of listings
        "Find every pair anew."
        there = self.index.numbers
        self.record.execute('delete from key')
        for start in range(0, len(there), CHUNK):
            numbers = there[start:start + CHUNK]
            for kind, keys in keys_of(self.read_embeddings(numbers), self.matcher.rule).items():
                self.record.add_keys(kind, keys, numbers)
        if not self.pairwise: self._run_all()
        else:
            self.record.execute('delete from edge')
            rule, lower = self._rules()
            names = self.record.names_of(there)
            if len(there): self.record.add_edges(edge_rows(all_pairs(self.index, lower, names), rule, True))
            self.record.keep_setting('threshold', rule.threshold)
        return set(there.tolist())

    def matches(
        self,
        numbers: np.ndarray,  # int64 (m,), below 0, of listings that are not in the record
        embeddings,  # Of the same
        within: bool = True,  # Also among themselves; False: each as if it alone were added
    ):  # DataFrame, as `find_pairs` gives it
        "What listings match as if they were added, without writing anything."
        n_new = len(numbers) if within else 1
        rule = replace(self.matcher.rule.at(self.record.count() + n_new), pools=None)
        overused = self._overused(_distinct(keys_of(embeddings, rule)))
        return find_pairs(self.index, rule, self.index.part_of(numbers, embeddings), overused, within)

    def _rules(self):
        "The rule at the threshold for the number of listings, and the same with close calls."
        rule = replace(self.matcher.rule.at(max(1, self.record.count())), pools=None)
        return rule, replace(rule, threshold=rule.threshold - NEAR)

    def _search(self, new, embeddings):
        "Write what listings outside the index match."
        rule, lower = self._rules()
        overused = self._overused(_distinct(keys_of(embeddings, rule)))
        table = find_pairs(self.index, lower, new, overused)
        self.record.add_edges(edge_rows(table, rule, True))

    def _search_again(self, numbers):
        "Look listings of the index up anew, because a key of theirs joins others no more, or again."
        if not len(numbers): return set()
        pairs = self.record.pairs_at(numbers, None)
        for side in ('first', 'second'):
            self.record.rows(f'delete from edge where {side} in (select value from json_each(?))', numbers)
        embeddings = self.read_embeddings(numbers)
        self.index.remove(numbers)
        again = self.index.part_of(numbers, embeddings)
        self._search(again, embeddings)
        self.index.add(again)
        return {*numbers.tolist(), *(listing for first, second, _ in pairs for listing in (first, second))}

    def _run_all(self):
        "Carry the rule out on all listings; the listings whose pairs changed."
        # these pairs stand by themselves: the threshold is for those who ask
        self.record.keep_setting('threshold', self._rules()[0].threshold)
        old = {(first, second): (score, reason) for first, second, score, reason in self.record.execute(
            'select first, second, score, reason from edge')}
        rows = []
        if len(self.index):
            table = all_pairs(self.index, self.matcher.rule, self.record.names_of(self.index.numbers))
            rows = edge_rows(table, self.matcher.rule, False)
        new = {row[:2]: (row[2], row[4]) for row in rows}
        gone = [pair for pair in old if pair not in new]
        self.record.connection.executemany('delete from edge where first = ? and second = ?', gone)
        changed = [row for row in rows if old.get(row[:2]) != new[row[:2]]]
        self.record.add_edges(changed)
        return {listing for pair in [*gone, *(row[:2] for row in changed)] for listing in pair}

    def _moved_threshold(self):
        "The listings of pairs between the threshold so far and that for the number of listings now."
        before, now = self.record.setting('threshold'), self._rules()[0].threshold
        if before == now: return set()
        self.record.keep_setting('threshold', now)
        pairs = self.record.execute('select first, second from edge where stands = 0 and score >= ? and '
                                    'score < ?', (min(before, now), max(before, now)))
        return {listing for pair in pairs for listing in pair}

    # --- keys on so many listings that they join nothing

    def _overused(self, keys_by_kind):
        "Of some keys those on more than `MAX_SHARED` listings."
        return {kind: [content for content, count in self.record.rows(
            f"select content, count(*) from key where kind = '{kind}' and content in "
            '(select value from json_each(?)) group by content', sorted(keys)) if count > MAX_SHARED]
            for kind, keys in keys_by_kind.items()}

    def _overused_of(self, numbers):
        by_kind = defaultdict(set)
        for kind, content in self.record.rows('select distinct kind, content from key where listing in '
                                              '(select value from json_each(?))', numbers):
            by_kind[kind].add(content)
        return self._overused(by_kind)

    def _newly_overused(self, numbers):
        "The listings with a key that came to be on too many by listings that are new."
        own, listings = set(numbers.tolist()), set()
        for kind, keys in self._overused_of(numbers).items():
            for key in keys:
                holders = self._holders(kind, key)
                if len(holders - own) <= MAX_SHARED: listings |= holders
        return listings

    def _freed(self, kind, key):
        "The listings with a key that joins them again, none where it is still on too many."
        holders = self._holders(kind, key)
        return holders if len(holders) <= MAX_SHARED else set()

    def _holders(self, kind, key):
        rows = self.record.execute('select listing from key where kind = ? and content = ?', (kind, key))
        return {listing for listing, in rows}


def _distinct(keys_by_kind):
    return {kind: {part for key in keys if key is not None
                   for part in (key if isinstance(key, tuple) else (key,))}
            for kind, keys in keys_by_kind.items()}
