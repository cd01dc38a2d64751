"Test-time augmentation: a picture embedded as it is, mirrored, in parts and in several sizes, as one vector."
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F

from ..core import InputError

JOINS = 'mean', 'concatenate'
CORNERS = (0, 0), (0, 1), (1, 0), (1, 1), (.5, .5)  # (down, right) of the free space beside a crop
LARGEST, SMALLEST = 4., .25  # sides of a scale, relative to the given size


@dataclass(frozen=True)
class Views:
    """What a picture is shown as: at each of `scales` the whole picture, its crops, and all these mirrored.

    `Views()` is what `tta=True` means. Pictures are resized from the size that they are read in, by
    interpolation on the device: larger scales show an encoder the same in more pixels, which helps where it
    was trained on smaller objects (https://arxiv.org/abs/1906.06423), and costs as many times more as there
    are pixels. Encoders of a fixed size, such as most ViTs, take no scales.
    """
    mirror: bool = True  # Each view also as its mirror image
    scales: tuple = (1.,)  # Sides of the input relative to the given size, .25 to 4
    # Sides of five crops, the corners and the middle, relative to the picture, between 0 and 1, in addition
    # to the whole; None: no crops
    crops: float | None = None
    # Vectors of different scales: their 'mean', or 'concatenate' side by side, so that a cosine is the mean
    # of the scales' cosines; those of one scale are always averaged
    join: str = 'mean'

    def __post_init__(self):
        try: scales = tuple(float(scale) for scale in self.scales)
        except TypeError as error:
            raise InputError(f'scales={self.scales!r}: give a tuple of numbers') from error
        if not scales or not all(SMALLEST <= scale <= LARGEST for scale in scales):
            raise InputError(f'scales={self.scales}: one or more from {SMALLEST} to {LARGEST}')
        if len(set(scales)) < len(scales): raise InputError(f'scales={self.scales}: each once')
        if self.crops is not None and not 0 < self.crops < 1:
            raise InputError(f'crops={self.crops}: between 0 and 1, or None')
        if self.join not in JOINS: raise InputError(f'join={self.join!r}: choose one of {JOINS}')
        object.__setattr__(self, 'mirror', bool(self.mirror))
        object.__setattr__(self, 'scales', scales)
        # joined or not, a single scale is the same
        if len(scales) == 1: object.__setattr__(self, 'join', 'mean')

    @property
    def is_plain(self) -> bool:
        "Whether this is no more than a picture and, it may be, its mirror image."
        return self.scales == (1.,) and self.crops is None

    def __len__(self):
        "How many pictures are embedded in place of one."
        return len(self.scales) * (1 if self.crops is None else 1 + len(CORNERS)) * (1 + self.mirror)

    def spec(self) -> bool | dict:
        "What `views_of` makes these views of again, as plain values: a bool where there is no more in it."
        if self.is_plain: return self.mirror
        return {**asdict(self), 'scales': list(self.scales)}

    def widths(
        self,
        widths: dict,  # Modality -> length of the model's vectors
    ) -> dict:
        "The lengths of the vectors that `embed` gives: those of several scales side by side are longer."
        if self.join == 'mean': return dict(widths)
        return {modality: width if modality == 'title' else width * len(self.scales)
                for modality, width in widths.items()}

    def of_pictures(
        self,
        images: torch.Tensor,  # float (n,3,h,w)
    ) -> list:  # Of each scale a list of float (n,3,h',w'), not yet mirrored
        "The pictures of a batch at each scale: whole, then the crops."
        height, width = images.shape[-2:]
        parts = [images]
        if self.crops is not None:
            size = [max(1, round(side * self.crops)) for side in (height, width)]
            for down, right in CORNERS:
                top, left = round((height - size[0]) * down), round((width - size[1]) * right)
                parts.append(images[..., top:top + size[0], left:left + size[1]])
        sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in self.scales]
        return [[resized(part, size) for part in parts] for size in sizes]

    def embed(
        self,
        model,  # Has `embed(*inputs, tta=)`, which averages with mirror images, as `MatchNet` has
        *inputs,  # A batch's images (n,3,h,w), of several frames each, and token ids (n,l)
    ) -> dict:  # Modality -> float32 (n,d), of unit length
        "The embeddings of a batch over all views."
        of_scales = [_mean([self._embed_one(model, view) for view in views])
                     for views in self._batches(inputs)]
        if self.join == 'mean': return _mean(of_scales)
        return {modality: of_scales[0][modality] if modality == 'title'
                else torch.cat([each[modality] for each in of_scales], 1) / len(of_scales)**.5
                for modality in of_scales[0]}

    def _embed_one(self, model, inputs):
        try: return model.embed(*inputs, tta=self.mirror)
        # what timm raises for a size that an encoder can't take
        except AssertionError as error: raise _wrong_size(self, inputs, error) from error

    def _batches(self, inputs):
        "Of each scale the batches of its views; a batch without pictures stays as it is."
        changed = [self.of_pictures(each) if is_picture(each) else None for each in inputs]
        if not any(changed): return [[inputs]]
        n_parts = 1 if self.crops is None else 1 + len(CORNERS)
        return [[[each if views is None else views[scale][part] for each, views in zip(inputs, changed)]
                 for part in range(n_parts)] for scale in range(len(self.scales))]

    def batches(
        self,
        inputs,  # A batch's inputs, pictures among them (n,3,h,w)
    ) -> list:  # Of lists of inputs, mirrored ones too
        "All views of a batch, one after the other: for models that embed nothing, such as classifiers."
        found = []
        for batch in (batch for of_scale in self._batches(inputs) for batch in of_scale):
            found.append(batch)
            if self.mirror and any(map(is_picture, batch)):
                found.append([each.flip(-1) if is_picture(each) else each for each in batch])
        return found


def is_picture(
    batch,  # An input of a model
) -> bool:
    "Whether an input holds pictures, (n,3,h,w), and no token ids, counts or features of frames."
    return batch.ndim == 4


def resized(
    images: torch.Tensor,  # float (n,3,h,w)
    size: tuple,  # (height, width) in pixels
) -> torch.Tensor:  # float (n,3,height,width)
    "Pictures in another size: bilinear, with neighbors averaged where they shrink."
    if tuple(images.shape[-2:]) == tuple(size): return images
    return F.interpolate(images, size, mode='bilinear', align_corners=False, antialias=True)


def views_of(
    tta,  # `Views`, or what their `spec` gave: True (the mirror image too), False or None (neither), a dict
) -> Views:
    "The views that an option `tta` means; raises `InputError` for something else."
    if isinstance(tta, Views): return tta
    if tta is None or isinstance(tta, bool): return Views(mirror=bool(tta))
    if isinstance(tta, dict):
        known = [each.name for each in fields(Views)]
        unknown = [name for name in tta if name not in known]
        if unknown: raise InputError(f'tta={tta}: unknown {unknown}, there are {known}')
        return Views(**tta)
    raise InputError(f'tta={tta!r}: give True, False or Views(scales=(1, 1.25))')


def _mean(embeddings):
    "The mean of unit vectors by modality, of unit length again; one alone stays exactly as it is."
    if len(embeddings) == 1: return embeddings[0]
    return {modality: F.normalize(sum(each[modality] for each in embeddings)) for modality in embeddings[0]}


def _wrong_size(views, inputs, error):
    sizes = ['x'.join(map(str, each.shape[-2:])) for each in inputs if is_picture(each)]
    return InputError(f'tta: the image encoder reads no pictures of {sizes[0] if sizes else "this size"} '
                      f'({error}); scales={views.scales}')


__all__ = ['Views', 'views_of']
