"The classification model: encoders as for matching, with a head of classes on each."
import torch
from torch import nn

from ..core import HeadOutput, InputError, auto_scale
from .compiling import plain
from .fusion import Streams, masked_mean
from .layered import encoder_groups


class ClassifyNet(Streams, nn.Module):
    """Encoders, each with BatchNorm, dropout and a head; or a fusion of them with one head.

    It takes a batch's pictures (`frames` inputs (n,3,h,w), or one of features (n,f,d)), with several int64
    (n,) of how many are there, and token ids of titles (n,l), in this order, as far as it reads them. The
    features of an item's pictures are averaged. In training it returns what each head returns (a dict by
    modality where there are several), in evaluation logits (n, n_classes): the heads' mean, weighted by
    `weights`.
    """
    # one head over both features side by side did worse than the text alone (macro-F1 on the data set
    # fritzing: .83, text alone .85, a head each .88): the text fits sooner, and then the pictures are no
    # longer trained
    by_layer = False  # whether each layer of an encoder is a parameter group: 'image.0', 'image.1', ...

    def __init__(
        self,
        n_classes: int,  # Classes
        image: nn.Module | None = None,  # Image encoder with `n_out`, or None
        title: nn.Module | None = None,  # Title encoder with `n_out`, or None
        frames: int = 1,  # Pictures of an item: so many inputs come before the title's
        p: float = .2,  # Dropout before the head
        head_func=nn.Linear,  # (width, n_classes) -> head: `CosineHead` for margin losses
        # Weight of a modality's logits in evaluation: {'image': .5}; 1 where not named
        weights: dict | None = None,
        frame_width: int | None = None,  # Length of the features of pictures, where it reads them; or None
        # Joins pictures and title before one head, as `make_fusion` makes it; None: a head each
        fusion: nn.Module | None = None,
    ):
        super().__init__()
        given = {'image': image, 'title': title}
        encoders = {modality: encoder for modality, encoder in given.items() if encoder is not None}
        widths = {modality: encoder.n_out for modality, encoder in encoders.items()}
        if frame_width is not None: widths = {'image': frame_width, **widths}
        if not widths: raise InputError('a model needs an image encoder, a title encoder, or both')
        if n_classes < 2: raise InputError(f'{n_classes} class: a head needs two at least')
        self.fusion = fusion
        # of pretraining that goes on beside the loss of the labels: a module (net, `StreamBatch`) -> losses
        self.objectives = None
        self.frame_width = frame_width if image is None else image.n_out
        if fusion is not None: widths = {'joint': fusion.n_out}
        self.weights = {modality: float((weights or {}).get(modality, 1.)) for modality in widths}
        unknown = set(weights or {}) - set(widths)
        if unknown: raise InputError(f'weights names {sorted(unknown)}; the model has {list(widths)}')
        if not (min(self.weights.values()) >= 0 and sum(self.weights.values()) > 0):
            raise InputError(f'weights={weights}: 0 or above, not all 0')
        self.encoders = nn.ModuleDict(encoders)
        self.reads_features = frame_width is not None
        self.frames = frames if image is not None or self.reads_features else 0
        self.necks = nn.ModuleDict({modality: nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(p))
                                    for modality, width in widths.items()})
        self.heads = nn.ModuleDict({modality: head_func(width, n_classes)
                                    for modality, width in widths.items()})

    def features(self, *inputs) -> dict:
        "The features (n,d) that the heads read, by modality; of several pictures their mean."
        inputs = self._with_counts(inputs)
        if self.fusion is not None: return {'joint': self.fuse(self.read(*inputs)).pooled}
        features = {}
        if self.frames == 1 and not self.reads_features:
            features['image'] = self.encoders['image'](plain(inputs[0]))
        elif self.frames: features['image'] = masked_mean(*self.read_frames(*inputs[:self._picture_inputs]))
        if 'title' in self.encoders: features['title'] = self.encoders['title'](plain(inputs[-1]))
        return features

    @property
    def _picture_inputs(self) -> int:
        "How many inputs of a batch are of pictures, the number of frames included."
        if self.reads_features: return 2
        return self.frames + (self.frames > 1)

    def _with_counts(self, inputs):
        "A batch with the number of each item's pictures; all of them are there where it has none."
        reads_title = 'title' in self.encoders
        n_inputs = self._picture_inputs + reads_title
        if len(inputs) == n_inputs: return inputs
        if self._picture_inputs > 1 and not self.reads_features and len(inputs) == n_inputs - 1:
            counts = torch.full((len(inputs[0]),), self.frames, device=inputs[0].device)
            return (*inputs[:self.frames], counts, *inputs[self.frames:])
        pictures = f'features of {self.frames}' if self.reads_features else f'{self.frames}'
        raise InputError(f'the model reads {pictures} picture(s){" and a title" if reads_title else ""}; '
                         f'the batch has {len(inputs)} inputs')

    def forward(self, *inputs):
        batch = None
        if self.objectives is not None and self.training: batch = self.read(*self._with_counts(inputs))
        features = self.features(*inputs) if batch is None else {'joint': self.fuse(batch).pooled}
        outputs = {modality: self.heads[modality](self.necks[modality](feature))
                   for modality, feature in features.items()}
        if batch is not None: return {**outputs, **self.objectives(self, batch)}
        if self.training: return outputs if len(outputs) > 1 else next(iter(outputs.values()))
        weighted_sum = sum(self.weights[modality] * _logits(output) for modality, output in outputs.items())
        return weighted_sum / sum(self.weights.values())

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: 'image', 'title', 'fusion' where there is one, 'head' for BatchNorms and heads."
        groups = encoder_groups(self.encoders, self.by_layer)
        if self.fusion is not None: groups['fusion'] = list(self.fusion.parameters())
        others = [] if self.objectives is None else self.objectives.parameters()
        return {**groups, 'head': [*self.necks.parameters(), *self.heads.parameters(), *others]}


def _logits(output):
    """Logits (n,c): what a linear head returns, or the cosines of a cosine head at the scale that a softmax
    over them needs."""
    return output.cos * auto_scale(output.cos.shape[1]) if isinstance(output, HeadOutput) else output
