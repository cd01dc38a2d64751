"The classification model: the matching encoders, a head of classes on each; several pictures an item are averaged."
import torch
from torch import nn

from ..core import HeadOutput, InputError, auto_scale


class ClassifyNet(nn.Module):
    "Encoders with BatchNorm, dropout and a head each. Evaluation gives logits (n,c), the weighted mean of the heads'; training what each head says."
    # one head over features side by side did worse than the text alone (macro-F1 .83 against .85 on fritzing, a head each .88): the text fits sooner
    def __init__(
        self,
        n_classes: int,  # Classes
        image: nn.Module | None = None,  # Image encoder with `n_out`, or None
        title: nn.Module | None = None,  # Title encoder with `n_out`, or None
        frames: int = 1,  # Pictures of an item, that many inputs in front of the title's
        p: float = .2,  # Dropout before the head
        head_func=nn.Linear,  # (width, n_classes) -> head: `CosineHead` for margin losses
        weights: dict | None = None,  # How much a modality's head has to say in evaluation: {'image': .5}; 1 where not named
    ):
        super().__init__()
        encoders = {k: v for k, v in (('image', image), ('title', title)) if v is not None}
        if not encoders: raise InputError('a model needs an image encoder, a title encoder, or both')
        if n_classes < 2: raise InputError(f'{n_classes} class: a head needs two at least')
        self.weights = {k: float((weights or {}).get(k, 1.)) for k in encoders}
        if unknown := set(weights or {}) - set(encoders): raise InputError(f'weights names {sorted(unknown)}; the model has {list(encoders)}')
        if not (min(self.weights.values()) >= 0 and sum(self.weights.values()) > 0): raise InputError(f'weights={weights}: 0 or above, not all 0')
        self.encoders, self.frames = nn.ModuleDict(encoders), frames if image is not None else 0
        self.necks = nn.ModuleDict({k: nn.Sequential(nn.BatchNorm1d(v.n_out), nn.Dropout(p)) for k, v in encoders.items()})
        self.heads = nn.ModuleDict({k: head_func(v.n_out, n_classes) for k, v in encoders.items()})

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
        outs = {k: self.heads[k](self.necks[k](v)) for k, v in self.features(*xs).items()}
        if self.training: return outs if len(outs) > 1 else next(iter(outs.values()))
        logits = {k: o.cos * auto_scale(o.cos.shape[1]) if isinstance(o, HeadOutput) else o for k, o in outs.items()}
        return sum(self.weights[k] * o for k, o in logits.items()) / sum(self.weights.values())

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: 'image', 'title', and 'head' for BatchNorms and heads."
        return {**{k: list(v.parameters()) for k, v in self.encoders.items()}, 'head': [*self.necks.parameters(), *self.heads.parameters()]}
