"A catalogue that lives: a file of listings in groups, which grows, shrinks and is corrected day by day."
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError, preview
from .finding import Finding
from .fingerprints import encoder_fingerprint, rule_fingerprint, vector_widths
from .index import SearchIndex, check_fits, decides_pairwise
from .reading import Reading
from .record import CHUNK, Record
from .saved import SavedIndex
from .schema import WAIT, connect, writing
from .settle import Changes, check_verdicts, settle
from .undo import came_with, check_undoable, revived_by, take_back_verdicts, went_with

ON_KNOWN = ('raise', 'skip', 'replace')


@dataclass
class Options:
    "What every event is told."
    who: str
    reason: str
    dry_run: bool


class Catalogue(Reading):
    """Listings in groups whose numbers stay: one SQLite file, which a matcher decides for.

    The file holds the listings, their vectors, the pairs that match with score and reason, what people said,
    and every event. A listing's group follows from pairs and verdicts alone, so that it does not matter in
    which order or in how many pieces listings came; see `regroup` for the rules of which this is not so.
    Without a matcher it can be read: `groups`, `group_of`, `history`, `why`, `events`. The search index of a
    large one is saved beside it, in the folder `FILE-index`, and may be deleted at any time.

    Any number of processes may have it open. One writes at a time: another waits, and is then refused by
    name. Raises `InputError` for a matcher that embeds in another way than the listings were (`reembed`), or
    that decides by another rule (`new_rule`).
    """
    def __init__(
        self,
        file,  # The catalogue's file, made by `create`
        matcher=None,  # `Matcher`: embeds listings and decides which match; None: for reading
        *,
        new_rule: bool = False,  # Take the matcher's rule although another one was used so far, and regroup
        wait: float = WAIT,  # Seconds to wait while another process writes
    ):
        self.file = Path(file)
        self.matcher = matcher
        self.record = Record(connect(file, wait=wait))
        self._index, self._seen = None, None
        self._saved = None
        if matcher is None: return
        try: self._check_matcher(new_rule)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        file,  # To write; must not be there
        matcher,  # `Matcher`: its encoder, its rule and its weights of n-grams are those of the catalogue
        *,
        wait: float = WAIT,  # Seconds to wait while another process writes
    ) -> 'Catalogue':
        "A new, empty catalogue. The listings that the matcher knows are not in it: add those that you want."
        connection = connect(file, create=True, wait=wait)
        record = Record(connection)
        try:
            with writing(connection, file):
                record.keep_setting('encoder', encoder_fingerprint(matcher))
                record.keep_setting('rule', rule_fingerprint(matcher))
                record.keep_setting('widths', vector_widths(matcher))
                record.keep_setting('threshold', matcher.rule.at(1).threshold)
        finally: connection.close()
        return cls(file, matcher, wait=wait)

    def __enter__(self): return self
    def __exit__(self, *_): self.close()

    def close(self):
        "Save the search index of a large catalogue beside it, and let go of the file."
        try: self._keep_index(at_the_end=True)
        finally:
            # gigabytes of a large catalogue, which whoever still holds this object needs no more
            self._index = None
            self.record.connection.close()

    def _check_matcher(self, new_rule):
        expected, found = self.record.setting('encoder'), encoder_fingerprint(self.matcher)
        if expected != found:
            raise InputError(
                f'{self.file}: its vectors were made by another encoder ({expected[:8]}) than that of '
                f'this matcher ({found[:8]}): similarities between both mean nothing. Open it with the '
                'matcher that made it, or embed all listings anew: '
                'fastmatch.catalogue.reembed(file, matcher, path)')
        if self.record.setting('rule') == rule_fingerprint(self.matcher): return
        if not new_rule:
            raise InputError(f'{self.file}: was grouped by another rule, or other weights of n-grams, than '
                             "this matcher's: open it with new_rule=True to group all listings anew, or with "
                             'the matcher that made it')
        self.regroup(reason='another rule')

    def _needed_matcher(self):
        if self.matcher is None:
            raise InputError(f'{self.file}: was opened without a matcher, for reading: give one, '
                             'Catalogue(file, matcher)')
        return self.matcher

    def remember(
        self,
        name: str,  # Of your own
        content,  # Anything that json takes
    ):
        "Keep a note in the file, such as where the matcher's folder is; it is no event."
        if self.remembered(name) == content: return
        with writing(self.record.connection, self.file): self.record.keep_setting(f'note {name}', content)

    # --- the index follows the record

    def index(self) -> SearchIndex:
        "The listings ready to be searched, brought up to date with what other processes wrote."
        with self._snapshot(): return self._brought_up_to_date()

    def _brought_up_to_date(self):
        self._needed_matcher()
        last = self.record.last_event()
        if self._index is not None and self._seen == last: return self._index
        index = self._read_index() if self._index is None else self._index
        self._index = None
        there = self.record.present()
        held = index.numbers
        index.remove(np.setdiff1d(held, there))
        missing = np.setdiff1d(there, held)
        for start in range(0, len(missing), CHUNK):
            numbers = missing[start:start + CHUNK]
            index.add(index.part_of(numbers, self._embeddings(numbers)))
        self._index, self._seen = index, last
        return index

    def _read_index(self):
        "The index as it was saved, or an empty one."
        made_by = [encoder_fingerprint(self.matcher), rule_fingerprint(self.matcher)]
        if self._saved is None or self._saved.made_by != made_by: self._saved = SavedIndex(self, made_by)
        index = self._saved.read()
        return SearchIndex(self.matcher) if index is None else index

    def _keep_index(self, at_the_end=False):
        if self._index is not None and self._saved is not None: self._saved.keep(self._index, at_the_end)

    def _embeddings(self, numbers, modalities=None):
        matcher = self.matcher
        needed = matcher.rule.reads if modalities is None else modalities
        fields = {name: field for name, field in matcher.columns.fields.items() if name in needed}
        widths = {modality: width for modality, width in self.record.setting('widths').items()
                  if modality in needed}
        return self.record.embeddings(numbers, self.record.setting('encoder'), widths, fields,
                                      matcher.catalogue.made_with)

    @contextmanager
    def _event(self, kind, options, detail, needs_matcher=True, prepare=None):
        "An event that is written whole or not at all; an index that may have run ahead is made again."
        if needs_matcher: self._needed_matcher()
        with writing(self.record.connection, self.file, options.dry_run):
            if prepare is not None: prepare()
            # here, where nobody else can write; what people say needs no index, and does not change it
            index = self.index() if needs_matcher or self._index is not None else None
            self._index = None
            event = self.record.add_event(kind, options.who, options.reason, detail)
            finding = None if index is None else Finding(self.record, self.matcher, index, self._embeddings)
            yield event, finding
        if options.dry_run or index is None: return
        self._index, self._seen = index, event
        self._keep_index()

    def match(
        self,
        listings,  # DataFrame with the matcher's columns, or `Embeddings`; they are not added
        path='.',  # Folder of the images
        *,
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
        bs: int = 64,  # Listings a batch of the encoder
        within: bool = True,  # Also match the listings among themselves; False: each as if it came alone
    ):  # DataFrame: posting_id, match, group (missing for another new listing), score, by modality, why
        "What listings match in the catalogue and among themselves, the best first; nothing is written."
        from .adding import embedded, matches_of
        if not within and not decides_pairwise(self._needed_matcher().rule) and len(listings) > 1:
            raise InputError('within=False: a step of the rule looks at all listings together: match one by '
                             'one')
        embeddings, _, _ = embedded(self, listings, path, bs, on_error)
        check_fits(embeddings, self.record.setting('widths'))
        with self._snapshot(): return matches_of(self, embeddings, within)

    # --- what changes it

    def add(
        self,
        listings,  # DataFrame with the matcher's columns, or `Embeddings`
        path='.',  # Folder of the images
        *,
        on_known: str = 'raise',  # Ids that are there: 'raise', 'skip' (leave as they are), 'replace'
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
        bs: int = 64,  # Listings a batch of the encoder
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
        pictures: dict | None = None,  # Id -> its picture files, where `listings` are `Embeddings`
    ) -> Changes:
        """Add listings: each joins a group, opens a new one, or brings groups together, of which the oldest
        keeps its number. All of them or, where an error is raised, none."""
        if on_known not in ON_KNOWN:
            raise InputError(f'on_known={on_known!r}: choose one of {", ".join(ON_KNOWN)}')
        from .adding import embedded, without_known
        listings, known = without_known(self, listings, on_known)
        if not len(listings): return self._nothing('add', known)
        embeddings, names, skipped = embedded(self, listings, path, bs, on_error)
        if pictures is not None: names = [pictures.get(listing) for listing in embeddings.ids]
        check_fits(embeddings, self.record.setting('widths'))
        options = Options(who, reason, dry_run)
        with self._event('add', options, {'listings': len(embeddings)}) as (event, finding):
            # of an empty catalogue there is nothing that it could move
            threshold = self.record.setting('threshold') if self.record.count() else None
            there = self.record.numbers_of(embeddings.ids, '')
            if there and on_known != 'replace':
                raise InputError(f'in the catalogue already: {preview(there)}; give on_known="skip" or '
                                 '"replace"')
            loss = finding.take_out(there.values(), event)
            numbers = self.record.add_listings(embeddings, names, self.record.setting('encoder'), event)
            touched = finding.come(numbers, embeddings, loss)
            # a listing that is replaced keeps its group's number, also where it was alone in it
            groups_by_id = {listing: loss.groups[number] for listing, number in there.items()}
            kept = {number: groups_by_id[listing] for number, listing in zip(numbers.tolist(), embeddings.ids)
                    if listing in groups_by_id}
            changes = self._settle(event, touched, loss.groups, kept, threshold)
        return self._told(changes, 'add', dry_run, skipped, known)

    def remove(
        self,
        ids,  # One id or several
        *,
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
    ) -> Changes:
        "Take listings out; a group that only they held together falls apart."
        ids = [ids] if np.ndim(ids) == 0 else list(ids)
        with self._event('remove', Options(who, reason, dry_run), {'listings': len(ids)}) as (event, finding):
            threshold = self.record.setting('threshold')
            loss = finding.take_out(self.record.numbers_of(ids).values(), event)
            changes = self._settle(event, finding.left(loss), loss.groups, before=threshold)
        return self._told(changes, 'remove', dry_run)

    def verdict(
        self,
        first,  # Id of a listing
        second,  # Id of another one
        same: bool,  # Whether a person says that both are the same product
        *,
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
    ) -> Changes:
        "Keep what a person says of two listings: every later grouping obeys it."
        return self.verdicts_in([(first, second, same)], who=who, reason=reason, dry_run=dry_run)

    def verdicts_in(
        self,
        verdicts,  # Rows (id, other id, same), or a DataFrame with the columns first, second, same
        *,
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
        kind: str = 'verdict',  # What the record calls it
    ) -> Changes:
        "Keep what people say of several pairs, as one event; raises `InputError` where they contradict."
        if hasattr(verdicts, 'columns'):
            verdicts = zip(verdicts['first'], verdicts['second'], verdicts['same'])
        rows = [(str(first), str(second), bool(same)) for first, second, same in verdicts]
        own = [first for first, second, _ in rows if first == second]
        if own: raise InputError(f'{preview(own)}: a verdict on a listing and itself')
        options = Options(who, reason, dry_run)
        with self._event(kind, options, {'pairs': len(rows)}, needs_matcher=False) as (event, _):
            ids = [listing for first, second, _ in rows for listing in (first, second)]
            touched = set(self.record.numbers_of(ids).values())
            self.record.add_verdicts(event, rows)
            check_verdicts(self.record, ids)
            changes = self._settle(event, touched)
        return self._told(changes, kind, dry_run)

    def split(
        self,
        group: int,  # Number of a group
        ids,  # Those of its listings that are another product than the rest
        *,
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
    ) -> Changes:
        "Part listings from a group: 'not the same' for each of them and each of the rest, kept as verdicts."
        leaving = {str(listing) for listing in ([ids] if np.ndim(ids) == 0 else ids)}
        members = set(self.members(group))
        strangers = leaving - members
        if strangers: raise InputError(f'group {group}: has no {preview(sorted(strangers))}')
        if not leaving or leaving == members:
            raise InputError(f'group {group}: name some of its {len(members)} listings, and not all')
        pairs = [(first, second, False) for first in sorted(leaving) for second in sorted(members - leaving)]
        return self.verdicts_in(pairs, who=who, reason=reason, dry_run=dry_run, kind='split')

    def undo(
        self,
        event: int,  # Number of an event: 'add', 'remove', 'verdict', 'split' or 'undo'
        *,
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
    ) -> Changes:
        """Take an event back: what came goes, what went comes back, what was said counts no more. Later
        events stay; groups get their numbers back as far as these are free."""
        with self._event('undo', Options(who, reason, dry_run), {'event': int(event)}) as (number, finding):
            check_undoable(self.record, event)
            loss = finding.take_out(came_with(self.record, event), number)
            touched = take_back_verdicts(self.record, event, number)
            back = went_with(self.record, event)
            if len(back): touched |= finding.come(back, self._embeddings(back), loss)
            else: touched |= finding.left(loss)
            changes = self._settle(number, touched, loss.groups, revived_by(self.record, event))
        return self._told(changes, 'undo', dry_run)

    def regroup(
        self,
        *,
        who: str = '',  # Who does it, for the record
        reason: str = '',  # Why, for the record
        dry_run: bool = False,  # Say what would change, and keep nothing
    ) -> Changes:
        """Find all pairs anew, as if all listings had come at once; verdicts and numbers of groups stay.

        A rule that decides on each pair by itself (`pairwise`) gives the same pairs anyhow, but for listings
        with more neighbors than the rule looks at. Any other rule is carried out on all listings with every
        event, because a new listing may change what the earlier ones match.
        """
        with self._event('regroup', Options(who, reason, dry_run), {}) as (event, finding):
            self.record.keep_setting('rule', rule_fingerprint(self.matcher))
            changes = self._settle(event, finding.all_anew())
        return self._told(changes, 'regroup', dry_run)

    def _settle(self, event, touched, taken_out=None, revived=None, before=None):
        "The changes of an event; `before` is the threshold that counted until then: where it moved is told."
        now = self.record.setting('threshold')
        changes = settle(self.record, event, touched, now, taken_out, revived)
        return changes if before in (None, now) else replace(changes, threshold=(before, now))

    # --- what comes back

    def _told(self, changes, kind, dry_run, skipped=None, known=()):
        event = None if dry_run else changes.event
        return replace(changes, event=event, kind=kind, skipped=skipped, known=list(known))

    def _nothing(self, kind, known):
        frame = pd.DataFrame({'posting_id': [], 'before': pd.array([], 'Int64'),
                              'after': pd.array([], 'Int64')})
        return Changes(None, kind, frame, known=known)

