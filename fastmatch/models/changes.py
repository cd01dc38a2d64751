"""What is changed inside an image encoder's blocks after its weights are loaded: IBN in the place of
BatchNorm, attention behind a block.

A change is a dict of plain values, which a saved matcher holds, so that the same architecture is built again.
"""
from difflib import get_close_matches

import torch
from torch import nn

from ..core import InputError, preview
from ..layers.attention import ChannelsLast, make_attention
from ..layers.instance_norm import IBN, instance_norm_like


def apply_change(
    model: nn.Module,  # A timm model, changed in place
    # {'ibn': 'a'}, {'ibn': 'b'}, or {'attention': 'scse', 'after': {'layer3': 1024}}, with 'channels_last' as
    # `maps_after` gives it
    change: dict,
):
    "Make one change in a model; raises `InputError` where it can't be made."
    # a change may come from a stranger's file: it holds names, which are looked up, and numbers
    if set(change) == {'ibn'}: put_ibn(model, change['ibn'])
    elif set(change) | {'channels_last'} == {'attention', 'after', 'channels_last'}:
        for block, n_channels in change['after'].items():
            channels_last = block in change.get('channels_last', ())
            put_attention(model, change['attention'], block, n_channels, channels_last)
    else: raise InputError(f'change={change!r}: there are ibn, and attention with after')


def put_ibn(
    model: nn.Module,  # A timm ResNet; of an EfficientNet 'a' alone
    variant: str,  # 'a' or 'b'
):
    """Put instance normalization into a model in place, https://arxiv.org/abs/1807.09441

    'a': `IBN` as the first normalization of every residual block but those of the last stage. 'b': an
    instance normalization for that of the stem, and one after the last addition of the stages 1 and 2.
    Factors, shifts and statistics of the model's BatchNorm stay as far as there is a place for them. The
    paper has ResNets; for an EfficientNet 'a' does the same in the stages before its last halving. Raises
    `InputError`, and leaves the model as it was, where a block has no such BatchNorm.
    """
    if variant not in ('a', 'b'): raise InputError(f"ibn={variant!r}: choose 'a' or 'b'")
    if hasattr(model, 'layer4') and hasattr(model, 'bn1'): stages = [model.layer1, model.layer2, model.layer3]
    elif variant == 'a' and hasattr(model, 'conv_stem') and hasattr(model, 'blocks'):
        last_before = int(model.feature_info[-2]['module'].split('.')[1])
        stages = model.blocks[:last_before + 1]
    else: raise _no_place(model, variant, 'it has no such stages')
    if variant == 'b':
        _put_after_additions(model, stages[:2])
        return
    blocks = [block for stage in stages for block in stage]
    for block in blocks: _check_norm(model, variant, block, 'bn1')
    for block in blocks: block.bn1 = _ibn_of(block.bn1)


def _no_place(model, variant, reason):
    "The error for a model that has no place for instance normalization."
    name = getattr(model, 'pretrained_cfg', {}).get('architecture') or type(model).__name__
    return InputError(f"ibn={variant!r}: there is no place for it in {name}, as {reason}; of timm there are "
                      "ResNets with BatchNorm (resnet18, resnet50, resnext50_32x4d, resnest50d), and for 'a' "
                      'EfficientNets (efficientnet_b0, mobilenetv3_large_100); attention comes after it: '
                      'with_attention(with_ibn(...), ...)')


def _check_norm(model, variant, block, name):
    "Raise `InputError` unless a block has a BatchNorm of that name."
    norm = getattr(block, name, None)
    if isinstance(norm, nn.BatchNorm2d): return
    found = 'nothing' if norm is None else type(norm).__name__
    raise _no_place(model, variant, f'{type(block).__name__} has {found} as {name} and no BatchNorm2d (was '
                                    'IBN or attention put in before?)')


def _ibn_of(norm):
    "The `IBN` for a BatchNorm, with the activation that timm's may have inside."
    activation = getattr(norm, 'act', None)
    made = IBN.from_batch_norm(norm)
    return made if activation is None else nn.Sequential(made, activation)


def _put_after_additions(model, stages):
    _check_norm(model, 'b', model, 'bn1')
    # a block adds, then calls its last activation
    last_ones = []
    for stage in stages:
        block = stage[-1]
        last = 'act3' if hasattr(block, 'act3') else 'act2'
        if not hasattr(block, last):
            raise _no_place(model, 'b', f'{type(block).__name__} has no activation of its own after its '
                                        'addition (was attention put in before?)')
        _check_norm(model, 'b', block, last.replace('act', 'bn'))
        last_ones.append((block, last))
    model.bn1 = instance_norm_like(model.bn1)
    for block, last in last_ones:
        norm = getattr(block, last.replace('act', 'bn'))
        added = nn.InstanceNorm2d(norm.num_features, affine=True).to(norm.weight)
        setattr(block, last, nn.Sequential(added, getattr(block, last)))


def put_attention(
    model: nn.Module,  # Changed in place
    attention: str,  # 'scse', 'cbam' or 'bam'
    block: str,  # Name of the module that it comes behind: 'layer3', 'blocks.4', 'layer2.0'
    n_channels: int,  # Channels of that module's feature map
    channels_last: bool = False,  # Whether it is (n,h,w,c)
):
    "Put an attention module with random weights behind a named block."
    parent_name, _, name = block.rpartition('.')
    found = _block(model, block)
    made = make_attention(attention, n_channels).to(next(model.parameters()).device)
    if channels_last: made = ChannelsLast(made)
    setattr(model.get_submodule(parent_name), name, nn.Sequential(found, made))


def _block(model, name):
    "The module of that name; `InputError` with near names where there is none."
    names = [path for path, _ in model.named_modules() if path]
    if name in names: return model.get_submodule(name)
    near = get_close_matches(str(name), names, n=3) or [path for path, _ in model.named_children()]
    raise InputError(f'after={name!r}: {type(model).__name__} has no such block; near it: {preview(near)}')


@torch.no_grad()
def maps_after(
    model: nn.Module,  # Of pictures
    blocks: tuple,  # Names of modules of it
    size: tuple = (64, 64),  # (height, width) of the picture that it is tried with
) -> dict:  # 'after': block -> number of channels; 'channels_last': those of (n,h,w,c), where there are any
    "What the feature maps behind some blocks are like; `InputError` for one that gives no map."
    shapes, handles = {}, []
    for block in blocks:
        def note(module, args, output, block=block): shapes[block] = getattr(output, 'shape', ())
        handles.append(_block(model, block).register_forward_hook(note))
    was_training = model.training
    device = next(model.parameters()).device
    try: model.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        model.train(was_training)
        for handle in handles: handle.remove()
    for block in blocks:
        if len(shapes.get(block, ())) != 4:
            raise InputError(f'after={block!r}: it gives {tuple(shapes.get(block, ()))} and no feature map '
                             '(n,c,h,w)')
    last = [block for block in blocks if _has_channels_last(shapes[block], size, model)]
    maps = {'after': {block: shapes[block][3 if block in last else 1] for block in blocks}}
    return {**maps, 'channels_last': last} if last else maps


def _has_channels_last(shape, size, model):
    """Whether a map is (n,h,w,c) and not (n,c,h,w): which two of its lengths are in the proportion of the
    picture's height and width, to a cell. Where that leaves it open, as the model's own map is."""
    height, width = size
    is_first, is_last = (abs(rows * width - columns * height) <= max(size)
                         for rows, columns in (shape[2:], shape[1:3]))
    return getattr(model, 'output_fmt', None) == 'NHWC' if is_first == is_last else is_last
