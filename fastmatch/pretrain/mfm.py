"Masked frame modelling: frames are hidden, and told from the others and the text."
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError
from ..losses.base import upcast
from .base import MaskedObjective, check_between, text_width, with_one


class MFM(MaskedObjective):
    """Hidden frames are picked out among all frames of the batch (noise-contrastive estimation), as in HERO,
    https://arxiv.org/abs/2005.00200

    The features of the chosen frames are set to 0. What the fusion makes at their places is brought to the
    width of the features, and compared with those of all frames in the batch: the loss is the cross-entropy
    of finding its own. Items without a text lend their frames to the comparison, and have none hidden.

    The features are targets as they are: no gradient goes through them to an image encoder, which learns from
    the frames that were not hidden. The same picture in two places counts as two frames, of which one is
    wrong: listings that share pictures should not be in one batch.
    """
    def __init__(
        self,
        net: nn.Module,  # With `Streams`; raises `InputError` for a double stream whose queries are the text
        tokenizer=None,  # Not read
        *,
        rate: float = .15,  # Share of the frames that are chosen; one in a batch is at least
        # What cosines are divided by. None: products of the vectors as they are, for features of unit length
        temperature: float | None = .07,
    ):
        super().__init__()
        check_between('rate', rate, 0, 1)
        if temperature is not None: check_between('temperature', temperature, 0, float('inf'))
        if getattr(net.fusion, 'queries', 'frames') != 'frames':
            raise InputError("mfm: with queries='text' no frame sees another one or the text, so that none "
                             "can be told; leave mfm out, or choose queries='frames'")
        self.rate = rate
        self.temperature = temperature
        self.head = nn.Linear(text_width(net), net.frame_width)

    def choose(
        self,
        batch,  # `StreamBatch`
    ) -> torch.Tensor:  # bool (n,f)
        "The frames to be told: one at least where an item with a text has any."
        may_be = batch.has_frame & batch.is_token.any(1, keepdim=True)
        chosen = may_be & (torch.rand(may_be.shape, device=may_be.device) < self.rate)
        return chosen | with_one(chosen, may_be)

    def hide(self, batch):
        chosen = self.choose(batch)
        return replace(batch, frames=batch.frames.masked_fill(chosen.unsqueeze(-1), 0.)), chosen

    def hidden_loss(self, net, fused, batch, chosen):
        states = fused.frames[chosen]
        if not len(states): return self.nothing()
        told = upcast(self.head(states.to(self.head.weight.dtype)))
        features = upcast(batch.frames[batch.has_frame].detach()).to(told.dtype)
        # the place of each frame among those that are there
        places = (batch.has_frame.flatten().cumsum(0) - 1)[chosen.flatten()]
        # in full precision: products of wide features reach thousands
        with torch.autocast(told.device.type, enabled=False):
            if self.temperature is None: return F.cross_entropy(told @ features.T, places)
            cosines = F.normalize(told, dim=1) @ F.normalize(features, dim=1).T
            return F.cross_entropy(cosines / self.temperature, places)
