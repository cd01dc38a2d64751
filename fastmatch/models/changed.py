"Image encoders with changed blocks: `with_ibn` and `with_attention`."
from pathlib import Path

from ..core import InputError, checks_options
from .changes import apply_change, maps_after
from .image import ImageEncoder


@checks_options(ImageEncoder)
def with_ibn(
    # Name, folder or file of a timm model, as `ImageEncoder` takes it, or an `ImageEncoder`, which is changed
    # in place
    image_arch,
    variant: str = 'a',  # 'a' or 'b', as the paper calls them
    **options,  # For `ImageEncoder`, where a name is given: pretrained, pool, img_size, ...
) -> ImageEncoder:
    """An image encoder with instance normalization in some of its blocks:
    `match_learner(dls, with_ibn('resnet50'))`, https://arxiv.org/abs/1807.09441

    The paper uses it for pictures that look unlike those of the training, in colors, contrast or style.
    The model's weights are loaded first and stay as far as there is a place for them. 'a' normalizes half of
    the channels by instance and half by batch in the first normalization of each block: of a ResNet in all
    stages but the last, of an EfficientNet in those before its last halving. 'b', for ResNets alone, has
    instance normalization in the place of the stem's, and after the last addition of stages 1 and 2. Raises
    `InputError`, and leaves the model as it was, where its blocks have no such normalizations, and where IBN
    or attention was put in their place before.
    """
    return _changed(image_arch, options, lambda encoder: {'ibn': variant})


@checks_options(ImageEncoder)
def with_attention(
    # Name, folder or file of a timm model, as `ImageEncoder` takes it, or an `ImageEncoder`, which is changed
    # in place
    image_arch,
    attention: str,  # 'scse', 'cbam' or 'bam'
    after: str | tuple | list,  # Names of the blocks that it comes behind: 'layer3', ('blocks.2', 'blocks.4')
    **options,  # For `ImageEncoder`, where a name is given: pretrained, pool, img_size, ...
) -> ImageEncoder:
    """An image encoder with attention over the feature maps behind some of its blocks:
    `match_learner(dls, with_attention('resnet50', 'cbam', ('layer2', 'layer3')))`

    Its weights are random ones, which change what the model computes from the start, and are trained with
    the rest; 'bam' needs batches of two pictures at least in training. Raises `InputError` for a block that
    there isn't, for one that gives no feature map (n,c,h,w) or (n,h,w,c), and for one inside another that has
    attention.
    """
    blocks = (after,) if isinstance(after, str) else tuple(after)
    if not blocks: raise InputError('after: name one block at least')

    def change(encoder):
        earlier = [block for made in encoder.changes for block in made.get('after', ())]
        _check_apart(blocks, (*blocks, *earlier))
        return {'attention': attention, **maps_after(encoder.body, blocks, encoder.made_for)}
    return _changed(image_arch, options, change)


def _check_apart(blocks, taken):
    "Raise `InputError` where a block lies inside one that has attention behind it: its name would change."
    for block in blocks:
        for other in taken:
            if block.startswith(f'{other}.'):
                raise InputError(f'after={block!r} lies inside {other!r}, which has attention behind it '
                                 'already: name one of both, or put in the inner one first, by a call of '
                                 'its own')


def _changed(image_arch, options, change_of):
    if not isinstance(image_arch, (str, Path, ImageEncoder)):
        raise InputError(f'image_arch: {type(image_arch).__name__} can not be changed: give the name, folder '
                         'or file of a timm model, or an ImageEncoder; parts come after it: match_learner('
                         "dls, with_ibn('resnet50', pool='map'), parts=Parts((1, 2), stride=None))")
    if isinstance(image_arch, ImageEncoder) and options:
        raise InputError(f'{sorted(options)}: the encoder was given ready-made')
    encoder = image_arch if isinstance(image_arch, ImageEncoder) else ImageEncoder(image_arch, **options)
    change = change_of(encoder)
    apply_change(encoder.body, change)
    encoder.changes = [*encoder.changes, change]
    return encoder
