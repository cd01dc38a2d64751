"What two pictures have in common, part by part, for encoders that embed stripes or cells."
import numpy as np
import torch

from ..core import InputError
from ..picture import try_image
from .encode import Encoder


def part_similarities(
    encoder: Encoder,  # Of a model with parts, run by torch: `learn.encoder()`, or `matcher.encoder`
    first,  # File, or an image in memory
    second,  # File, or an image in memory
) -> dict:  # Part -> cosine of the two pictures in it, -1 to 1
    """How similar two pictures are in each part.

    The mean of all is the cosine of the two pictures' embeddings, as they are without further views at test
    time (`tta`); titles have no say in it, and a rule may go by more. Raises `InputError` where the encoder
    has no embeddings of parts, or ONNX Runtime runs it, and for a picture that can't be read.
    """
    names = _part_encoder(encoder).part_names
    # as vectors of each picture alone: the title of a listing says nothing about its parts
    pixels = torch.stack([_input(encoder, picture) for picture in (first, second)])
    with torch.inference_mode():
        features = encoder.model.necks['image'](encoder.model.encoders['image'](pixels))
        vectors = encoder.model.unit('image', features).unflatten(1, (len(names), -1)).double()
    cosines = (vectors[0] * vectors[1]).sum(1) * len(names)
    return dict(zip(names, cosines.tolist(), strict=True))


def draw_parts(
    encoder: Encoder,  # Of a model with parts, run by torch: `learn.encoder()`, or `matcher.encoder`
    first,  # File, or an image in memory
    second,  # File, or an image in memory
):  # matplotlib figure
    """Draw two pictures, and in each stripe or cell how similar they are there; the more, the greener.

    A row for each granularity. Raises `InputError` as `part_similarities` does, and where the parts are those
    of a function.
    """
    import matplotlib.pyplot as plt
    parts = _part_encoder(encoder).parts
    boxes = parts.boxes()
    similarities = part_similarities(encoder, first, second)
    images = [_shown(encoder, _input(encoder, picture)) for picture in (first, second)]
    figure, axes = plt.subplots(len(parts.grids), 2, squeeze=False, layout='constrained',
                                figsize=(5.2, 2.6 * len(parts.grids)))
    remaining = list(boxes.items())
    for row, (n_rows, n_columns) in zip(axes, parts.grids):
        of_grid, remaining = remaining[:n_rows * n_columns], remaining[n_rows * n_columns:]
        for ax, image in zip(row, images):
            ax.imshow(image)
            ax.axis('off')
            for name, box in of_grid: _draw_box(ax, image.shape, box, similarities[name])
    mean = float(np.mean(list(similarities.values())))
    figure.suptitle(f'similarity by part, {mean:.2f} on average', fontsize=9)
    return figure


def _part_encoder(encoder):
    "The image encoder with parts."
    if not isinstance(encoder, Encoder):
        raise InputError(f'encoder: {type(encoder).__name__} given, it must be an Encoder; one that holds '
                         'several has them as attributes')
    images = encoder.model.encoders['image'] if 'image' in encoder.inputs else None
    if not hasattr(images, 'part_names') or 'image' not in encoder.model.necks:
        raise InputError("this encoder has no embeddings of parts: make it with match_learner(dls, "
                         "parts='pcb') and with a head for pictures, and load it with runtime='torch'")
    return images


def _input(encoder, picture):
    "A picture as the encoder reads it, float32 (3,h,w)."
    image, reason = try_image(picture)
    if reason: raise InputError(f'{picture}: {reason}')
    pixels = torch.from_numpy(np.array(encoder.picture(image)))[None].to(encoder.device)
    return encoder.picture.normalize(pixels)[0]


def _shown(encoder, pixels):
    "What the encoder reads as a picture again, float (h,w,3) of 0..1."
    picture = encoder.picture
    mean, std = (torch.tensor(values)[:, None, None] for values in (picture.mean, picture.std))
    return (pixels.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


def _draw_box(ax, shape, box, similarity):
    "One part of a picture, colored by its similarity from 0 (red) to 1 (green)."
    import matplotlib.pyplot as plt
    height, width = shape[:2]
    top, left, bottom, right = box
    color = plt.get_cmap('RdYlGn')(min(max(similarity, 0), 1))
    corner = (left * width - .5, top * height - .5)
    sides = ((right - left) * width, (bottom - top) * height)
    ax.add_patch(plt.Rectangle(corner, *sides, facecolor=(*color[:3], .3), edgecolor='black'))
    ax.text((left + right) / 2 * width, (top + bottom) / 2 * height, f'{similarity:.2f}', ha='center',
            va='center', fontsize=8, bbox={'facecolor': 'white', 'alpha': .7, 'linewidth': 0, 'pad': 1})
