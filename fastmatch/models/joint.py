"""The matching model: encoders, and for each modality and their joint embedding a neck and a head of class
centers."""
import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError
from ..layers.heads import CosineHead
from ..layers.pooling import BNNeck
from .compiling import plain
from .fusion import Streams
from .layered import encoder_groups
from .parts import part_slices, unit_parts


class MatchNet(Streams, nn.Module):
    """Encoders, necks and heads for matching.

    It takes a batch's images (n,3,h,w) and token ids of titles (n,l), in this order, as far as it has
    encoders for them. With a `fusion` it reads what `Streams.read` does, and its only modality is the joint
    one. In training it returns a dict modality -> `HeadOutput`, in evaluation a dict
    modality -> embeddings (n,d), float32 of unit length.

    An image encoder with parts (`PartEncoder`) has a head for each part: in training they are 'image_1of2'
    and so on in place of 'image'.
    """
    by_layer = False  # whether each layer of an encoder is a parameter group: 'image.0', 'image.1', ...

    def __init__(
        self,
        n_classes: int | None,  # Training groups; None: no heads, for a model that only embeds
        image: nn.Module | None = None,  # Image encoder with `n_out`, or None
        title: nn.Module | None = None,  # Title encoder with `n_out`, or None
        heads: tuple | None = None,  # Which of 'image', 'title', 'joint' get a head; None: all there can be
        # BatchNorm neck before each head; 'raw': pair losses read the feature before it, as in its paper; or
        # a function from a feature's width to a neck: `partial(ProjectNeck, n_out=256)`
        neck=True,
        # (width, n_classes) -> head: `SampledHead`, `TrackedHead`, `partial(CosineHead, k=3)`, your own
        head_func=CosineHead,
        # Joins pictures and title before the neck, as `make_fusion` makes it; None: a head each
        fusion: nn.Module | None = None,
        frame_width: int | None = None,  # Length of the features of frames, where a fusion reads them
    ):
        super().__init__()
        self.fusion = fusion
        # of pretraining that goes on beside the loss of the labels: a module (net, `StreamBatch`) -> losses
        self.objectives = None
        self.frame_width = image.n_out if image is not None else frame_width
        given = {'image': image, 'title': title}
        encoders = {modality: encoder for modality, encoder in given.items() if encoder is not None}
        if not encoders: raise InputError('a model needs an image encoder, a title encoder, or both')
        if not callable(neck) and neck not in (True, False, 'raw'):
            raise InputError(f"neck={neck!r}: choose True, False or 'raw', or give a function from a width "
                             'to a neck')
        if n_classes is not None and n_classes < 2:
            raise InputError(f'{n_classes} training group: a head needs two at least')
        self.encoders = nn.ModuleDict(encoders)
        widths = {modality: encoder.n_out for modality, encoder in encoders.items()}
        if fusion is not None: widths = {'joint': fusion.n_out}
        elif len(widths) > 1: widths['joint'] = sum(widths.values())
        if isinstance(heads, str): raise InputError(f'heads={heads!r}: give a tuple, ({heads!r},)')
        unknown = [modality for modality in heads or () if modality not in widths]
        if unknown: raise InputError(f'heads={unknown}: this model can have {list(widths)}')
        widths = {modality: width for modality, width in widths.items() if heads is None or modality in heads}
        self.necks = nn.ModuleDict({modality: _neck(neck, width) for modality, width in widths.items()})
        self.widths = {modality: _width_after(neck_module, widths[modality])
                       for modality, neck_module in self.necks.items()}
        for modality, width in widths.items(): self._check_width(modality, width)
        self.heads = nn.ModuleDict({} if n_classes is None else {
            name: head_func(columns.stop - columns.start, n_classes)
            for modality in self.widths for name, columns in self.columns(modality).items()})
        self.raw = neck == 'raw'

    def columns(
        self,
        modality: str,  # 'image', 'title' or 'joint'
    ) -> dict:  # Head -> slice
        "Which columns of a modality's embedding each of its heads reads: all of them, or those of one part."
        parts = part_slices(self.encoders[modality]) if modality in self.encoders else None
        if parts is None: return {modality: slice(0, self.widths[modality])}
        return {f'{modality}_{part}': columns for part, columns in parts.items()}

    def _check_width(self, modality, width):
        "Raise `InputError` for a neck that would mix the parts of a picture."
        if modality not in self.encoders or part_slices(self.encoders[modality]) is None: return
        if self.widths[modality] != width:
            raise InputError(f'neck: it makes {self.widths[modality]} numbers of the {width} of all parts, '
                             'which would mix them; how wide a part is is said by Parts(width=...)')

    def features(self, *inputs) -> dict:
        "The encoders' features (n,d) by modality, as they are before neck and head."
        if self.fusion is not None: return {'joint': self.fuse(self.read(*inputs)).pooled}
        if len(inputs) != len(self.encoders):
            raise InputError(f'the model reads {list(self.encoders)}; the batch has {len(inputs)} inputs')
        pairs = zip(self.encoders.items(), inputs, strict=True)
        return {modality: encoder(plain(batch)) for (modality, encoder), batch in pairs}

    def _with_joint(self, features):
        "The features, and where the model has it the joint one: all side by side."
        if 'joint' not in self.widths or 'joint' in features: return features
        # unit length first, so that the wider or larger modality doesn't drown the other
        joint = torch.cat([self.unit(modality, feature) for modality, feature in features.items()], 1)
        return {**features, 'joint': joint}

    def embed_features(
        self,
        features: dict,  # Modality -> (n,d), as `features` gives them
    ) -> dict:  # Modality -> float32 (n,d)
        "Embeddings of unit length from the encoders' features: joint one, neck and normalization."
        features = self._with_joint(features)
        after_neck = {modality: self.necks[modality](features[modality]) for modality in self.widths}
        return {modality: self.unit(modality, feature) for modality, feature in after_neck.items()}

    def unit(
        self,
        modality: str,  # 'image', 'title' or 'joint'
        features,  # (n,d)
    ):  # (n,d)
        "Features as float32 of unit length; where they are of parts, each part is of the same length."
        n_parts = len(getattr(self.encoders[modality], 'part_names', [])) if modality in self.encoders else 0
        return unit_parts(features, n_parts) if n_parts else F.normalize(features.float())

    def forward(self, *inputs):
        batch = None
        if self.objectives is not None and self.training: batch = self.read(*inputs)
        features = self.features(*inputs) if batch is None else {'joint': self.fuse(batch).pooled}
        if not self.training: return self.embed_features(features)
        features = self._with_joint(features)
        outputs = {}
        for modality in self.widths:
            after_neck = self.necks[modality](features[modality])
            for name, columns in self.columns(modality).items():
                output = self.heads[name](after_neck[:, columns])
                outputs[name] = output._replace(emb=features[modality][:, columns]) if self.raw else output
        return outputs if batch is None else {**outputs, **self.objectives(self, batch)}

    @torch.inference_mode()
    def embed(
        self,
        *inputs,  # A batch's images and token ids, as for `forward`
        # Test-time augmentation: average each picture's embedding with that of its mirror image
        tta: bool = False,
    ) -> dict:
        """The embeddings (n,d) of a batch by modality, float32 of unit length; a model in training mode
        stays in it."""
        training = self.training
        self.eval()
        try:
            features = self.features(*inputs)
            embeddings = self.embed_features(features)
            if not tta or 'image' not in self.encoders: return embeddings
            # titles have no mirror image: their features are taken as they are
            if self.fusion is None:
                of_mirrored = self.encoders['image'](plain(inputs[0]).flip(-1))
                mirrored = self.embed_features({**features, 'image': of_mirrored})
            else:
                flipped = [each.flip(-1) if each.ndim == 4 else each for each in inputs]
                mirrored = self.embed_features(self.features(*flipped))
            return {modality: F.normalize(embedding + mirrored[modality])
                    for modality, embedding in embeddings.items()}
        finally: self.train(training)

    def param_groups(self) -> dict[str, list]:
        """Parameters by name, encoders first: 'image', 'title', 'fusion' where there is one, 'centers' where
        heads have them, and 'head' for necks and heads."""
        groups = encoder_groups(self.encoders, self.by_layer)
        if self.fusion is not None: groups['fusion'] = list(self.fusion.parameters())
        centers = [parameter for head in self.heads.values()
                   for name, parameter in head.named_parameters() if name == 'centers']
        if centers: groups['centers'] = centers
        kept = () if self.objectives is None else self.objectives.parameters()
        others = (*self.necks.parameters(), *self.heads.parameters(), *kept)
        others = [parameter for parameter in others if not any(parameter is center for center in centers)]
        return {**groups, 'head': others}


def _neck(neck, width):
    "The neck for a feature of some width."
    if isinstance(neck, nn.Module):
        raise InputError(f'neck={type(neck).__name__}: give a function that makes one for each width, e.g. '
                         'partial(ProjectNeck, n_out=256)')
    if not callable(neck): return BNNeck(width) if neck else nn.Identity()
    try: made = neck(width)
    except TypeError as error:
        raise InputError(f'neck={getattr(neck, "__name__", neck)}: of a width alone it makes no neck '
                         f'({error}); give e.g. partial(ProjectNeck, n_out=256)') from error
    if not isinstance(made, nn.Module):
        raise InputError(f'neck={neck!r}: of the width {width} it makes {type(made).__name__} and no module')
    return made


def _width_after(neck, width):
    "The width of an embedding after a neck."
    was_training = neck.training
    try: embeddings = neck.eval()(torch.zeros(2, width))
    # whatever a neck of the user's own raises
    except Exception as error:
        raise InputError(f'neck={type(neck).__name__}: it can not read features (2, {width}) '
                         f'({type(error).__name__}: {error})') from error
    finally: neck.train(was_training)
    if embeddings.ndim == 2 and len(embeddings) == 2: return embeddings.shape[1]
    raise InputError(f'neck={type(neck).__name__}: of features (2, {width}) it makes '
                     f'{tuple(embeddings.shape)}')
