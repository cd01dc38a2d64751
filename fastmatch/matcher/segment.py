"Where the product is: a trained model of masks with all it needs, without fastai."
import hashlib
import json
import os
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..core import InputError, checks_options, preview
from ..data.image import image_path, try_image
from ..data.masks import LEVELS, MaskRule, check_margin, product_box
from ..data.pictures import picture_names
from ..data.read import check_listings, one_or_tuple
from ..match.embeddings import Embeddings, check_made_alike
from ..models.segment import SegmentNet
from ..store import read_sealed, write_state

CROP = 'crop'  # the modality of what is cut out of a picture
FORMAT = 1
MANIFEST = 'segmenter.json'
# suffixes of crops: PIL reads and writes these, whatever is installed beside it
WRITTEN = '.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif', '.tif', '.tiff'


@torch.inference_mode()
def mask_probabilities(
    model: SegmentNet,  # In evaluation mode
    images: torch.Tensor,  # float32 (n,3,h,w) of 0..1
    tta: bool = False,  # Average with what the model makes of the mirror images
) -> torch.Tensor:  # float32 (n,c,h,w) that sum to 1 over c, the background first
    """How probable each class is at each pixel. With `dual` what is marked counts by how probable it is that
    the class is in the picture at all."""
    output = class_probabilities(model(images))
    return (output + class_probabilities(model(images.flip(3))).flip(3)) / 2 if tta else output


def class_probabilities(
    output,  # What a `SegmentNet` returns
) -> torch.Tensor:  # float32 (n,c,h,w) that sum to 1 over c, the background first
    "How probable each class is at each pixel, by the masks and by whether the class is there at all."
    logits, presence = (output['mask'], output['presence']) if isinstance(output, dict) else (output, None)
    logits = logits.float()
    foreground = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:]
    if presence is not None: foreground = foreground * presence.float().sigmoid()[:, :, None, None]
    return torch.cat([1 - foreground.sum(1, keepdim=True), foreground], 1)


class Segmenter:
    """Finds the product in pictures: a trained `SegmentNet`, the size that it reads, and the rule that makes
    masks of probabilities. `learn.segmenter()` gives one."""
    def __init__(
        self,
        model: SegmentNet,  # Trained, of two classes; put into evaluation mode on `device`
        size: tuple,  # (width, height) that pictures are brought to, out of proportion if need be
        rule: MaskRule | None = None,  # As `best_mask_rule` gives it; None: a half
        tta: bool = False,  # As when the rule was chosen
        device: str = 'cpu',  # Where it runs
    ):
        if model.n_channels != 1:
            raise InputError(f"n_classes={model.options['n_classes']}: a product is found by a model of two")
        self.model = model.eval().requires_grad_(False).to(device)
        self.size = tuple(int(pixels) for pixels in size)
        self.rule = rule or MaskRule()
        self.tta = tta
        self.device = device

    def probabilities(
        self,
        pictures,  # n files, or images in memory
        bs: int = 32,  # Pictures a batch
    ) -> np.ndarray:  # uint8 (n,h,w) of `size`, 255 for certain
        "How probable the product is at each pixel; `InputError` for a picture that can't be read."
        found = np.zeros((len(pictures), *self.size[::-1]), np.uint8)
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, len(pictures), bs):
                pixels = np.stack(list(pool.map(self._read, pictures[start:start + bs])))
                images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device).float() / 255
                product = mask_probabilities(self.model, images, self.tta)[:, 1]
                found[start:start + bs] = (product * LEVELS).round().to(torch.uint8).cpu().numpy()
        return found

    def _read(self, picture): return np.array(_image(picture).resize(self.size, Image.BILINEAR))

    def masks(
        self,
        pictures,  # n files, or images in memory
        bs: int = 32,  # Pictures a batch
    ) -> np.ndarray:  # bool (n,h,w) of `size`
        "Where the product is in each picture."
        return self.rule(self.probabilities(pictures, bs))

    def crop(
        self,
        pictures,  # n files, or images in memory
        margin: float = .1,  # Border around the product, as a share of its longer side
        bs: int = 32,  # Pictures a batch
        blank: bool = False,  # Also make white what is not the product
    ) -> list:  # PIL images, RGB
        """The part of each picture that shows the product; all of a picture in which none is found. Raises
        `InputError` for a picture that can't be read, and for a margin below 0."""
        cropped = []
        for picture, mask in zip(pictures, self.masks(pictures, bs), strict=True):
            image = _image(picture)
            mask = np.asarray(Image.fromarray(mask).resize(image.size, Image.NEAREST))
            box = product_box(mask, margin)
            if blank and box is not None:
                image = Image.fromarray(np.where(mask[..., None], np.asarray(image), 255).astype(np.uint8))
            cropped.append(image if box is None else image.crop(box))
        return cropped

    def files(self) -> dict:
        "What `save` writes: file name -> bytes, json and safetensors."
        from safetensors.torch import save
        spec = {'model': self.model.spec(), 'size': list(self.size), 'tta': self.tta,
                'threshold': self.rule.threshold, 'smallest_share': self.rule.smallest_share}
        weights = {name: tensor.contiguous().cpu() for name, tensor in self.model.state_dict().items()}
        return {'segment.json': json.dumps(spec).encode(), 'weights.safetensors': save(weights)}

    @classmethod
    def from_files(
        cls,
        files: dict,  # From `files`
        device: str = 'cpu',  # Where it runs
    ) -> 'Segmenter':
        "The segmenter again."
        from safetensors.torch import load
        spec = json.loads(files['segment.json'])
        model = SegmentNet.from_spec(spec['model'])
        model.load_state_dict(load(files['weights.safetensors']))
        return cls(model, spec['size'], MaskRule(spec['threshold'], spec['smallest_share']), spec['tta'],
                   device)

    def save(
        self,
        path,  # Folder; one that a segmenter was saved to before is replaced
    ):
        "Save to a folder: json and safetensors, no pickle."
        write_state(path, MANIFEST, {'format': FORMAT}, self.files())


def load_segmenter(
    path,  # Folder that a segmenter was saved to
    device: str = 'cpu',  # Where it runs
) -> Segmenter:
    "Load a saved segmenter, every hash checked; `InputError` names what is missing or damaged."
    _, files = read_sealed(path, MANIFEST, FORMAT)
    return Segmenter.from_files(files, device)


@checks_options(Segmenter.crop)
def crop_to_product(
    df,  # Listings, a row each; not changed
    folder,  # Folder that the names of their pictures start from
    segmenter: Segmenter,  # Finds the product
    to,  # Folder that the cropped pictures are written to; made where there is none
    image_col: str = 'image',  # Column of picture files; a cell may name several, see `picture_names`
    on_error: str = 'raise',  # 'raise' one error that lists all unusable rows, or 'skip' them, with a warning
    **options,  # For `Segmenter.crop`: margin, blank
):  # DataFrame: the usable rows with a fresh index, whose cells are the whole paths of the crops
    """Write the part of each listing's picture that shows the product, for an encoder to embed.

    The pictures as they are and cropped make two modalities: `learn.embeddings(df)` and
    `learn.embeddings(crops, path=to)`, put together with `with_crop`. A crop has the name of its picture
    within `folder`; that of a picture elsewhere, or with a suffix that is none of `WRITTEN`, has a name of
    its own. Crops of an earlier call are replaced. Raises `InputError`, before anything is written, where a
    crop would replace one of the pictures or fall outside of `to`.
    """
    from tqdm import tqdm
    if not isinstance(segmenter, Segmenter):
        raise InputError(f'segmenter: {type(segmenter).__name__} given, it must be a Segmenter')
    check_margin(options.get('margin', 0))
    folder, to = Path(folder).absolute(), Path(to).absolute()
    if to.resolve() == folder.resolve():
        raise InputError(f'to={to}: the pictures are there; give another folder')
    if to.exists() and not to.is_dir(): raise InputError(f'to={to}: a file, not a folder')
    usable, skipped, *_ = check_listings(df, folder, on_error=on_error, min_rows=1, id_col=None,
                                         image_col=image_col)
    if len(skipped):
        lines = [f'row {row}: {reason}' for row, reason in zip(skipped.row, skipped.reason)]
        warnings.warn(f'{len(lines)} rows are left out: {preview(lines)}', stacklevel=3)
    names_by_row = [picture_names(cell, folder) for cell in usable[image_col]]
    targets = _crop_files([name for names in names_by_row for name in names], folder, to)
    files = list(targets)
    for start in tqdm(range(0, len(files), 64), 'crop', delay=2, leave=False):
        part = files[start:start + 64]
        for file, image in zip(part, segmenter.crop(part, **options), strict=True):
            targets[file].parent.mkdir(parents=True, exist_ok=True)
            image.save(targets[file])
    cells = [one_or_tuple([str(targets[image_path(folder, name)]) for name in names])
             for names in names_by_row]
    usable[image_col] = pd.Series(cells, usable.index, dtype=object)
    return usable


def _crop_files(names, folder, to):
    "{picture: file of its crop}; `InputError` where that is one of the pictures, or not below `to`."
    targets, taken = {}, {}
    for name in names:
        file = image_path(folder, name)
        if file in targets: continue
        path = file.relative_to(folder) if file.is_relative_to(folder) else file
        target = to/path
        stays = not path.is_absolute() and '..' not in path.parts and path.suffix.lower() in WRITTEN
        # a file system may take names for the same that differ in case, or in the form of their accents
        if not stays or taken.setdefault(_same_on_disk(target), file) != file:
            digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:16]
            suffix = path.suffix if path.suffix.lower() in WRITTEN else '.png'
            target = to/f'{path.stem[:40]}-{digest}{suffix}'
        targets[file] = target
    pictures = {_identity(file) for file in targets}
    for target in targets.values():
        # a link in `to` may lead anywhere
        if not target.resolve().is_relative_to(to.resolve()):
            raise InputError(f'to={to}: {target} leads out of it; give another folder')
        if target.exists() and _identity(target) in pictures:
            raise InputError(f'to={to}: {target} is one of the pictures; give another folder')
    return targets


def _same_on_disk(path): return unicodedata.normalize('NFC', str(path)).casefold()


def _identity(file):
    "What tells a file from others, by whatever name or link."
    found = os.stat(file)
    return found.st_dev, found.st_ino


def with_crop(
    whole: Embeddings,  # Of pictures as they are
    cropped: Embeddings,  # Of the same listings in the same order, their pictures cropped
    margin: float = .1,  # That they were cropped with, as for `crop_to_product`
    blank: bool = False,  # Whether they were cropped so, as for `crop_to_product`
) -> Embeddings:
    """Embeddings in which the cropped picture is a modality of its own, 'crop', beside the whole one, so that
    a rule weighs both.

    How the crops were made is kept: a `CropEncoder` that makes others is refused with a rule of these.
    Raises `InputError` unless both are of the same listings, made with the same `tta`, and with the same
    similarity of listings that have several pictures.
    """
    check_margin(margin)
    for embeddings, name in ((whole, 'whole'), (cropped, 'cropped')):
        if 'image' not in embeddings:
            raise InputError(f'{name}: no embeddings of pictures in {list(embeddings)}')
    if len(whole) != len(cropped) or (whole.ids != cropped.ids).any():
        raise InputError('whole and cropped: not the same listings in the same order')
    settings = dict(cropped.made_with or {})
    shared = {name: settings[name] for name in ('tta', 'pictures') if name in settings}
    check_made_alike(whole.made_with, shared, 'whole: embeddings')
    settings.pop('pictures', None)
    made_with = whole.made_with
    # settings that nobody knows would differ from all others
    if settings: made_with = {**(made_with or {}), CROP: {**settings, 'margin': float(margin),
                                                          'blank': bool(blank)}}
    vectors = {**whole, **whole.pictures, CROP: cropped.pictures.get('image', cropped['image'])}
    return Embeddings(vectors, whole.ids, whole.titles, whole.groups, whole.trained_on | cropped.trained_on,
                      whole.phash, made_with=made_with, fields=whole.fields, source=whole.source)


def _image(picture):
    image, reason = try_image(picture)
    if reason: raise InputError(f'{picture}: {reason}')
    return image
