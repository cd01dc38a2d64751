"An encoder that keeps its embeddings in a file by the content of the listings, and embeds only what is new."
import hashlib
from pathlib import Path

import numpy as np

from ..models.feature_store import FeatureStore
from .encode import Encoder

HASH_BYTES = 8  # of a perceptual hash, kept behind the vectors as numbers from 0 to 255


class StoredEncoder(Encoder):
    """An encoder with a `FeatureStore`: listings whose title and picture are stored aren't embedded again.

    What is new in a call is stored all at once or, if the process is killed, not at all.
    """
    def __init__(
        self,
        encoder: Encoder,  # Of any runtime
        file,  # SQLite file of embeddings; made if it isn't there
    ):
        # not the parent's: the model is on its device already
        self.__dict__.update(encoder.__dict__)
        self.encoder = encoder
        self.file = Path(file)
        self.stores = {}

    @property
    def inputs(self) -> list[str]:
        "What a listing must have: 'image', 'title', or both."
        return self.encoder.inputs

    @property
    def widths(self) -> dict:
        "The length of each modality's embeddings."
        return self.encoder.widths

    @property
    def made_with(self) -> dict:
        "The settings that its embeddings are made with."
        return self.encoder.made_with

    def spec(self) -> dict:
        "What the encoder is built from."
        return self.encoder.spec()

    def embed(self, pictures=None, titles=None, bs=64, hashes=False, stop=False):
        "As `Encoder.embed`: each content is embedded once, and taken from the file where that has it."
        contents = _contents(pictures if 'image' in self.inputs else None,
                             titles if 'title' in self.inputs else None)
        store = self._store(hashes)
        found = store.get([*{content for content in contents if content is not None}])
        # a file that isn't there has no content: each such row is asked for, to get its reason
        first_rows = {}
        for row, content in enumerate(contents):
            if content not in found: first_rows.setdefault(row if content is None else content, row)
        rows = list(first_rows.values())
        new, reasons = self._embed_rows(rows, pictures, titles, (bs, hashes, stop)) if rows else ([], {})
        stored = {contents[row]: vector for row, vector in zip(rows, new)
                  if contents[row] is not None and np.isfinite(vector).all()}
        store.put(stored)
        found |= stored
        unreadable = {}
        packed = np.full((len(contents), store.n_out), np.nan, np.float32)
        for row, content in enumerate(contents):
            reason = reasons.get(first_rows.get(row if content is None else content))
            if reason is not None: unreadable[row] = reason
            if content in found: packed[row] = found[content]
        vectors, found_hashes = _unpacked(packed, self.widths, hashes)
        return vectors, unreadable, found_hashes

    def _embed_rows(self, rows, pictures, titles, options):
        "The packed vectors of some rows, and row -> why it can't be read."
        some = [None if given is None else [given[row] for row in rows] for given in (pictures, titles)]
        vectors, reasons, hashes = self.encoder.embed(*some, *options)
        return (_packed(vectors, self.widths, hashes),
                {rows[position]: reason for position, reason in reasons.items()})

    def _store(self, hashes):
        "The store, opened at the first call; with perceptual hashes it is another one."
        if hashes not in self.stores:
            probe = {modality: vectors[:1] for modality, vectors in self.encoder.embed_probe().items()}
            no_hash = np.array([None], object) if hashes else None
            settings = {**self.made_with, 'widths': self.widths, 'phash': hashes}
            self.stores[hashes] = FeatureStore(self.file, settings, _packed(probe, self.widths, no_hash)[0])
        return self.stores[hashes]


def _contents(pictures, titles):
    "What identifies each listing's content, sha256; None where its picture's file can't be read at all."
    parts = []
    if pictures is not None: parts.append([_picture_bytes(picture) for picture in pictures])
    if titles is not None: parts.append([str(title).encode() for title in titles])
    return [None if None in listing else _digest(listing) for listing in zip(*parts)]


def _digest(parts):
    # with their lengths: the same bytes cut elsewhere are another content
    return hashlib.sha256(b''.join(len(part).to_bytes(8, 'big') + part for part in parts)).digest()


def _picture_bytes(picture):
    "The bytes of a picture's file, or of one in memory with its shape; None where there are none."
    if picture is None: return None
    if isinstance(picture, (str, Path)):
        try: return Path(picture).read_bytes()
        # the encoder says what is wrong with it
        except OSError: return None
    pixels = np.asarray(picture)
    return f'{pixels.dtype} {pixels.shape} {getattr(picture, "mode", "")}'.encode() + pixels.tobytes()


def _packed(vectors, widths, hashes):
    "The vectors of all modalities side by side, and behind them the hash: a 1 and its bytes, or zeros."
    columns = [vectors[modality] for modality in widths]
    if hashes is not None:
        as_bytes = np.zeros((len(hashes), HASH_BYTES + 1), np.float32)
        for row, text in enumerate(hashes):
            if text is not None: as_bytes[row] = [1, *bytes.fromhex(text)]
        columns.append(as_bytes)
    return np.concatenate(columns, 1)


def _unpacked(packed, widths, with_hashes):
    "Modality -> vectors, and the hashes as text, None where there is none."
    ends = np.cumsum([0, *widths.values()])
    vectors = {modality: np.ascontiguousarray(packed[:, start:end])
               for modality, start, end in zip(widths, ends, ends[1:])}
    if not with_hashes: return vectors, None
    hashes = np.full(len(packed), None, object)
    for row, numbers in enumerate(packed[:, ends[-1]:]):
        if numbers[0] == 1: hashes[row] = bytes(numbers[1:].astype(np.uint8)).hex()
    return vectors, hashes
