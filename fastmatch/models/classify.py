"The classification model: encoders as for matching, with a head of classes on each."
import torch
from torch import nn

from ..core import HeadOutput, InputError, auto_scale
from .layered import encoder_groups


class ClassifyNet(nn.Module):
    """Encoders, each with BatchNorm, dropout and a head.

    It takes a batch's pictures (`frames` inputs (n,3,h,w), whose features are averaged) and token ids of
    titles (n,l), in this order, as far as it has encoders for them. In training it returns what each head
    returns (a dict by modality where there are several), in evaluation logits (n, n_classes): the heads'
    mean, weighted by `weights`.
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
    ):
        super().__init__()
        given = {'image': image, 'title': title}
        encoders = {modality: encoder for modality, encoder in given.items() if encoder is not None}
        if not encoders: raise InputError('a model needs an image encoder, a title encoder, or both')
        if n_classes < 2: raise InputError(f'{n_classes} class: a head needs two at least')
        self.weights = {modality: float((weights or {}).get(modality, 1.)) for modality in encoders}
        unknown = set(weights or {}) - set(encoders)
        if unknown: raise InputError(f'weights names {sorted(unknown)}; the model has {list(encoders)}')
        if not (min(self.weights.values()) >= 0 and sum(self.weights.values()) > 0):
            raise InputError(f'weights={weights}: 0 or above, not all 0')
        self.encoders = nn.ModuleDict(encoders)
        self.frames = frames if image is not None else 0
        self.necks = nn.ModuleDict({modality: nn.Sequential(nn.BatchNorm1d(encoder.n_out), nn.Dropout(p))
                                    for modality, encoder in encoders.items()})
        self.heads = nn.ModuleDict({modality: head_func(encoder.n_out, n_classes)
                                    for modality, encoder in encoders.items()})

    def features(self, *inputs) -> dict:
        "The encoders' features (n,d) by modality; of several pictures their mean."
        reads_title = 'title' in self.encoders
        if len(inputs) != self.frames + reads_title:
            raise InputError(f'the model reads {self.frames} '
                             f'picture(s){" and a title" if reads_title else ""}; '
                             f'the batch has {len(inputs)} inputs')
        features = {}
        if self.frames: features['image'] = self._picture_features(inputs[:self.frames])
        if reads_title: features['title'] = self.encoders['title'](inputs[-1])
        return features

    def _picture_features(self, pictures):
        "The mean over an item's pictures, all of them through the encoder as one batch."
        if len(pictures) == 1: views = pictures[0]
        else: views = torch.cat([picture.as_subclass(torch.Tensor) for picture in pictures])
        return self.encoders['image'](views).unflatten(0, (len(pictures), -1)).mean(0)

    def forward(self, *inputs):
        features = self.features(*inputs)
        outputs = {modality: self.heads[modality](self.necks[modality](feature))
                   for modality, feature in features.items()}
        if self.training: return outputs if len(outputs) > 1 else next(iter(outputs.values()))
        weighted_sum = sum(self.weights[modality] * _logits(output) for modality, output in outputs.items())
        return weighted_sum / sum(self.weights.values())

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: 'image', 'title', and 'head' for BatchNorms and heads."
        groups = encoder_groups(self.encoders, self.by_layer)
        return {**groups, 'head': [*self.necks.parameters(), *self.heads.parameters()]}


def _logits(output):
    """Logits (n,c): what a linear head returns, or the cosines of a cosine head at the scale that a softmax
    over them needs."""
    return output.cos * auto_scale(output.cos.shape[1]) if isinstance(output, HeadOutput) else output
