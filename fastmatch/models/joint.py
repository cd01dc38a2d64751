"The matching model: encoders, and for each modality and their joint embedding a neck and a head of class centres."
import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError
from ..layers.heads import CosineHead
from ..layers.pooling import BNNeck


class MatchNet(nn.Module):
    "Encoders, necks and heads: in training a dict of `HeadOutput`s, in evaluation a dict of embeddings (n,d) of unit length."
    def __init__(
        self,
        n_classes: int | None,  # Training groups; None: no heads, for inference alone
        image: nn.Module | None = None,  # Image encoder with `n_out`, or None
        title: nn.Module | None = None,  # Title encoder with `n_out`, or None
        heads: tuple | None = None,  # Which of 'image', 'title', 'joint' get a head; default all that can be
        neck: bool | str = True,  # BatchNorm neck before each head; 'raw': and pair losses read the feature before it, as in the neck's paper
        head_func=CosineHead,  # (width, n_classes) -> head: `SampledHead`, `TrackedHead`, `partial(CosineHead, k=3)`, your own
    ):
        super().__init__()
        encoders = {k: v for k, v in (('image', image), ('title', title)) if v is not None}
        if not encoders: raise InputError('a model needs an image encoder, a title encoder, or both')
        if neck not in (True, False, 'raw'): raise InputError(f"neck={neck!r}: choose True, False or 'raw'")
        if n_classes is not None and n_classes < 2: raise InputError(f'{n_classes} training group: a head needs two at least')
        self.encoders = nn.ModuleDict(encoders)
        widths = {k: v.n_out for k, v in encoders.items()}
        if len(widths) > 1: widths['joint'] = sum(widths.values())
        if heads and (unknown := [o for o in heads if o not in widths]): raise InputError(f'heads={unknown}: this model can have {list(widths)}')
        self.widths = {k: v for k, v in widths.items() if heads is None or k in heads}
        self.necks = nn.ModuleDict({k: BNNeck(v) if neck else nn.Identity() for k, v in self.widths.items()})
        self.heads = nn.ModuleDict({} if n_classes is None else {k: head_func(v, n_classes) for k, v in self.widths.items()})
        self.raw = neck == 'raw'

    def features(self, *xs) -> dict:
        "The encoders' features (n,d) by modality."
        if len(xs) != len(self.encoders): raise InputError(f'the model reads {list(self.encoders)}; the batch has {len(xs)} inputs')
        return {k: enc(x) for (k, enc), x in zip(self.encoders.items(), xs, strict=True)}

    def _joined(self, feats):
        # unit length first, so that the wider or larger modality doesn't drown the other
        return {**feats, 'joint': torch.cat([F.normalize(o.float()) for o in feats.values()], 1)} if 'joint' in self.widths else feats

    def _embedded(self, feats):
        feats = self._joined(feats)
        return {k: F.normalize(self.necks[k](feats[k]).float()) for k in self.widths}

    def forward(self, *xs):
        feats = self.features(*xs)
        if not self.training: return self._embedded(feats)
        feats = self._joined(feats)
        outs = {k: self.heads[k](self.necks[k](feats[k])) for k in self.widths}
        return {k: o._replace(emb=feats[k]) for k, o in outs.items()} if self.raw else outs

    @torch.inference_mode()
    def embed(
        self,
        *xs,  # A batch's inputs, as for `forward`
        tta: bool = False,  # Average each picture's embedding with its mirror image's
    ) -> dict:
        "The embeddings (n,d) of a batch, float32 of unit length; a model in training mode is put back into it."
        training = self.training
        self.eval()
        try:
            feats = self.features(*xs)
            out = self._embedded(feats)
            if not tta or 'image' not in self.encoders: return out
            # titles have no mirror image: their features are taken as they are
            mirrored = self._embedded({**feats, 'image': self.encoders['image'](xs[0].flip(-1))})
            return {k: F.normalize(v + mirrored[k]) for k, v in out.items()}
        finally: self.train(training)

    def param_groups(self) -> dict[str, list]:
        "Parameters by name, encoders first: 'image', 'title', 'centers' where heads have them, and 'head' for necks and heads."
        groups = {k: list(v.parameters()) for k, v in self.encoders.items()}
        centers = [p for o in self.heads.values() for k, p in o.named_parameters() if k == 'centers']
        if centers: groups['centers'] = centers
        return {**groups, 'head': [p for p in (*self.necks.parameters(), *self.heads.parameters()) if not any(p is c for c in centers)]}
