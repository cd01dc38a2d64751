"Image-text contrast: each text finds its frames among those of other items, and frames their text."
from numbers import Integral

import torch
from torch import nn

from ..core import InputError
from .base import Objective, check_between, complete_items, text_width
from .momentum import Apart, PairQueue, SlowCopies

COLDEST, WARMEST = .001, .5  # bounds of the temperature, as in ALBEF


class ITC(Objective):
    """Texts and frames are encoded apart, and each is to find the other: InfoNCE in both directions.

    With `momentum`, as in ALBEF, https://arxiv.org/abs/2107.07651: what is looked for is encoded with slowly
    moving copies of the weights, and looked for in a queue of earlier items as well; and the targets are in
    part what those copies find similar, as a text may go with frames that are not its own. The callback
    `MomentumUpdate` moves the copies after each step, and raises the share of such targets from 0; without it
    nothing moves.

    The copies cover the text encoder and what a fusion needs of frames, not an image encoder, whose features
    are shared. They are used in evaluation mode. They, the queue and the ramp are buffers: saved with the
    weights. In evaluation the loss is the plain one within the batch, whatever the queue holds.

    Items without a frame or without a text are left out. Two listings of one product, in the batch or in the
    queue, count as different items: each is said to be wrong for the other.
    """
    gives_similarities = True

    def __init__(
        self,
        net: nn.Module,  # With `Streams`
        tokenizer=None,  # Not read
        *,
        dim: int = 256,  # Width of the space in which texts and frames meet
        temperature: float = .07,  # What cosines are divided by, to start from: it is learnt, from .001 to .5
        momentum: float | None = .995,  # Share of the copies kept in each step; None: no copies, and no queue
        queue: int | None = None,  # Items in the queue; None: 4096 with momentum, 0 without
        alpha: float = .4,  # Share of the targets that is what the copies find similar
        ramp: float | None = None,  # Share of training in which `alpha` is reached; None: the first epoch
    ):
        super().__init__()
        if not isinstance(dim, Integral) or dim < 1: raise InputError(f'dim={dim!r}: give 1 or more')
        if not COLDEST <= temperature <= WARMEST:
            raise InputError(f'temperature={temperature}: from {COLDEST} to {WARMEST}')
        if queue is None: queue = 0 if momentum is None else 4096
        if not isinstance(queue, Integral) or queue < 0: raise InputError(f'queue={queue!r}: 0 or more')
        if momentum is None and queue:
            raise InputError(f'queue={queue}: it is filled by the copies of weights, give momentum=.995')
        if momentum is not None: check_between('momentum', momentum, 0, 1, or_low=True)
        check_between('alpha', alpha, 0, 1, or_low=True)
        if ramp is not None and not 0 <= ramp <= 1: raise InputError(f'ramp={ramp}: from 0 to 1')
        self.momentum = momentum
        self.alpha = alpha
        self.ramp = ramp
        self.text_projection = nn.Linear(text_width(net), dim)
        self.frame_projection = nn.Linear(text_width(net), dim)
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))
        self.queue = PairQueue(queue, dim)
        self.copies = None if momentum is None else SlowCopies(self.encoders(net))
        self.register_buffer('rise', torch.zeros(()))  # share of `alpha` that is reached

    def check(self, n_items):
        if n_items >= self.queue.size: return
        raise InputError(f'queue={self.queue.size}: with {n_items} items to train on an item would be in it '
                         f'beside itself; give queue={n_items // 2} or fewer, or momentum=None')

    def encoders(self, net) -> Apart:
        "What makes unit vectors of texts and of frames: the net's weights and the projections here."
        return Apart(net, self.text_projection, self.frame_projection)

    def follow(
        self,
        net,  # Whose weights the copies follow; called once in each step of an optimizer
    ):
        "Move the copies by a step."
        self.copies.follow(self.encoders(net), self.momentum)

    def raise_share(
        self,
        epochs_done: float,
        n_epoch: int,  # Epochs in all
    ):
        "Set how much of `alpha` is reached: linearly from 0; what was reached before stays."
        epochs = 1 if self.ramp is None else self.ramp * n_epoch
        self.rise.clamp_(min=1. if epochs_done >= epochs else epochs_done / epochs)

    def forward(self, net, batch): return self.loss_and_similarities(net, batch)[0]

    def loss_and_similarities(
        self,
        net,
        batch,  # `StreamBatch`
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and logits (k,k) of the texts (rows) and frames (columns) of the k complete items,
        without gradients. Raises `InputError` for a batch of one in training, unless there is a queue."""
        if self.training and len(batch) == 1 and not self.queue.size:
            raise InputError('itc: a batch of 1 has no other item to tell it from: train with bs=2 or more, '
                             'and leave out a last batch that is smaller')
        batch = complete_items(batch)
        if not len(batch): return self.nothing(), batch.frames.new_zeros(0, 0)
        encoders = self.encoders(net)
        texts, frames = encoders(batch)
        similarities = self.logits(texts, frames)
        if self.copies is None or not self.training:
            return (one_way(similarities) + one_way(similarities.T)) / 2, similarities.detach()
        text_keys, frame_keys = self.copies(encoders, batch)
        alpha = self.alpha * self.rise
        loss = self.contrast(texts, frames, text_keys, frame_keys, *self.queue.pairs(), alpha)
        self.queue.push(text_keys, frame_keys)
        return loss, similarities.detach()

    def logits(self, queries, keys):
        "Products (n,k) of unit vectors (n,d) and (k,d), divided by the temperature."
        # in full precision: bfloat16 has three digits, and a division by .001 makes thousands of them
        with torch.autocast(queries.device.type, enabled=False):
            return queries @ keys.T / Bounded.apply(self.temperature, COLDEST, WARMEST).to(queries.dtype)

    def contrast(
        self,
        texts: torch.Tensor,  # (n,d), of unit length, like all that follow
        frames: torch.Tensor,  # (n,d)
        text_keys: torch.Tensor,  # (n,d): the copies' vectors of the same texts
        frame_keys: torch.Tensor,  # (n,d): of the same frames
        more_texts: torch.Tensor,  # (q,d): earlier ones
        more_frames: torch.Tensor,  # (q,d): earlier ones
        alpha,  # Share of the targets that is what the copies find similar, a number
    ) -> torch.Tensor:  # A number
        "The loss against the copies' vectors and a queue, the mean of both directions."
        all_texts, all_frames = torch.cat([text_keys, more_texts]), torch.cat([frame_keys, more_frames])
        with torch.no_grad():
            frames_for_text = self.logits(text_keys, all_frames).softmax(1)
            texts_for_frames = self.logits(frame_keys, all_texts).softmax(1)
        return (one_way(self.logits(texts, all_frames), frames_for_text, alpha)
                + one_way(self.logits(frames, all_texts), texts_for_frames, alpha)) / 2


def one_way(
    logits: torch.Tensor,  # (n,k): the right column of row i is i
    soft_targets: torch.Tensor | None = None,  # (n,k), each row sums to 1
    alpha=0.,  # Their share in the targets, a number
) -> torch.Tensor:  # A number
    "The mean cross-entropy of finding the right column, with targets that are soft in part."
    targets = torch.eye(*logits.shape, dtype=logits.dtype, device=logits.device)
    if soft_targets is not None: targets = targets + alpha * (soft_targets - targets)
    return -(targets * logits.log_softmax(1)).sum(1).mean()


class Bounded(torch.autograd.Function):
    """A number kept within bounds. Beyond one, a gradient passes if a step along it leads back: the clamp of
    torch passes none there, so that what has once left its bounds would stay where it is."""
    @staticmethod
    def forward(context, number, low, high):
        context.save_for_backward(number)
        context.bounds = low, high
        return number.clamp(low, high)

    @staticmethod
    def backward(context, gradient):
        number, = context.saved_tensors
        low, high = context.bounds
        # a step goes against the gradient
        leads_away = (number <= low) & (gradient > 0) | (number >= high) & (gradient < 0)
        return torch.where(leads_away, 0., gradient), None, None
