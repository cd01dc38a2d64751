"""What a service does, without HTTP: an encoder in one thread, the catalogue with its index in another one,
and readers of the catalogue's file in several.

Requests that come together are embedded together and looked up together. The thread of the index is the one
writer: searches and changes take turns in it, and nothing else writes. Readers never wait for it.
"""
import asyncio
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..catalogue import Catalogue
from ..core import InputError, preview
from ..data.read import text_columns_of
from ..match import Embeddings
from ..match.embeddings import SOURCE
from ..match.words import rule_in_words
from .batching import Batcher
from .metrics import Metrics
from .settings import Settings
from .uploads import Refused, Upload, drop, keep

READERS = 4  # threads that read the catalogue's file, each through a connection of its own


@dataclass
class Listing:
    "A listing that came in a request."
    id: str | None = None  # None: it is matched and not added
    title: str | None = None
    uploads: list[Upload] = field(default_factory=list)
    cells: dict = field(default_factory=dict)  # Further columns by name


@dataclass
class Part:
    "The listings of one request among those that were embedded together."
    whole: Embeddings
    rows: np.ndarray  # int (m,), in the order of the request

    def own(self) -> Embeddings:
        "Its listings alone."
        return self.whole.take(self.rows)


class Service:
    "A matcher and, where there is one, its catalogue, asked by any number of requests at once."
    def __init__(
        self,
        matcher,  # `Matcher`
        catalogue=None,  # File of a catalogue; None: only `match`, among the listings that the matcher knows
        settings: Settings | None = None,  # Default: on a loopback address, with the limits as they are
    ):
        self.matcher = matcher
        self.settings = settings or Settings()
        self.limits = self.settings.limits
        self.file = catalogue
        self.metrics = Metrics()
        self.index_thread = ThreadPoolExecutor(1, 'index')
        self.encoder_thread = ThreadPoolExecutor(1, 'encoder')
        self.reader_threads = ThreadPoolExecutor(READERS, 'reader')
        self.catalogue, self.readers = None, queue.LifoQueue()
        self._titles = None
        # a rule whose steps look at all listings together is carried out for each new one by itself
        self.together = _decides_pairwise(matcher.rule)
        if catalogue is not None: self._open(catalogue)
        self.embedding = self._batcher(self._embed, self.encoder_thread, self.metrics.embedded)
        self.searching = self._batcher(self._search, self.index_thread, self.metrics.searched)

    def _open(self, file):
        self.catalogue = Catalogue(file, self.matcher, wait=self.limits.write_seconds)
        for _ in range(READERS): self.readers.put(Catalogue(file))
        # what the first request would wait for
        self.index_thread.submit(self.catalogue.index).result()

    def _batcher(self, work, thread, observe):
        return Batcher(work, thread, self.limits.batch, self.limits.waiting, observe)

    async def close(self):
        "Let go of threads and files; a change that has begun is finished."
        for batcher in (self.embedding, self.searching): await batcher.close()
        for thread in (self.encoder_thread, self.index_thread, self.reader_threads):
            await asyncio.to_thread(thread.shutdown, True, cancel_futures=True)
        if self.catalogue is not None: self.catalogue.close()
        while not self.readers.empty(): self.readers.get().close()

    # --- asked by requests

    async def match(
        self,
        listings: list[Listing],
    ) -> list[tuple]:  # (rows of a DataFrame as dicts, the threshold) for each listing
        "What each listing matches, whatever other requests ask at the same time."
        part = await self.embed(listings)
        return await self.searching.ask(part, len(listings))

    async def embed(
        self,
        listings: list[Listing],
    ) -> Part:
        "Listings embedded, together with those of other requests."
        self._check(listings)
        return await self.embedding.ask(listings, len(listings))

    async def add(
        self,
        listings: list[Listing],
        **options,  # Of `Catalogue.add`
    ):  # `Changes`
        "Add listings to the catalogue, and keep their pictures; all or none."
        self._needs_catalogue()
        uploads = [upload for listing in listings for upload in listing.uploads]
        if uploads and self.settings.images is None: keep(uploads, None)
        ids = [listing.id for listing in listings]
        if len(set(ids)) < len(ids): raise Refused(422, 'ids given twice')
        if options.get('on_known') == 'raise': await self.read(_refuse_known, ids)
        embeddings = (await self.embed(listings)).own()
        embeddings = Embeddings(embeddings, ids, embeddings.titles, phash=embeddings.phash)
        pictures = {listing.id: [upload.name for upload in listing.uploads] or None for listing in listings}

        def carry_out(catalogue):
            new_files = [] if options.get('dry_run') else keep(uploads, self.settings.images)
            try: return catalogue.add(embeddings, pictures=pictures, **options)
            except BaseException:
                drop(new_files)
                raise
        return await self.write(carry_out)

    async def write(
        self,
        change,  # Function of the `Catalogue`
    ):
        "Change the catalogue, in the thread of the one writer."
        self._needs_catalogue()
        return await _called(self.index_thread, change, self.catalogue)

    async def read(
        self,
        question,  # Function of a `Catalogue` without a matcher, and of `arguments`
        *arguments,
    ):
        "Ask the catalogue's file, beside other readers and whatever is written."
        self._needs_catalogue()
        return await _called(self.reader_threads, self._ask, question, arguments)

    async def needs(
        self,
        ids: list[str],
    ):
        "Raise `Refused` where one of some listings is not in the catalogue."
        known = set(await self.read(lambda reader: reader.known(ids)))
        missing = [listing for listing in ids if listing not in known]
        if missing: raise Refused(404, f'not in the catalogue: {preview(missing)}')

    def _ask(self, question, arguments):
        reader = self.readers.get()
        try: return question(reader, *arguments)
        finally: self.readers.put(reader)

    def _needs_catalogue(self):
        if self.catalogue is None:
            raise Refused(404, 'the service was started without --catalogue: it only matches')

    def about(self) -> dict:
        "What the matcher is, in words and figures."
        return {'inputs': self.matcher.inputs, 'columns': self.further_columns,
                'keeps_pictures': self.settings.images is not None, 'rule': rule_in_words(self.matcher.rule)}

    @property
    def further_columns(self) -> list[str]:
        "The columns beside id, title and picture that a listing may have."
        columns, rule = self.matcher.columns, self.matcher.rule
        names = text_columns_of(columns)[1:]
        names += [named.column for name, named in columns.fields.items() if name in rule.reads]
        return names + [columns.source] * (SOURCE in rule.reads)

    # --- in the thread of the encoder

    def _check(self, listings):
        further = set(self.further_columns)
        for place, listing in enumerate(listings):
            which = f'listing {place}' if len(listings) > 1 else 'the listing'
            unknown = sorted(set(listing.cells) - further)
            if unknown:
                raise Refused(422, f'{which}: no column {preview(unknown)} is read; those that are: '
                                   f'{", ".join(sorted(further)) or "none"}')
            if 'image' in self.matcher.inputs and not listing.uploads:
                raise Refused(422, f'{which} has no picture, and the matcher compares pictures')
            if 'title' in self.matcher.inputs and not (listing.title or '').strip():
                raise Refused(422, f'{which} has no title, and the matcher compares titles')

    def _row(self, listing, name):
        columns = self.matcher.columns
        row = {columns.id: name, **{column: None for column in self.further_columns}, **listing.cells}
        texts = text_columns_of(columns)
        if texts: row[texts[0]] = listing.title
        if columns.image is not None and 'image' in self.matcher.inputs:
            row[columns.image] = [upload.opened() for upload in listing.uploads]
        return row

    def _embed(self, requests):
        "Embed the listings of several requests; for each a `Part`, or what is wrong with it."
        rows = [self._row(listing, f'new-{place}-{number}') for place, listings in enumerate(requests)
                for number, listing in enumerate(listings)]
        table = pd.DataFrame(rows)
        try: embeddings, skipped = self.matcher.embed(table, self.settings.images or '.', self.limits.batch,
                                                      on_error='skip')
        except InputError as error:
            if len(requests) == 1: return [error]
            return [self._embed([listings])[0] for listings in requests]
        kept = {name: row for row, name in enumerate(embeddings.ids)}
        faults = {row.id: f'{row.column}: {row.reason}' for row in skipped.itertuples()}
        return [_part(embeddings, kept, faults, place, len(listings))
                for place, listings in enumerate(requests)]

    # --- in the thread of the index

    def _search(self, parts):
        "Look the listings of several requests up; for each request a list of (matches, threshold)."
        answers = {}
        for whole in {id(part.whole): part.whole for part in parts}.values():
            asked = [place for place, part in enumerate(parts) if part.whole is whole]
            rows = np.concatenate([parts[place].rows for place in asked])
            found = self._found(whole.take(rows))
            answers |= {place: [found[name] for name in whole.ids[parts[place].rows]] for place in asked}
        return [answers[place] for place in range(len(parts))]

    def _found(self, embeddings):
        "Name of a new listing -> (its matches, the threshold)."
        pieces = [embeddings] if self.together else [embeddings.take([row]) for row in range(len(embeddings))]
        found = {}
        for piece in pieces:
            table, shown, threshold = self._matched(piece)
            by_listing = {name: rows.drop(columns='posting_id')
                          for name, rows in table.groupby('posting_id', sort=False)}
            found |= {name: (_matches(by_listing[name], shown) if name in by_listing else [], threshold)
                      for name in piece.ids}
        return found

    def _matched(self, embeddings):
        "A row a match; what is shown of the listings that match; the threshold."
        # one alone has no others to be kept from, and a rule with neighbors of neighbors looks among all
        within = len(embeddings) == 1
        if self.catalogue is not None:
            table = self.catalogue.match(embeddings, within=within)
            shown = self.catalogue.listings(table['match'].unique()).to_dict('records')
            threshold = self.matcher.rule.at(len(self.catalogue) + 1).threshold
            return table.drop(columns='group'), {row['posting_id']: row for row in shown}, threshold
        result = self.matcher.match(embeddings, within=within)
        table, titles = result.pairs().drop(columns='where'), self._known_titles()
        shown = {name: {'posting_id': name, 'title': titles.get(name), 'pictures': None, 'group': None}
                 for name in table['match'].unique()}
        return table, shown, result.rule.threshold

    def _known_titles(self):
        if self._titles is None:
            titles = self.matcher.titles
            self._titles = {} if titles is None else dict(zip(self.matcher.ids, titles))
        return self._titles


def _part(embeddings, kept, faults, place, n_listings):
    names = [f'new-{place}-{number}' for number in range(n_listings)]
    said = [f'listing {number}, {faults[name]}' for number, name in enumerate(names) if name in faults]
    if said: return Refused(422, preview(said))
    return Part(embeddings, np.array([kept[name] for name in names], np.int64))


def _matches(table, shown):
    "The matches of one listing as dicts: listing, score, scores by modality, why."
    modalities = [name for name in table if name not in ('match', 'score', 'why')]
    return [{'listing': shown[row['match']], 'score': row['score'], 'why': row['why'],
             'scores': {name: float(row[name]) for name in modalities if np.isfinite(row[name])}}
            for row in table.to_dict('records')]


def _refuse_known(reader, ids):
    there = reader.known(ids)
    if there:
        raise Refused(409, f'in the catalogue already: {preview(there)}; give on_known "skip" or "replace"')


def _decides_pairwise(rule):
    from ..catalogue.index import decides_pairwise
    return decides_pairwise(rule)


async def _called(thread, function, *arguments):
    return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)
