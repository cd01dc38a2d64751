"""The search index of a large catalogue, saved beside its file, so that it need not be made anew when opened.

The record stays what counts. The folder holds vectors of listings by number, and what a number stands for
never changes; which of them are there, and which came since, is read from the record. The folder carries a
mark that the record knows, so that an index of another file, or of another past of this one, is not taken.
"""
import json
import shutil
import warnings
from pathlib import Path
from uuid import uuid4

import numpy as np

from ..core import InputError
from ..match import Dense, Index, Tfidf
from ..store import read_sealed, write_state
from .index import Part, SearchIndex
from .schema import is_writable, writing

FORMAT = 1  # raised with every change that older code can't read
MANIFEST = 'index.json'
SAVED_FROM = 5_000  # listings; an index of fewer is made in a second
GROWTH = 20_000  # so many more than were saved are saved while the catalogue is open,
GROWTH_SHARE = .5  # where they are such a share of those that were saved
MARKS = 3  # how many of the last marks the record keeps: a kill may come before the folder has the new one
SETTING = 'index'  # under which the record keeps them
READ_ATTEMPTS = 3  # how often an index is read that somebody replaces meanwhile
SEARCHED_OFTEN = 20_000  # a part of so many listings is saved by n-gram too, as searches read it


def folder_of(
    file,  # Of a catalogue
) -> Path:
    "Where its search index is saved."
    return Path(f'{file}-index')


class SavedIndex:
    "The saved search index of an open catalogue, and what of it is on the disk."
    def __init__(
        self,
        catalogue,  # `Catalogue`
        made_by: list,  # Fingerprints of the encoder and the rule: another index is not taken
    ):
        self.catalogue = catalogue
        self.folder = folder_of(catalogue.file)
        self.made_by = made_by
        self.count = 0  # Listings that were saved last

    def read(self) -> SearchIndex | None:  # None where there is none to be taken
        """The index as it was saved; listings that went or came since are still in it, or not yet. One that
        is damaged or of something else is told as a warning."""
        manifest = self.folder/MANIFEST
        for _ in range(READ_ATTEMPTS):
            if not manifest.is_file(): return None
            before = manifest.read_bytes()
            try: return self._read()
            # a library's errors for files that are whole and don't fit together
            except (InputError, OSError, ValueError, KeyError, RuntimeError) as error: problem = error
            # somebody else saved one meanwhile, and deleted what this one was made of
            if manifest.is_file() and manifest.read_bytes() == before: break
        warnings.warn(f'{self.folder}: {problem}; the index is made anew from {self.catalogue.file}',
                      stacklevel=2)
        return None

    def _read(self):
        content, files = read_sealed(self.folder, MANIFEST, FORMAT)
        if content['mark'] not in (self.catalogue.record.setting(SETTING) or []):
            raise InputError('is not of this file as it is now')
        if content['made_by'] != self.made_by:
            raise InputError('was made by another encoder or another rule')
        index = SearchIndex(self.catalogue.matcher)
        added = json.loads(files['added.json'])
        for name, ngrams in added.items():
            like = index.like[name]
            index.like[name] = _tfidf(like, like.vectors[:0], tuple(ngrams))
        for name in content['parts']: index.parts.append(self._read_part(name, index))
        self.count = len(index)
        return index

    def _read_part(self, name, index):
        content, _ = read_sealed(self.folder/name, MANIFEST, FORMAT, wanted=lambda file: False)
        folder = self.folder/name/content['folder']
        arrays = {key: _mapped(folder/key, *array) for key, array in content['arrays'].items()}
        numbers, spaces = np.array(arrays['numbers']), {}
        for modality in content['indexes']:
            saved = Index.load(self.folder/name/modality)
            is_plain = saved.requested_kind == 'exact'
            spaces[modality] = Dense(saved.vectors, modality, normalized=True) if is_plain else saved
        for modality, width in content['ngrams'].items():
            like = index.like[modality]
            own = {key.removeprefix(f'{modality}/'): array for key, array in arrays.items()
                   if key.startswith(f'{modality}/')}
            spaces[modality] = _tfidf(like, _rows(own, 'by_title', (len(numbers), width)), like.added)
            if 'by_ngram/data' in own:
                spaces[modality].searched_by(_rows(own, 'by_ngram', (width, len(numbers))))
        others = [each for each in index.matcher.rule.reads if each not in spaces]
        if others:
            from ..matcher.known import make_spaces
            embeddings = self.catalogue._embeddings(numbers, others)
            spaces |= make_spaces(embeddings, others, like=index.like)
        if any(len(space) != len(numbers) for space in spaces.values()):
            raise InputError(f'{name}: its parts are not of the same listings')
        return Part(numbers, {modality: spaces[modality] for modality in index.matcher.rule.reads}, name)

    def keep(
        self,
        index: SearchIndex,  # Of the record as it is
        at_the_end: bool,  # The catalogue is being closed: also save a few
    ):
        """Save what changed, where there is enough of it. The catalogue's events are safe without it: that
        the disk is full or somebody else is writing is told as a warning."""
        grown = len(index) - self.count
        is_changed = not all(part.saved_as for part in index.parts) or len(index) != self.count
        is_enough = grown >= max(GROWTH, GROWTH_SHARE * self.count) or (at_the_end and is_changed)
        if len(index) < SAVED_FROM or not is_enough or not is_writable(self.catalogue.file): return
        try: self._save(index)
        except (InputError, OSError) as error:
            warnings.warn(f'{self.folder}: the index was not saved, and is made anew when it is needed: '
                          f'{error}', stacklevel=2)

    def _save(self, index):
        record, file = self.catalogue.record, self.catalogue.file
        mark = uuid4().hex
        # first the record knows the mark, then the folder has it
        with writing(record.connection, file):
            record.keep_setting(SETTING, [*(record.setting(SETTING) or []), mark][-MARKS:])
        with writing(record.connection, file):
            content = {'format': FORMAT, 'mark': mark, 'made_by': self.made_by, 'parts': []}
            if not (self.folder/MANIFEST).is_file():
                write_state(self.folder, MANIFEST, content, {'added.json': b'{}'})
            for part in index.parts:
                # somebody else may have saved another index there meanwhile
                is_there = part.saved_as and (self.folder/part.saved_as/MANIFEST).is_file()
                if not is_there: part.saved_as = self._write_part(part)
            content['parts'] = [part.saved_as for part in index.parts]
            added = {name: space.added for name, space in index.like.items() if type(space) is Tfidf}
            write_state(self.folder, MANIFEST, content, {'added.json': json.dumps(added).encode()})
            self.count = len(index)
            for entry in self.folder.glob('part-*'):
                if entry.name not in content['parts']: shutil.rmtree(entry, ignore_errors=True)

    def _write_part(self, part):
        name = f'part-{uuid4().hex[:12]}'
        arrays = {'numbers': part.numbers}
        ngrams, indexes = {}, []
        for modality, space in part.spaces.items():
            if type(space) is Tfidf:
                ngrams[modality] = space.vectors.shape[1]
                kept = {'by_title': space.vectors}
                if len(part) >= SEARCHED_OFTEN: kept['by_ngram'] = space.by_ngram()
                arrays |= {f'{modality}/{way}/{key}': getattr(matrix, key) for way, matrix in kept.items()
                           for key in ('data', 'indices', 'indptr')}
            elif isinstance(space, Dense): indexes.append(modality)
        content = {'format': FORMAT, 'ngrams': ngrams, 'indexes': indexes,
                   'arrays': {key: [array.dtype.str, array.shape] for key, array in arrays.items()}}
        write_state(self.folder/name, MANIFEST, content,
                    {key: _bytes(array) for key, array in arrays.items()})
        for modality in indexes:
            space = part.spaces[modality]
            if type(space) is Dense: space = Index(space.vectors, modality, 'exact', normalized=True)
            space.save(self.folder/name/modality)
        return name


def _bytes(array):
    "An array as bytes, not copied where it is large."
    array = np.ascontiguousarray(array)
    return memoryview(array).cast('B') if array.size else b''


def _mapped(file, dtype, shape):
    "An array that lies on the disk, and in memory as far as it is read. Writing to it changes no file."
    return np.memmap(file, dtype, 'c', shape=tuple(shape)) if np.prod(shape) else np.empty(shape, dtype)


def _rows(arrays, way, shape):
    "A sparse matrix of arrays that were checked when they were made, without looking at each number again."
    from scipy.sparse import csr_matrix
    data, indices, starts = (arrays[f'{way}/{key}'] for key in ('data', 'indices', 'indptr'))
    if len(starts) != shape[0] + 1 or starts[-1] != len(data): raise InputError(f'{way}: is not whole')
    matrix = csr_matrix((data, indices, starts), shape)
    matrix.has_sorted_indices = True
    return matrix


def _tfidf(like, vectors, added):
    return Tfidf(None, vectorizer=like.vectorizer, vectors=vectors, added=added,
                 missing_is_unknown=like.missing_is_unknown)
