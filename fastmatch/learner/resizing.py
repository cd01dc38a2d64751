"How fastai's transforms resize validation pictures, one by one and then by batch, as a `Picture`."
import torch
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.vision.augment import AffineCoordTfm, RandomResizedCrop, RandomResizedCropGPU, Resize
from fastai.vision.core import TensorImage
from PIL import Image

from ..callback.state import preserved_randomness
from ..matcher.batch_resize import BatchResize
from ..matcher.encode import Picture

PAD = {'zeros': 'constant', 'border': 'edge', 'reflection': 'reflect'}  # fastai's names -> torchvision's
ITEM_RESIZERS = Resize, RandomResizedCrop
BATCH_RESIZERS = AffineCoordTfm, RandomResizedCropGPU


def validation_transforms(
    pipeline,  # fastai `Pipeline`
) -> list:
    "Its transforms that also run in validation."
    return [transform for transform in pipeline.fs if getattr(transform, 'split_idx', None) != 0]


def resizing_of(
    dls,  # `MatchDataLoaders` with images
) -> Picture | None:
    """How validation pictures are resized, as far as it is done by fastai's own transforms; not how they are
    normalized. None where nothing resizes the items."""
    if dls.picture_features is not None: return picture_of_features(dls.picture_features)
    item_resizers = [transform for transform in validation_transforms(dls.valid.after_item)
                     if isinstance(transform, ITEM_RESIZERS)]
    if not item_resizers: return None
    resizer = item_resizers[-1]
    picture = _squished_and_cropped(resizer) if isinstance(resizer, RandomResizedCrop) else Picture(
        tuple(resizer.size), str(resizer.method), PAD[str(resizer.pad_mode)], int(resizer.mode))
    for transform in validation_transforms(dls.valid.after_batch):
        if isinstance(transform, BATCH_RESIZERS) and transform.size is not None:
            step = _batch_resize(transform, picture.input_size)
            if step.box or step.size != picture.input_size: picture.batch_resizes.append(step)
    return picture


def picture_of_features(
    features,  # `FrameFeatures`
) -> Picture:
    "How the pictures were read and normalized that features are of."
    return Picture(features.size, features.method, mean=list(features.encoder.mean),
                   std=list(features.encoder.std))


def _squished_and_cropped(transform):
    "`RandomResizedCrop` in validation: the whole picture in a somewhat larger size, then its middle."
    width, height = transform.size
    transform.before_call(Image.new('RGB', (width, height)), split_idx=1)
    squished = tuple(transform.final_size)
    picture = Picture(squished, 'squish', resample=int(transform.mode))
    if squished != (width, height):
        box = ((squished[0] - width) // 2, (squished[1] - height) // 2, width, height)
        picture.batch_resizes.append(BatchResize((width, height), box))
    return picture


def _batch_resize(transform, size_before):
    "What a batch transform with a `size` does to validation pictures of another size, (width, height)."
    size = (transform.size, transform.size) if isinstance(transform.size, int) else transform.size
    height, width = size
    if isinstance(transform, AffineCoordTfm):
        return BatchResize((width, height), None, transform.mode, str(transform.pad_mode),
                           bool(transform.align_corners))
    transform.before_call(torch.empty(1, 3, *reversed(size_before)), split_idx=1)
    (top, left), (box_height, box_width) = transform.tl, transform.cp_size
    box = (left, top, box_width, box_height)
    return BatchResize((width, height), None if box == (0, 0, *size_before) else box, transform.mode)


def unlike(
    dls,  # `MatchDataLoaders` with images
    picture: Picture,  # How they are read, as a matcher would
) -> str | None:  # What changes validation pictures, in words; None where `picture` does the same
    """Compare `picture.normalize` with what `dls` does to a validation batch, on made-up pictures.

    Many augmentations run in validation too and do nothing there, so their names don't tell.
    """
    width, height = picture.size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator)
    expected = picture.normalize(pixels)
    images = _cropped(dls, picture, TensorImage(pixels.permute(0, 3, 1, 2)).to(dls.device))
    changes = []
    # transforms draw whether they act, in validation too
    with preserved_randomness():
        for transform in dls.valid.after_batch.fs:
            changed = transform((images,), split_idx=1)[0]
            if not isinstance(transform, (IntToFloatTensor, Normalize)):
                changes += _change(transform, images, changed)
            images = changed
    from_dls = images.as_subclass(torch.Tensor).cpu()
    if from_dls.shape == expected.shape and (from_dls - expected).abs().max() <= 1e-2: return None
    # a change of the size that is repeated is not to blame as long as there is another
    others = [words for is_resizer, words in changes if not is_resizer]
    return ' and '.join(others or [words for _, words in changes]) or 'Normalize'


def _cropped(dls, picture, images):
    "The part of squished pictures that an item transform cuts out before there is a batch."
    crops = [transform for transform in validation_transforms(dls.valid.after_item)
             if isinstance(transform, RandomResizedCrop)]
    if not crops or tuple(crops[-1].size) == picture.size: return images
    return picture.batch_resizes[0](images)


def _change(transform, before, after):
    "[(whether it is one that resizes, what it does in words)]; [] where it leaves pictures as they are."
    is_resizer = isinstance(transform, BATCH_RESIZERS)
    name = type(transform).__name__
    if before.shape != after.shape:
        sizes = ['x'.join(map(str, reversed(images.shape[-2:]))) for images in (before, after)]
        return [(is_resizer, f'{name} ({sizes[0]} to {sizes[1]} pixels)')]
    return [] if (before.float() - after.float()).abs().max() <= 1e-3 else [(is_resizer, name)]
