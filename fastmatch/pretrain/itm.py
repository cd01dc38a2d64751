"Image-text matching: whether frames and text are of the same item."
import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError
from ..losses.base import upcast
from .base import Objective, complete_items, text_width

NEGATIVES = 'roll', 'hard'


class ITM(Objective):
    """Whether frames and text belong together, told from both at once: binary cross-entropy.

    `negatives='roll'`: half of the items (of an odd number the smaller half) get the frames of another one,
    drawn at random. `'hard'`: beside each item as it is, its text with frames that are much like it, and its
    frames with such a text, as in ALBEF, https://arxiv.org/abs/2107.07651; they are drawn in proportion to
    the softmax of the similarities that `ITC` learns, which costs a pass over three times the items.

    Items without a frame or without a text are left out. Two listings of one product count as different
    items: where a catalogue is full of them, some pairs that belong together are said not to.
    """
    def __init__(
        self,
        net: nn.Module,  # With `Streams`
        tokenizer=None,  # Not read
        *,
        negatives: str = 'roll',  # 'roll' or 'hard'
    ):
        super().__init__()
        if negatives not in NEGATIVES: raise InputError(f'negatives={negatives!r}: choose one of {NEGATIVES}')
        self.negatives = negatives
        self.head = nn.Linear(text_width(net), 1)

    @property
    def reads_similarities(self):
        "Whether `forward` wants similarities."
        return self.negatives == 'hard'

    def forward(
        self,
        net,
        batch,
        # (k,k), of the text of each complete item (rows) with the frames of each (columns), as logits: for
        # 'hard' negatives
        similarities: torch.Tensor | None = None,
    ):
        "The loss of a batch; raises `InputError` for a batch of one in training, which has no other item."
        if self.training and len(batch) == 1:
            raise InputError('itm: a batch of 1 has no frames of another item: train with bs=2 or more, '
                             'and leave out a last batch that is smaller')
        batch = complete_items(batch)
        if len(batch) < 2: return self.nothing()
        if self.negatives == 'roll':
            return self.pair_loss(net, batch, *rolled_pairs(len(batch), batch.ids.device))
        if similarities is None:
            raise InputError("itm: negatives='hard' are drawn by similarities, which `ITC` gives")
        return self.pair_loss(net, batch, *hard_pairs(similarities))

    def pair_loss(
        self,
        net,
        batch,  # `StreamBatch` of k items
        texts: torch.Tensor,  # int64 (m,): the item whose text each pair has
        frames: torch.Tensor,  # int64 (m,): the item whose frames it has
    ) -> torch.Tensor:  # A number
        "The loss of pairs, which belong together where both are of the same item."
        pairs = batch.with_texts_of(texts).with_frames_of(frames)
        states = net.fuse(pairs).pooled.to(self.head.weight.dtype)
        logits = upcast(self.head(states).squeeze(1))
        return F.binary_cross_entropy_with_logits(logits, (texts == frames).to(logits.dtype))


def rolled_pairs(
    n_items: int,  # 2 or more
    device,
) -> tuple[torch.Tensor, torch.Tensor]:  # int64 (n_items,) each
    "The items of texts and those of frames: half of the texts, drawn at random, get frames of another item."
    texts = torch.randperm(n_items, device=device)
    is_changed = torch.arange(n_items, device=device) < n_items // 2
    # rolled over all items and not over that half, which may be a single one
    return texts, torch.where(is_changed, texts.roll(-1), texts)


def hard_pairs(
    similarities: torch.Tensor,  # (k,k), k 2 or more: of texts (rows) and frames (columns), as logits
) -> tuple[torch.Tensor, torch.Tensor]:  # int64 (3k,) each
    """The items of texts and those of frames: each item with itself, each text with other frames, all frames
    with another text, drawn in proportion to the softmax off the diagonal."""
    own = torch.arange(len(similarities), device=similarities.device)
    frames, texts = draw_others(similarities), draw_others(similarities.T)
    return torch.cat([own, own, texts]), torch.cat([own, frames, own])


@torch.no_grad()
def draw_others(
    logits: torch.Tensor,  # (k,k), k 2 or more
) -> torch.Tensor:  # int64 (k,)
    "For each row a column other than its own, drawn with the probabilities of a softmax over those."
    # the largest of logits with Gumbel noise is distributed so, https://arxiv.org/abs/1611.01144: unlike a
    # draw by probabilities it has no sum that can round to 0, and no error for NaN that would end a process
    noise = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    return (logits.float() + noise).fill_diagonal_(-torch.inf).argmax(1)
