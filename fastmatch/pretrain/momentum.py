"What `ITC` keeps besides its weights: slowly moving copies of an encoder's, and a queue of earlier items."
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ..losses.base import upcast
from ..models.fusion import DoubleStream


class Apart(nn.Module):
    "Texts and frames, each by itself, as vectors of unit length in one space."
    def __init__(
        self,
        net: nn.Module,  # With `Streams`
        text_projection: nn.Module,
        frame_projection: nn.Module,
    ):
        super().__init__()
        self.net = net
        self.text_projection = text_projection
        self.frame_projection = frame_projection

    def forward(
        self,
        batch,  # `StreamBatch`
    ) -> tuple[torch.Tensor, torch.Tensor]:  # (n,d) each, float32 at least
        "Unit vectors of the texts and of the frames."
        texts = self.text_projection(self.net.text_alone(batch).to(self.text_projection.weight.dtype))
        frames = self.frame_projection(self.net.frames_alone(batch).to(self.frame_projection.weight.dtype))
        return F.normalize(upcast(texts), dim=1), F.normalize(upcast(frames), dim=1)

    def slow_weights(self) -> dict:  # Name -> weight
        "The weights that both depend on, by name; not those of an image encoder, nor of heads beside."
        parts = {'net.encoders.title.': self.net.encoders['title'], 'net.fusion.': self.net.fusion,
                 'text_projection.': self.text_projection, 'frame_projection.': self.frame_projection}
        weights = {prefix + name: weight for prefix, part in parts.items()
                   for name, weight in part.named_parameters()}
        if not isinstance(self.net.fusion, DoubleStream): return weights
        # the layers in which one looks at the other have no share in what each is by itself
        unused = 'net.fusion.cross.', 'net.fusion.summary'
        return {name: weight for name, weight in weights.items() if not name.startswith(unused)}


class SlowCopies(nn.Module):
    """Copies of weights that follow them slowly, as in MoCo, https://arxiv.org/abs/1911.05722

    They are buffers: no optimizer sees them, no gradient reaches them, and a state dict has them.
    """
    def __init__(
        self,
        encoders: Apart,  # Whose weights are copied, and not kept here
    ):
        super().__init__()
        for name, weight in encoders.slow_weights().items():
            self.register_buffer(self._buffer_name(name), weight.detach().clone())
        # how often they have followed
        self.register_buffer('n_moves', torch.zeros((), dtype=torch.int64))

    # a buffer's name can have no dot
    @staticmethod
    def _buffer_name(name): return name.replace('.', '/')

    def copies_of(
        self,
        weights: dict,  # From `Apart.slow_weights`
    ) -> dict:  # Name -> tensor
        "The copy of each weight."
        return {name: getattr(self, self._buffer_name(name)) for name in weights}

    @torch.no_grad()
    def follow(
        self,
        encoders: Apart,
        momentum: float,  # Share of the copies that is kept
    ):
        "Move the copies towards the weights as they are now."
        weights = encoders.slow_weights()
        torch._foreach_lerp_(list(self.copies_of(weights).values()), list(weights.values()), 1 - momentum)
        self.n_moves += 1

    @torch.no_grad()
    def start(
        self,
        encoders: Apart,
    ):
        "Copy the weights as they are, unless the copies have moved: they may have been loaded since."
        if self.n_moves: return
        weights = encoders.slow_weights()
        torch._foreach_copy_(list(self.copies_of(weights).values()), list(weights.values()))

    @torch.no_grad()
    def forward(
        self,
        encoders: Apart,
        batch,  # `StreamBatch`
    ) -> tuple[torch.Tensor, torch.Tensor]:  # (n,d) each
        "What the encoders would make of a batch with these weights, in evaluation mode."
        modes = {module: module.training for module in encoders.modules()}
        encoders.eval()
        try: return functional_call(encoders, self.copies_of(encoders.slow_weights()), (batch,))
        finally:
            for module, training in modes.items(): module.training = training


class PairQueue(nn.Module):
    """The vectors of the last items, texts and frames side by side, in buffers that are written round and
    round: any batch size will do, and of a batch that is larger the last items stay."""
    def __init__(
        self,
        size: int,  # Items that are kept; 0 for none
        dim: int,  # Width of the vectors
    ):
        super().__init__()
        self.size = size
        self.register_buffer('texts', torch.zeros(size, dim))
        self.register_buffer('frames', torch.zeros(size, dim))
        # items ever pushed: the next one goes to the place of this number, modulo the size
        self.register_buffer('n_pushed', torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(
        self,
        texts: torch.Tensor,  # (n,d)
        frames: torch.Tensor,  # (n,d), of the same items
    ):
        "Put items in, in the place of the oldest."
        n_kept = min(len(texts), self.size)
        first = self.n_pushed + len(texts) - n_kept
        places = (first + torch.arange(n_kept, device=self.texts.device)) % max(1, self.size)
        self.texts[places] = texts[len(texts) - n_kept:].to(self.texts.dtype)
        self.frames[places] = frames[len(frames) - n_kept:].to(self.frames.dtype)
        self.n_pushed += len(texts)

    def pairs(self) -> tuple[torch.Tensor, torch.Tensor]:  # (q,d) each, q the size at most
        "Copies of the vectors that are in it, texts and frames in the same order."
        n_filled = min(int(self.n_pushed), self.size)
        # copies: a push before `backward` would change what it reads
        return self.texts[:n_filled].clone(), self.frames[:n_filled].clone()
