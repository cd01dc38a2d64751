"Pictures and titles to embeddings without fastai: resizing, and a trained model with all it needs."
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..core import InputError
from ..layers.padding import pad_token_ids
from ..layers.pooling import BNNeck, ProjectNeck
from ..models import MatchNet
from ..models.registry import encoder_from_spec, encoder_spec
from ..models.views import Views, views_of
from ..picture import check_method, fitted
from .batch_resize import BatchResize
from .batches import Batch, batches_by_length, embed_batches, tokenize_titles
from .read_ahead import read_ahead
from .read_picture import read_picture


@dataclass
class Picture:
    """How a picture becomes the image encoder's input: as by fastai's `Resize` in validation and `Normalize`.

    Raises `InputError` for an unknown `method`.
    """
    size: tuple  # (width, height) in pixels
    method: str = 'crop'  # 'squish' (out of proportion), 'crop' (the middle), 'pad' (with a border)
    pad_mode: str = 'reflect'  # What 'pad' fills the border with, as torchvision calls it
    resample: int = int(Image.BILINEAR)  # PIL's number of the interpolation
    mean: list = field(default_factory=lambda: [0., 0., 0.])  # Subtracted from values in 0..1, by channel
    std: list = field(default_factory=lambda: [1., 1., 1.])  # What the difference is divided by, by channel
    # What is done to a batch of pictures of `size` after that, in this order: presizing
    batch_resizes: list[BatchResize] = field(default_factory=list)

    def __post_init__(self):
        check_method(self.method)
        self.size = tuple(int(pixels) for pixels in self.size)
        self.batch_resizes = [step if isinstance(step, BatchResize) else BatchResize(**step)
                              for step in self.batch_resizes]

    def __call__(
        self,
        image: Image.Image,  # RGB
    ) -> np.ndarray:  # uint8 (h,w,3)
        "The picture resized to `size`."
        return np.asarray(self.fit(image).resize(self.size, self.resample))

    def normalize(
        self,
        pixels: torch.Tensor,  # uint8 (n,h,w,3), pictures resized before
    ) -> torch.Tensor:  # float32 (n,3,h,w)
        """Resized pictures as the encoder's input: channels first, 0..255 to 0..1, resized again where that
        is asked for, then `mean` and `std`."""
        mean = torch.tensor(self.mean, device=pixels.device)[:, None, None]
        std = torch.tensor(self.std, device=pixels.device)[:, None, None]
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        for resize in self.batch_resizes: images = resize(images)
        return (images - mean) / std

    @property
    def input_size(self) -> tuple:
        "(width, height) of what the encoder reads, in pixels."
        return self.batch_resizes[-1].size if self.batch_resizes else self.size

    def spec(self) -> dict:
        "The fields as plain values; earlier versions, which know no batches, read it where there are none."
        spec = asdict(self)
        if not self.batch_resizes: del spec['batch_resizes']
        return spec

    def fit(
        self,
        image: Image.Image,  # RGB
    ) -> Image.Image:
        "The part that is resized: all of the picture, its middle, or all of it with a border."
        return fitted(image, self.size, self.method, self.pad_mode)


class Reading(NamedTuple):
    "A picture that was read, or why it can't be."
    image: np.ndarray | None  # uint8 (h,w,3), resized
    phash: str | None  # Its perceptual hash, where asked for
    reason: str | None  # Why it can't be read; None where it was


def embedding_settings(
    inputs,  # What the model reads: 'image', 'title'
    tta: bool | Views,  # Whether a picture's embedding is averaged with its mirror image's, or other views
    picture: Picture | None,  # How pictures are resized; None where it isn't known
    max_len: int,  # Tokens after which a title is truncated
) -> dict:
    """What changes embeddings beside the model itself, as plain values: `made_with` of `Embeddings`.

    Only what has an effect is in it: a model of titles alone has no 'tta' and no 'size'.
    """
    settings = {}
    if 'image' in inputs:
        settings['tta'] = views_of(tta).spec()
        if picture is not None: settings['size'] = list(picture.input_size)
        if picture is not None and picture.batch_resizes: settings['presize'] = list(picture.size)
    if 'title' in inputs: settings['max_len'] = int(max_len)
    return settings


class Encoder:
    "A trained `MatchNet` with what it needs around it, to embed pictures and titles; its heads aren't used."
    kept = None  # `KeptFiles`: further files of a saved matcher that belong to it, such as exported graphs
    # `PictureStore` that resized pictures are kept in and taken from; None: files are decoded each time
    picture_store = None

    def __init__(
        self,
        model: MatchNet,  # Trained; put into evaluation mode, without gradients, on `device`
        picture: Picture | None = None,  # How pictures are resized; needed where the model reads images
        tokenizer=None,  # A transformers tokenizer; needed where the model reads titles
        max_len: int = 64,  # Tokens after which a title is truncated
        # Average each picture's embedding with its mirror image's, or with further `Views`
        tta: bool | Views = False,
        device: str = 'cpu',  # Where the model runs
    ):
        for modality, given, argument in (('image', picture, 'picture'), ('title', tokenizer, 'tokenizer')):
            if (modality in model.encoders) != (given is not None):
                raise InputError(f'{argument}: the model reads {list(model.encoders)}')
        self.model = model.eval().requires_grad_(False).to(device)
        self.picture = picture
        self.tokenizer = tokenizer
        self.max_len = max_len
        # a bool where it is no more than that, which earlier versions read
        self.tta = views_of(tta).spec()
        self.device = device

    @property
    def inputs(self) -> list[str]:
        "What a listing must have: 'image', 'title', or both."
        return list(self.model.encoders)

    @property
    def widths(self) -> dict:
        "The length of each modality's embeddings, e.g. {'image': 1280}."
        return views_of(self.tta).widths(self.model.widths)

    @property
    def made_with(self) -> dict:
        "The settings that its embeddings are made with, as `embedding_settings` gives them."
        return embedding_settings(self.inputs, self.tta, self.picture, self.max_len)

    def embed(
        self,
        pictures=None,  # n files, images in memory or Nones; None as a whole without an image encoder
        titles=None,  # n strings; None without a title encoder
        bs: int = 64,  # Listings a batch
        hashes: bool = False,  # Also give the perceptual hash of each picture
        stop: bool = False,  # After an unreadable picture only look for more such, embed nothing further
    ) -> tuple[dict, dict, np.ndarray | None]:
        """Embed n listings: (vectors, unreadable, perceptual hashes).

        `vectors` is {modality: float32 (n,d)} with NaN in rows that can't be read, `unreadable` is
        {row: reason}, the hashes are an object array (n,) with None where a picture can't be read, or None
        unless they were asked for.
        """
        n_listings = len(pictures if titles is None else titles)
        token_ids = tokenize_titles(self.tokenizer, titles, self.max_len) if 'title' in self.inputs else None
        planned_batches = batches_by_length(n_listings, bs, token_ids)
        unreadable, found_hashes = {}, np.full(n_listings, None, object) if hashes else None

        def batches():
            for batch_rows, readings in self._read_ahead(pictures, planned_batches, hashes):
                readable_rows = batch_rows
                if readings is not None:
                    is_unreadable = np.array([reading.reason is not None for reading in readings])
                    unreadable.update({int(batch_rows[position]): readings[position].reason
                                       for position in np.flatnonzero(is_unreadable)})
                    if hashes: found_hashes[batch_rows] = [reading.phash for reading in readings]
                    readable_rows = batch_rows[~is_unreadable]
                if stop and unreadable: readable_rows = readable_rows[:0]
                yield Batch(readable_rows, self._inputs(readable_rows, readings, token_ids), len(batch_rows))
        return embed_batches(self.model, batches(), n_listings, self.tta), unreadable, found_hashes

    def _read_ahead(self, pictures, planned_batches, with_hashes):
        "The rows of each batch with their `Reading`s (None without an image encoder), read ahead in threads."
        if 'image' not in self.inputs:
            yield from ((batch_rows, None) for batch_rows in planned_batches)
            return
        yield from read_ahead(pictures, planned_batches, partial(self._read, with_hash=with_hashes))

    def _read(self, picture_file, with_hash):
        read = read_picture(picture_file, [self.picture], with_hash, self.picture_store)
        return Reading(None if read.images is None else read.images[0], read.phash, read.reason)

    def _inputs(self, rows, readings, token_ids):
        "What the model reads of `rows`, whose pictures are the readable ones of `readings`."
        if not len(rows): return []
        inputs = []
        if readings is not None:
            images = np.stack([reading.image for reading in readings if not reading.reason])
            inputs.append(self.picture.normalize(torch.from_numpy(images).to(self.device)))
        if token_ids is not None:
            padded_ids = pad_token_ids([token_ids[row] for row in rows], self.tokenizer.pad_token_id)
            inputs.append(padded_ids.to(self.device))
        return inputs

    def embed_probe(self) -> dict:  # Modality -> float32 (2,d)
        "Embeddings of two made-up listings, the same for each encoder: to see whether two of them agree."
        inputs = []
        if self.picture is not None:
            width, height = self.picture.size
            pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
            inputs.append(self.picture.normalize(torch.from_numpy(pixels).to(self.device)))
        if self.tokenizer is not None:
            token_ids = tokenize_titles(self.tokenizer, ['a red bag', 'blue shoes of leather'], self.max_len)
            inputs.append(pad_token_ids(token_ids, self.tokenizer.pad_token_id).to(self.device))
        return {modality: vectors.float().cpu().numpy()
                for modality, vectors in self.model.embed(*inputs).items()}

    def spec(self) -> dict:
        "What `from_spec` needs beside weights and tokenizer, as plain values that json takes."
        kind_of_modality = {'image': 'image', 'title': 'text'}
        encoders = {modality: encoder_spec(kind_of_modality[modality], encoder)
                    for modality, encoder in self.model.encoders.items()}
        return {**encoders, 'widths': self.model.widths, 'neck': _neck_spec(self.model),
                'picture': None if self.picture is None else self.picture.spec(),
                'max_len': self.max_len, 'tta': self.tta}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # What `spec` gave
        weights: dict,  # State dict of the model without its heads
        tokenizer=None,  # Needed where the model reads titles
        device: str = 'cpu',  # Where the model runs
    ) -> 'Encoder':
        "The encoder that `spec` and `weights` describe."
        model = headless(spec)
        model.load_state_dict(weights)
        picture = None if spec['picture'] is None else Picture(**spec['picture'])
        return cls(model, picture, tokenizer, spec['max_len'], spec['tta'], device)


def headless(
    spec: dict,  # From `Encoder.spec`
) -> MatchNet:
    "The model that a spec describes, with random weights and without heads."
    image = encoder_from_spec('image', spec['image']) if 'image' in spec else None
    title = encoder_from_spec('text', spec['title']) if 'title' in spec else None
    encoders = {'image': image, 'title': title}
    widths = {modality: made.n_out for modality, made in encoders.items() if made is not None}
    widths['joint'] = sum(widths.values())
    return MatchNet(None, image, title, tuple(spec['widths']), _neck_of(spec, widths))


def _neck_spec(model):
    "What kind of neck a model has: True for `BNNeck`, False for none, 'project' for `ProjectNeck`."
    kinds = {type(neck) for neck in model.necks.values()}
    for kind, name in ((BNNeck, True), (nn.Identity, False), (ProjectNeck, 'project')):
        if kinds == {kind}: return name
    shown = ', '.join(sorted(kind.__name__ for kind in kinds))
    raise InputError(f'neck={shown}: a matcher can hold a BNNeck, a ProjectNeck or none, the same kind for '
                     'each modality')


def _neck_of(spec, widths):
    "The `neck` of `MatchNet` that a spec describes; `widths` are those of the features by modality."
    if spec['neck'] != 'project': return spec['neck']
    after_neck = {widths[modality]: n_out for modality, n_out in spec['widths'].items()}
    return lambda width: ProjectNeck(width, after_neck[width])
