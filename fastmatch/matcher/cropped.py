"A listing's picture as it is, and the product cut out of it, which is embedded as a modality of its own."
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..core import InputError
from ..data.image import phash
from ..data.masks import check_margin
from ..picture import try_image
from .batches import batches_by_length
from .encode import Encoder
from .read_ahead import read_ahead
from .segment import CROP, Segmenter
from .several import SeveralEncoders, files_below, files_in_folders


class WholeReading(NamedTuple):
    "A picture in its full size, or why it can't be read."
    image: Image.Image | None
    phash: str | None  # Its perceptual hash, where asked for
    reason: str | None  # Why it can't be read; None where it was


class CropEncoder:
    """An `Encoder` of listings, and beside it one of what a `Segmenter` crops from their pictures: where a
    matcher wants one encoder, for a rule that weighs 'image' and 'crop'.

    Each picture is read once. Where no product is found, the crop is the whole picture. A `picture_store` of
    `load_matcher` is of no use here: it holds resized pictures, and a crop is cut out of the whole one.
    """
    def __init__(
        self,
        encoder: Encoder,  # Of the listings as they are
        segmenter: Segmenter,  # Finds the product
        crop_encoder: Encoder | None = None,  # Of the crops, best trained on such; None: `encoder`
        margin: float = .1,  # Border around the product, as a share of its longer side
        blank: bool = False,  # Also make white what is not the product
    ):
        if not isinstance(segmenter, Segmenter):
            raise InputError(f'segmenter: {type(segmenter).__name__} given, it must be a Segmenter')
        check_margin(margin)
        for name, given in (('encoder', encoder), ('crop_encoder', crop_encoder)):
            if given is None and name == 'crop_encoder': continue
            if not isinstance(given, Encoder):
                raise InputError(f'{name}: {type(given).__name__} given, it must be an Encoder')
            if 'image' not in given.inputs: raise InputError(f'{name}: it reads no pictures')
        self.encoder, self.segmenter = encoder, segmenter
        self.crop_encoder = encoder if crop_encoder is None else crop_encoder
        self.margin, self.blank = float(margin), bool(blank)

    def __repr__(self): return f'CropEncoder({self.widths})'

    @property
    def inputs(self) -> list[str]:
        "What a listing must have: 'image', or that and 'title'."
        read = {*self.encoder.inputs, *self.crop_encoder.inputs}
        return [modality for modality in ('image', 'title') if modality in read]

    @property
    def widths(self) -> dict:
        "The length of each modality's embeddings, e.g. {'image': 1280, 'crop': 1280}."
        return {**self.encoder.widths, CROP: self.crop_encoder.widths['image']}

    @property
    def device(self) -> str:
        "Where the encoders run."
        return self.encoder.device

    @property
    def made_with(self) -> dict:
        "The settings that embeddings are made with: those of `encoder`, and under 'crop' how crops are."
        of_crops = {**self.crop_encoder.made_with, 'margin': self.margin, 'blank': self.blank}
        return {**self.encoder.made_with, CROP: of_crops}

    def embed(
        self,
        pictures=None,  # n files, images in memory or Nones; needed
        titles=None,  # n strings; None where no encoder reads any
        bs: int = 64,  # Listings a batch
        hashes: bool = False,  # Also give the perceptual hash of each picture
        stop: bool = False,  # After an unreadable picture only look for more such, embed nothing further
    ) -> tuple[dict, dict, np.ndarray | None]:
        """Embed n listings as `Encoder.embed` does: (vectors, unreadable, perceptual hashes). Raises
        `InputError` without pictures, and without titles where an encoder reads them."""
        if pictures is None: raise InputError('pictures=None: crops are cut out of them')
        if titles is None and 'title' in self.inputs:
            raise InputError(f'titles=None: the encoders read {self.inputs}')
        n_listings = len(pictures)
        vectors = {modality: np.full((n_listings, width), np.nan, np.float32)
                   for modality, width in self.widths.items()}
        unreadable, found_hashes = {}, np.full(n_listings, None, object) if hashes else None
        planned_batches = batches_by_length(n_listings, bs, titles if 'title' in self.inputs else None)
        with tqdm(total=n_listings, desc='embedding', delay=2, leave=False) as progress_bar:
            for rows, readings in read_ahead(pictures, planned_batches, partial(_read, with_hash=hashes)):
                is_read = np.array([reading.reason is None for reading in readings])
                unreadable.update({int(row): reading.reason for row, reading in zip(rows, readings)
                                   if reading.reason is not None})
                if hashes: found_hashes[rows] = [reading.phash for reading in readings]
                if is_read.any() and not (stop and unreadable):
                    images = [reading.image for reading in readings if reading.reason is None]
                    self._embed_batch(vectors, rows[is_read], images, titles, bs)
                progress_bar.update(len(rows))
        return vectors, unreadable, found_hashes

    def _embed_batch(self, vectors, rows, images, titles, bs):
        "Put what both encoders make of some listings into `vectors`."
        def embedded(encoder, pictures):
            batch_titles = [titles[row] for row in rows] if 'title' in encoder.inputs else None
            return encoder.embed(pictures, batch_titles, bs)[0]
        found = embedded(self.encoder, images)
        crops = self.segmenter.crop(images, self.margin, bs, self.blank)
        found[CROP] = embedded(self.crop_encoder, crops)['image']
        for modality, of_batch in found.items(): vectors[modality][rows] = of_batch

    def embed_probe(self) -> dict:  # Modality -> float32 (2,d); 'mask' is how probable the product is
        "Embeddings of made-up listings, and a mask: to see whether what was saved embeds alike."
        width, height = self.segmenter.size
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
        return {**self.encoder.embed_probe(), CROP: self.crop_encoder.embed_probe()['image'],
                'mask': self.segmenter.probabilities([picture])[0].astype(np.float32) / 255}

    def spec(self) -> dict:
        "What the folder of a matcher says of it beside weights and tokenizers, as plain values."
        encoders = [self.encoder]
        if self.crop_encoder is not self.encoder: encoders.append(self.crop_encoder)
        return {'cropped': [encoder.spec() for encoder in encoders], 'margin': self.margin,
                'blank': self.blank}


def _read(picture_file, with_hash):
    if picture_file is None: return WholeReading(None, None, 'no file name')
    image, reason = try_image(picture_file)
    if reason: return WholeReading(None, None, reason)
    return WholeReading(image, phash(image) if with_hash else None, None)


AnyEncoder = Encoder | SeveralEncoders | CropEncoder  # what a matcher takes for one


# --- as files

def files_of_cropped(
    cropped: CropEncoder,
    files_of,  # Function of one `Encoder` that gives its files: name -> bytes
) -> dict:  # 'encoders/0/...' and 'segmenter/...' -> bytes
    "The files of both encoders and of the segmenter, each in a folder of its own."
    encoders = [cropped.encoder]
    if cropped.crop_encoder is not cropped.encoder: encoders.append(cropped.crop_encoder)
    files = {f'segmenter/{name}': content for name, content in cropped.segmenter.files().items()}
    return files | files_in_folders(encoders, files_of)


def cropped_of_files(
    spec: dict,  # From `CropEncoder.spec`
    files: dict,  # As `files_of_cropped` gives them; others among them are passed over
    encoder_of,  # Function of one encoder's spec and files that gives the `Encoder`
    device: str = 'cpu',  # Where the segmenter runs
) -> CropEncoder:
    "The encoder again."
    encoders = [encoder_of(own_spec, files_below(files, f'encoders/{number}/'))
                for number, own_spec in enumerate(spec['cropped'])]
    segmenter = Segmenter.from_files(files_below(files, 'segmenter/'), device)
    return CropEncoder(encoders[0], segmenter, encoders[1] if len(encoders) > 1 else None, spec['margin'],
                       spec['blank'])
