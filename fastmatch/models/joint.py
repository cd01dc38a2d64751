"The matching model: encoders, and for each modality and their joint embedding a neck and a head of class centres."
import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError
from ..layers import BNNeck, CosineHead


class MatchNet(nn.Module):
    "Encoders, necks and heads: in training a dict of `HeadOutput`s, in evaluation a dict of embeddings (n,d) of unit length."
    def __init__(
        self,
        n_classes: int | None,  # Training groups; None: no heads, for inference alone
        image: nn.Module | None = None,  # Image encoder with `n_out`, or None
        title: nn.Module | None = None,  # Title encoder with `n_out`, or None
        heads: tuple | None = None,  # Which of 'image', 'title', 'joint' get a head; default all that can be
        neck: bool = True,  # BatchNorm neck before each head
    ):
        super().__init__()
        encoders = {k: v for k, v in (('image', image), ('title', title)) if v is not None}
        if not encoders: raise InputError('a model needs an image encoder, a title encoder, or both')
        if n_classes is not None and n_classes < 2: raise InputError(f'{n_classes} training group: a head needs two at least')
        self.encoders = nn.ModuleDict(encoders)
        widths = {k: v.n_out for k, v in encoders.items()}
        if len(widths) > 1: widths['joint'] = sum(widths.values())
        if heads and (unknown := [o for o in heads if o not in widths]): raise InputError(f'heads={unknown}: this model can have {list(widths)}')
        self.widths = {k: v for k, v in widths.items() if heads is None or k in heads}
        self.necks = nn.ModuleDict({k: BNNeck(v) if neck else nn.Identity() for k, v in self.widths.items()})
        self.heads = nn.ModuleDict({} if n_classes is None else {k: CosineHead(v, n_classes) for k, v in self.widths.items()})

    def features(self, *xs) -> dict:
        "The encoders' features (n,d) by modality."
        if len(xs) != len(self.encoders): raise InputError(f'the model reads {list(self.encoders)}; the batch has {len(xs)} inputs')
        return {k: enc(x) for (k, enc), x in zip(self.encoders.items(), xs, strict=True)}

    def _necked(self, feats):
        # unit length first, so that the wider or larger modality doesn't drown the other
        if 'joint' in self.widths: feats = {**feats, 'joint': torch.cat([F.normalize(o.float()) for o in feats.values()], 1)}
        return {k: self.necks[k](feats[k]) for k in self.widths}

    def forward(self, *xs):
        embs = self._necked(self.features(*xs))
        if self.training: return {k: self.heads[k](o) for k, o in embs.items()}
        return {k: F.normalize(o.float()) for k, o in embs.items()}

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
            out = {k: F.normalize(o.float()) for k, o in self._necked(feats).items()}
            if not tta or 'image' not in self.encoders: return out
            # titles have no mirror image: their features are taken as they are
            mirrored = self._necked({**feats, 'image': self.encoders['image'](xs[0].flip(-1))})
            return {k: F.normalize(v + F.normalize(mirrored[k].float())) for k, v in out.items()}
        finally: self.train(training)

    def param_groups(self) -> dict[str, list]:
        "Parameters by name, encoders first: 'image', 'title', and 'head' for necks and heads."
        groups = {k: list(v.parameters()) for k, v in self.encoders.items()}
        return {**groups, 'head': [*self.necks.parameters(), *self.heads.parameters()]}
