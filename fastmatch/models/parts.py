"""Parts of a picture, each with an embedding of its own: horizontal stripes or cells of the feature map.

PCB (https://arxiv.org/abs/1711.09349) cuts the map into six stripes, MGN (https://arxiv.org/abs/1804.01438)
takes the whole map, two stripes and three. A part has its own head in training, so that each has to tell the
products apart by itself; the embedding of the picture is that of all parts side by side.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError, preview
from .image import features_of
from .module import MAP_POOLS


@dataclass(frozen=True)
class Parts:
    """Which parts of a feature map have an embedding of their own, and how it is made.

    `cuts` lists granularities: 1 is the whole map, 3 three horizontal stripes, (2, 2) four cells. It may also
    be a function from a feature map (n,c,h,w) to a list of maps (n,c,_,_), which trains and embeds; it can't
    be saved in a matcher or drawn.
    """
    cuts: tuple | Callable = (6,)
    width: int | None = 256  # Width of a part's embedding, by a linear layer of its own; None: the map's
    pool: str = 'avg'  # How a part is pooled: 'avg', 'max' or 'gem' (one power for all parts)
    # Pixels between two cells of the map: 16 leaves out the last halving of a model that would have 32, as
    # both papers do; None: the model's own, which one that is given ready-made keeps
    stride: int | None = 16

    def __post_init__(self):
        if self.pool not in MAP_POOLS:
            raise InputError(f'pool={self.pool!r}: a part is pooled by one of {list(MAP_POOLS)}')
        if self.width is not None and not self.width >= 1: raise InputError(f'width={self.width}: 1 at least')
        if callable(self.cuts): return
        if not self.cuts: raise InputError('cuts: name one granularity at least')
        # frozen: json gives lists
        object.__setattr__(self, 'cuts', tuple(_granularity(cut) for cut in self.cuts))
        if len(set(self.cuts)) < len(self.cuts): raise InputError(f'cuts={self.cuts}: each granularity once')

    @property
    def grids(self) -> list[tuple]:
        "(rows, columns) of each granularity."
        return [(cut, 1) if isinstance(cut, int) else cut for cut in self.cuts]

    def boxes(self) -> dict:
        """Part -> (top, left, bottom, right) as shares of the picture; `InputError` where `cuts` is a
        function."""
        if callable(self.cuts): raise InputError('cuts: where the parts of a function lie is not known')
        return {_name_of(grid, row, column):
                (row / grid[0], column / grid[1], (row + 1) / grid[0], (column + 1) / grid[1])
                for grid in self.grids for row in range(grid[0]) for column in range(grid[1])}

    def cut(
        self,
        feature_map: torch.Tensor,  # (n,c,h,w)
    ) -> dict:  # Part -> (n,c,_,_)
        "Cut a feature map into its parts; `InputError` where a granularity doesn't divide its cells."
        if callable(self.cuts): return _given_parts(self.cuts, feature_map)
        height, width = feature_map.shape[2:]
        parts = {}
        for rows, columns in self.grids:
            _check_divides(rows, height, 'stripes', 'rows')
            _check_divides(columns, width, 'columns of cells', 'columns')
            row_height, column_width = height // rows, width // columns
            for row in range(rows):
                for column in range(columns):
                    parts[_name_of((rows, columns), row, column)] = feature_map[
                        :, :, row * row_height:(row + 1) * row_height,
                        column * column_width:(column + 1) * column_width]
        return parts


def parts_of(
    given,  # 'pcb', 'mgn', `Parts`, or a function from a feature map to a list of maps
) -> Parts:
    "What was asked for as `parts`; `InputError` for anything else."
    if isinstance(given, Parts): return given
    if isinstance(given, str) and given in PARTS: return PARTS[given]
    if callable(given): return Parts(given)
    raise InputError(f'parts={given!r}: choose one of {list(PARTS)}, Parts((1, 2, (2, 2))), or a function '
                     'from a feature map to a list of maps')


def _granularity(cut):
    counts = (cut,) if isinstance(cut, int) else tuple(cut) if isinstance(cut, (tuple, list)) else ()
    is_known = counts and len(counts) <= 2 and all(isinstance(count, int) and count >= 1 for count in counts)
    if not is_known:
        raise InputError(f'cuts: {cut!r} is no granularity: give a number of stripes, or (rows, columns)')
    return counts[0] if len(counts) == 1 or counts[1] == 1 else counts


def _name_of(grid, row, column):
    rows, columns = grid
    if rows == columns == 1: return 'whole'
    if columns == 1: return f'{row + 1}of{rows}'
    return f'{row + 1}_{column + 1}of{rows}x{columns}'


def _check_divides(count, cells, parts, axis):
    if cells % count == 0: return
    divisors = [number for number in range(1, cells + 1) if cells % number == 0]
    raise InputError(f"parts: {count} {parts} don't divide the {cells} {axis} of the feature map: choose one "
                     f'of {preview(divisors, 8)}, or pictures of another size (a cell of the map stands for '
                     '32 pixels of most models, for 16 with stride=16)')


def _given_parts(function, feature_map):
    "The parts that a function of the user's own makes, by number."
    maps = function(feature_map)
    if not isinstance(maps, (tuple, list)) or not maps:
        raise InputError(f'parts: the function made {type(maps).__name__} and no list of maps')
    for part in maps:
        if not torch.is_tensor(part) or part.ndim != 4 or part.shape[:2] != feature_map.shape[:2]:
            shape = tuple(part.shape) if torch.is_tensor(part) else type(part).__name__
            raise InputError(f'parts: of a map {tuple(feature_map.shape)} the function made {shape} and not '
                             f'maps ({feature_map.shape[0]},{feature_map.shape[1]},_,_)')
    return {f'part{number}': part for number, part in enumerate(maps, 1)}


PARTS = {'pcb': Parts((6,)), 'mgn': Parts((1, 2, 3), pool='max')}


class PartEncoder(nn.Module):
    """An image encoder that embeds the parts of a picture: pictures (n,3,h,w), normalized by `mean` and
    `std`, to (n, n_out), the features of all parts side by side.

    `match_learner(dls, parts='pcb')` makes one. Each part is pooled, and has a linear layer of its own where
    `parts.width` is given. A model that has it gives each part a head, and in evaluation scales each part to
    unit length, so that a cosine of two pictures is the mean of the cosines of their parts.
    """
    def __init__(
        self,
        encoder: nn.Module,  # Encoder that gives a feature map: `ImageEncoder(name, pool='map')`
        parts='pcb',  # 'pcb', 'mgn', `Parts`, or a function from a feature map to a list of maps
        # (height, width) of the pictures to come; None: those that the model was made for, or 224 x 224
        img_size: tuple | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.parts = parts_of(parts)
        self.mean, self.std = list(encoder.mean), list(encoder.std)
        self.pool = MAP_POOLS[self.parts.pool]()
        self.img_size = tuple(img_size or getattr(encoder, 'made_for', None) or (224, 224))
        feature_map = _map_of(encoder, self.img_size)
        self.part_names = list(self.parts.cut(feature_map))
        n_channels = feature_map.shape[1]
        self.part_width = self.parts.width or n_channels
        self.reductions = nn.ModuleList()
        if self.parts.width is not None:
            self.reductions.extend(nn.Linear(n_channels, self.part_width, bias=False)
                                   for _ in self.part_names)
        self.n_out = self.part_width * len(self.part_names)

    @property
    def body(self):
        "The model inside, whose layers `layer_decay` counts."
        return self.encoder.body

    def forward(self, images):
        pooled = [self.pool(part) for part in self.parts.cut(self.encoder(images)).values()]
        if len(self.reductions):
            pooled = [reduction(part) for reduction, part in zip(self.reductions, pooled, strict=True)]
        return torch.cat(pooled, 1)

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        from .registry import encoder_spec
        if callable(self.parts.cuts):
            raise InputError("parts: a function can't be saved in a matcher; Parts((1, 2, (2, 2))) can")
        cuts = [list(cut) if isinstance(cut, tuple) else cut for cut in self.parts.cuts]
        return {'encoder': encoder_spec('image', self.encoder), 'cuts': cuts, 'width': self.part_width,
                'is_reduced': bool(len(self.reductions)), 'pool': self.parts.pool,
                'img_size': list(self.img_size)}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'PartEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        from .registry import encoder_from_spec
        parts = Parts(tuple(spec['cuts']), spec['width'] if spec['is_reduced'] else None, spec['pool'])
        encoder = encoder_from_spec('image', spec['encoder'])
        # earlier versions kept no size: one that every granularity divides
        rows, columns = (math.lcm(*counts) for counts in zip(*parts.grids))
        return cls(encoder, parts, tuple(spec.get('img_size') or (32 * rows, 32 * columns)))


def _map_of(encoder, size):
    "The feature map of an empty picture (height, width); `InputError` where there is none."
    name = getattr(encoder, 'name', type(encoder).__name__)
    features, problem = features_of(encoder, size)
    if problem is not None:
        raise InputError(f'parts: {name} can not read pictures of {size[0]} x {size[1]} pixels '
                         f'({type(problem).__name__}: {problem})') from problem
    if features.ndim == 4 and features.shape[1] == encoder.n_out: return features
    raise InputError(f'parts: {name} gives no feature map (n,{encoder.n_out},h,w), but '
                     f"{tuple(features.shape)}: take a convolutional model or a Swin, made with pool='map' "
                     'where you make it yourself')


def make_part_encoder(
    name,  # As `make_encoder` takes it, or an encoder that gives a feature map
    parts,  # 'pcb', 'mgn', `Parts`, or a function from a feature map to a list of maps
    pretrained: bool = True,  # Load weights; False: random ones
    pool: str | None = None,  # How a part is pooled; None: as `parts` says
    img_size: tuple | None = None,  # (height, width) of the pictures to come
) -> PartEncoder:
    "Make the encoder of the parts of a picture; `InputError` for one without a feature map."
    from .registry import make_encoder
    wanted = parts_of(parts)
    if pool is not None: wanted = replace(wanted, pool=pool)
    if isinstance(name, PartEncoder):
        raise InputError('parts: the encoder given has parts of its own already')
    if isinstance(name, nn.Module) and hasattr(name, 'n_out'): return PartEncoder(name, wanted, img_size)
    encoder = make_encoder('image', name, pretrained, 'map', img_size=img_size, output_stride=wanted.stride)
    return PartEncoder(encoder, wanted, img_size)


def part_slices(
    encoder: nn.Module,  # Image or title encoder
) -> dict | None:  # Part -> slice of the columns of a feature (n, n_out); None for an encoder without parts
    "Which columns of an encoder's features are those of which part."
    names = getattr(encoder, 'part_names', None)
    if names is None: return None
    width = encoder.part_width
    return {name: slice(number * width, (number + 1) * width) for number, name in enumerate(names)}


def unit_parts(
    features: torch.Tensor,  # (n,d)
    n_parts: int,  # Parts of equal width that lie side by side in them
) -> torch.Tensor:  # float32 (n,d), of unit length; float64 stays float64
    "Scale each part to the same length, so that the cosine of two rows is the mean of their parts' cosines."
    if features.dtype != torch.float64: features = features.float()
    units = F.normalize(features.unflatten(1, (n_parts, -1)), dim=2)
    return units.flatten(1) / n_parts**.5
