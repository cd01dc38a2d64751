"Several encoders as one: their unit vectors side by side, so that a cosine is the weighted mean of theirs."
from functools import partial
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..core import InputError
from .batches import batches_by_length
from .encode import Encoder
from .read_ahead import read_ahead
from .read_picture import read_picture

JOINS = 'concatenate', 'mean'  # side by side, or one mean vector


class SharedReading(NamedTuple):
    "A picture that was read once for several encoders, or why it can't be."
    images: list | None  # Of each encoder: uint8 (h,w,3) of its own size; None for one that reads no pictures
    phash: str | None  # Its perceptual hash, where asked for
    reason: str | None  # Why it can't be read; None where it was


def joined_vectors(
    vectors: list,  # Of each encoder: modality -> float (n,d)
    weights: np.ndarray | None = None,  # float (k,), 0 or more; default equal
    how: str = 'concatenate',  # One of `JOINS`
) -> dict:  # Modality -> float32 (n,D), rows of unit length; NaN where an encoder's row is
    """The vectors of several encoders as one by modality, each encoder's scaled to unit length first.

    'concatenate': the vectors, times the root of their share of the weights, side by side. The cosine of two
    such rows is the weighted mean of the encoders' cosines. 'mean': the weighted mean of the vectors, scaled
    to unit length; for encoders of one and the same space, such as runs from one set of pretrained weights.
    A modality that only some encoders have is made of these alone. Raises `InputError` for a mean of vectors
    of different length.
    """
    if how not in JOINS: raise InputError(f'how={how!r}: choose one of {JOINS}')
    weights = checked_weights(weights, len(vectors))
    modalities = list(dict.fromkeys(modality for of_encoder in vectors for modality in of_encoder))
    joined = {}
    for modality in modalities:
        having = [number for number, of_encoder in enumerate(vectors)
                  if modality in of_encoder and weights[number] > 0]
        if not having: raise InputError(f'weights={weights.tolist()}: no encoder of {modality} is left')
        shares = weights[having] / weights[having].sum()
        units = [_unit(vectors[number][modality]) for number in having]
        if how == 'concatenate':
            parts = [np.sqrt(share) * unit for share, unit in zip(shares, units)]
            joined[modality] = _unit(np.concatenate(parts, 1)).astype(np.float32)
        else:
            widths = [unit.shape[1] for unit in units]
            if len(set(widths)) > 1:
                raise InputError(f"how='mean': {modality} vectors of different length {widths}; take "
                                 "'concatenate'")
            mean = sum(share * unit for share, unit in zip(shares, units))
            joined[modality] = _unit(mean).astype(np.float32)
    return joined


def _unit(vectors):
    "Rows scaled to unit length, in float64; a row of zeros stays."
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def checked_weights(
    weights,  # Numbers, 0 or more, one above 0; None: equal
    n: int,  # How many there have to be
) -> np.ndarray:  # float64 (n,), their sum is 1
    "Weights as shares; raises `InputError` for what can't be any."
    shares = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (n,) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise InputError(f'weights={np.asarray(weights).tolist()}: {n} numbers, 0 or more, one above 0')
    return shares / shares.sum()


def joined_settings(
    settings: list,  # Of each encoder: `made_with`
    weights=None,  # As for `joined_vectors`
    how: str = 'concatenate',  # As for `joined_vectors`
) -> dict:
    """`made_with` of the vectors of several encoders: a setting that all share as it is, of others a list
    with each encoder's (None where it has none), how many encoders there are, and their shares."""
    joined = {}
    for name in dict.fromkeys(name for of_encoder in settings for name in of_encoder):
        values = [of_encoder.get(name) for of_encoder in settings]
        having = [value for value in values if value is not None]
        joined[name] = having[0] if all(value == having[0] for value in having) else values
    shares = checked_weights(weights, len(settings))
    joined |= {'encoders': len(settings), 'weights': [round(float(share), 6) for share in shares]}
    return joined if how == 'concatenate' else {**joined, 'join': how}


class SeveralEncoders:
    """Several `Encoder`s where a matcher wants one, for example those of a model's folds.

    Each picture is read once, and resized as each encoder needs it. The vectors are joined by modality as
    `joined_vectors` says; the encoders needn't read the same inputs or give vectors of one length.
    """
    picture_store = None  # as of an `Encoder`

    def __init__(
        self,
        encoders,  # `Encoder`s, two or more, all on one device
        weights=None,  # Share of each encoder in the similarity, 0 or more; default equal
        how: str = 'concatenate',  # 'concatenate', or 'mean' for encoders of one and the same space
    ):
        self.encoders = list(encoders)
        if len(self.encoders) < 2:
            raise InputError(f'encoders: {len(self.encoders)} given, for one take the Encoder itself')
        wrong = [type(encoder).__name__ for encoder in self.encoders if not isinstance(encoder, Encoder)]
        if wrong: raise InputError(f'encoders: {wrong[0]} given, each must be an Encoder')
        self.weights = checked_weights(weights, len(self.encoders))
        self.how = how
        # refuses a `how` that there isn't, and vectors that don't fit together
        self.widths = {modality: vectors.shape[1] for modality, vectors in self._joined(
            [{modality: np.eye(1, width) for modality, width in encoder.widths.items()}
             for encoder in self.encoders]).items()}

    def __repr__(self): return f'SeveralEncoders({len(self.encoders)} encoders: {self.widths})'
    def _joined(self, vectors): return joined_vectors(vectors, self.weights, self.how)

    @property
    def inputs(self) -> list[str]:
        "What a listing must have for one encoder or another: 'image', 'title', or both."
        read = {modality for encoder in self.encoders for modality in encoder.inputs}
        return [modality for modality in ('image', 'title') if modality in read]

    @property
    def device(self) -> str:
        "Where the encoders run."
        return self.encoders[0].device

    @property
    def made_with(self) -> dict:
        "The settings that embeddings are made with, as `joined_settings` gives them."
        return joined_settings([encoder.made_with for encoder in self.encoders], self.weights, self.how)

    def embed(
        self,
        pictures=None,  # n files, images in memory or Nones; None as a whole where no encoder reads any
        titles=None,  # n strings; None where no encoder reads any
        bs: int = 64,  # Listings a batch
        hashes: bool = False,  # Also give the perceptual hash of each picture
        stop: bool = False,  # After an unreadable picture only look for more such, embed nothing further
    ) -> tuple[dict, dict, np.ndarray | None]:
        "Embed n listings as `Encoder.embed` does: (vectors, unreadable, perceptual hashes)."
        n_listings = len(pictures if titles is None else titles)
        found = [{modality: np.full((n_listings, width), np.nan, np.float32)
                  for modality, width in encoder.widths.items()} for encoder in self.encoders]
        unreadable, found_hashes = {}, np.full(n_listings, None, object) if hashes else None
        # texts of similar length come together; their tokens, which differ by encoder, are about as many
        planned_batches = batches_by_length(n_listings, bs, titles if 'title' in self.inputs else None)
        with tqdm(total=n_listings, desc='embedding', delay=2, leave=False) as progress_bar:
            for batch_rows, readings in self._read_ahead(pictures, planned_batches, hashes):
                kept = np.arange(len(batch_rows))
                if readings is not None:
                    kept = np.array([position for position in kept if readings[position].reason is None], int)
                    unreadable.update({int(row): reading.reason for row, reading in zip(batch_rows, readings)
                                       if reading.reason is not None})
                    if hashes: found_hashes[batch_rows] = [reading.phash for reading in readings]
                if len(kept) and not (stop and unreadable):
                    self._embed_batch(found, batch_rows[kept], readings, kept, titles, bs)
                progress_bar.update(len(batch_rows))
        return self._joined(found), unreadable, found_hashes

    def _embed_batch(self, found, rows, readings, kept, titles, bs):
        "Put what each encoder makes of some listings into `found`."
        for number, encoder in enumerate(self.encoders):
            images = batch_titles = None
            if 'image' in encoder.inputs: images = [readings[position].images[number] for position in kept]
            if 'title' in encoder.inputs: batch_titles = [titles[row] for row in rows]
            # a picture that has its size already passes through the encoder's own resizing as it is
            vectors, _, _ = encoder.embed(images, batch_titles, bs)
            for modality, of_batch in vectors.items(): found[number][modality][rows] = of_batch

    def _read_ahead(self, pictures, planned_batches, with_hashes):
        "The rows of each batch with their `SharedReading`s, read ahead in threads; None without pictures."
        if 'image' not in self.inputs:
            yield from ((batch_rows, None) for batch_rows in planned_batches)
            return
        yield from read_ahead(pictures, planned_batches, partial(self._read, with_hash=with_hashes))

    def _read(self, picture_file, with_hash):
        by_resizing = {_resizing(encoder.picture): encoder.picture for encoder in self.encoders
                       if encoder.picture is not None}
        read = read_picture(picture_file, list(by_resizing.values()), with_hash, self.picture_store)
        if read.reason is not None: return SharedReading(None, None, read.reason)
        resized = dict(zip(by_resizing, read.images))
        images = [None if encoder.picture is None else resized[_resizing(encoder.picture)]
                  for encoder in self.encoders]
        return SharedReading(images, read.phash, None)

    def embed_probe(self) -> dict:  # Modality -> float32 (2,D)
        "Embeddings of two made-up listings: to see whether what was saved embeds alike."
        return self._joined([encoder.embed_probe() for encoder in self.encoders])

    def spec(self) -> dict:
        "What the folder of a matcher says of the encoders beside weights and tokenizers, as plain values."
        return {'several': [encoder.spec() for encoder in self.encoders],
                'weights': self.weights.tolist(), 'how': self.how}


def _resizing(picture):
    "What a picture is resized by, as a key: encoders with the same one share the result."
    return picture.size, picture.method, picture.pad_mode, picture.resample


# --- as files

def files_in_folders(
    encoders: list,  # `Encoder`s
    files_of,  # Function of one `Encoder` that gives its files: name -> bytes
) -> dict:  # 'encoders/0/...' -> bytes
    "The files of each encoder in a folder of its own."
    return {f'encoders/{number}/{name}': content for number, encoder in enumerate(encoders)
            for name, content in files_of(encoder).items()}


def files_below(
    files: dict,  # Name -> bytes
    folder: str,  # 'encoders/0/'
) -> dict:
    "The files of a folder by their names in it."
    return {name.removeprefix(folder): content for name, content in files.items() if name.startswith(folder)}


def several_of_files(
    spec: dict,  # From `SeveralEncoders.spec`
    files: dict,  # As `files_in_folders` gives them; others among them are passed over
    encoder_of,  # Function of one encoder's spec and files that gives the `Encoder`
) -> SeveralEncoders:
    "The encoders again."
    encoders = [encoder_of(own_spec, files_below(files, f'encoders/{number}/'))
                for number, own_spec in enumerate(spec['several'])]
    return SeveralEncoders(encoders, spec['weights'], spec['how'])
