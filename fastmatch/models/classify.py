"The classification model: the matching encoders under one head of classes; several pictures an item are averaged."
import torch
from torch import nn

from ..core import HeadOutput, InputError, auto_scale


class ClassifyNet(nn.Module):
    "Encoders, a BatchNorm for each, dropout and a head: logits (n,c). A cosine head gives its `HeadOutput` in training, scaled cosines in evaluation."
    def __init__(
        self,
        n_classes: int,  # Classes
        image: nn.Module | None = None,  # Image encoder with `n_out`, or None
        title: nn.Module | None = None,  # Title encoder with `n_out`, or None
        frames: int = 1,  # Pictures of an item, that many inputs in front of the title's
        p: float = .2,  # Dropout before the head
        head_func=nn.Linear,  # (width, n_classes) -> head: `CosineHead` for margin losses
    ):
        super().__init__()
        encoders = {k: v for k, v in (('image', image), ('title', title)) if v is not None}
        if not encoders: raise InputError('a model needs an image encoder, a title encoder, or both')
        if n_classes < 2: raise InputError(f'{n_classes} class: a head needs two at least')
        self.encoders, self.frames = nn.ModuleDict(encoders), frames if image is not None else 0
        # each modality on a scale of its own: the wider or larger one doesn't drown the other
        self.necks = nn.ModuleDict({k: nn.BatchNorm1d(v.n_out) for k, v in encoders.items()})
        self.drop, self.head = nn.Dropout(p), head_func(sum(v.n_out for v in encoders.values()), n_classes)

    def features(self, *xs) -> dict:
        "The encoders' features (n,d) by modality, of several pictures the mean."
        want = self.frames + ('title' in self.encoders)
        if len(xs) != want: raise InputError(f'the model reads {self.frames} picture(s){" and a title" if want > self.frames else ""}; the batch has {len(xs)} inputs')
        res = {}
        if self.frames:
            views = torch.cat([o.as_subclass(torch.Tensor) for o in xs[:self.frames]]) if self.frames > 1 else xs[0]
            res['image'] = self.encoders['image'](views).unflatten(0, (self.frames, -1)).mean(0)
        if want > self.frames: res['title'] = self.encoders['title'](xs[-1])
        return res

    def forward(self, *xs):
        out = self.head(self.drop(torch.cat([self.necks[k](v) for k, v in self.features(*xs).items()], 1)))
        return out.cos * auto_scale(out.cos.shape[1]) if isinstance(out, HeadOutput) and not self.training else out

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: 'image', 'title', and 'head' for BatchNorms and head."
        return {**{k: list(v.parameters()) for k, v in self.encoders.items()}, 'head': [*self.necks.parameters(), *self.head.parameters()]}
