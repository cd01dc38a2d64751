"""What an objective of pretraining is, and several of them together with their weights.

An objective turns a batch of frames and texts into one number that falls as a net learns: hidden words told
again (`mlm.py`), hidden frames (`mfm.py`), whether frames and text belong together (`itm.py`), each found by
the other (`itc.py`). Any net with `Streams` can take them; labels are not needed.
"""
import math
from numbers import Real

import torch
from torch import nn

from ..core import InputError
from ..models.fusion import Fused, StreamBatch


class Objective(nn.Module):
    """The base of all objectives. A subclass implements `forward`; its options are keyword-only arguments of
    its `__init__`, after the net and its tokenizer."""
    gives_similarities = False  # has `loss_and_similarities`
    reads_similarities = False  # its `forward` takes the `similarities` that another objective gives

    def forward(
        self,
        net: nn.Module,  # With `Streams`
        batch: StreamBatch,
    ) -> torch.Tensor:  # A number
        "The loss of a batch, 0 (with gradients of 0) where nothing in it can be learnt from."
        raise NotImplementedError

    def check(
        self,
        n_items: int,  # Items to train on
    ):
        "Raise `InputError` unless the objective can be trained on so many items. Here: always."

    def nothing(self) -> torch.Tensor:
        "A loss of 0 from which `backward` can be called, and which moves no weight."
        return sum(parameter.sum() for parameter in self.parameters()) * 0.


class MaskedObjective(Objective):
    """An objective that hides a part of a batch and has a net say what was there.

    A subclass implements `hide` and `hidden_loss`. Several of them can share one pass through the fusion:
    each hides its own part of the same batch, see `Objectives`.
    """
    def hide(
        self,
        batch: StreamBatch,  # Of this the objective changes either the frames or the token ids
    ) -> tuple[StreamBatch, torch.Tensor]:
        "The batch with a part hidden, and a mask, bool (n,f) or (n,l), of what was chosen to be told."
        raise NotImplementedError

    def hidden_loss(
        self,
        net: nn.Module,  # With `Streams`
        fused: Fused,  # Of the batch with parts hidden
        batch: StreamBatch,  # As it was before
        chosen: torch.Tensor,  # From `hide`
    ) -> torch.Tensor:  # A number
        "The loss at the chosen places, 0 where there are none."
        raise NotImplementedError

    def forward(self, net, batch):
        hidden, chosen = self.hide(batch)
        return self.hidden_loss(net, net.fuse(hidden), batch, chosen)


class Objectives(nn.Module):
    """Several objectives over one batch: name -> loss.

    Those that hide something share one pass through the fusion; those that compare items get the batch as it
    is, and of one that compares texts with frames the others may take the similarities.
    """
    def __init__(
        self,
        objectives: dict,  # Name -> `Objective`
        weights: dict | None = None,  # Name -> weight in the sum, 0 or above and not all 0; None: 1 for each
    ):
        super().__init__()
        weights = dict.fromkeys(objectives, 1.) if weights is None else weights
        if set(weights) != set(objectives):
            raise InputError(f'weights names {sorted(weights)}; the objectives are {sorted(objectives)}')
        check_weights(weights)
        self.weights = {name: float(weights[name]) for name in objectives}
        self.objectives = nn.ModuleDict(objectives)
        gives = any(objective.gives_similarities for objective in objectives.values())
        for name, objective in objectives.items():
            if objective.reads_similarities and not gives:
                raise InputError(f"{name}: negatives='hard' are drawn by the similarities of texts and "
                                 "frames, which 'itc' learns: give 'itc' a weight above 0, or choose "
                                 "negatives='roll'")

    def forward(
        self,
        net: nn.Module,  # With `Streams`
        batch: StreamBatch,
    ) -> dict:  # Name -> loss, a number, not weighted
        "The loss of each objective."
        losses = self._masked_losses(net, batch)
        others = {name: each for name, each in self.objectives.items() if name not in losses}
        similarities = None
        for name, objective in others.items():
            if objective.gives_similarities:
                losses[name], similarities = objective.loss_and_similarities(net, batch)
        for name, objective in others.items():
            if objective.reads_similarities: losses[name] = objective(net, batch, similarities)
            elif not objective.gives_similarities: losses[name] = objective(net, batch)
        return {name: losses[name] for name in self.objectives}

    def _masked_losses(self, net, batch):
        "The losses of the objectives that hide something, from one pass."
        masked = {name: each for name, each in self.objectives.items() if isinstance(each, MaskedObjective)}
        if not masked: return {}
        hidden, chosen = batch, {}
        for name, objective in masked.items(): hidden, chosen[name] = objective.hide(hidden)
        fused = net.fuse(hidden)
        return {name: each.hidden_loss(net, fused, batch, chosen[name]) for name, each in masked.items()}

    def check(
        self,
        n_items: int,  # Items to train on
    ):
        "Raise `InputError` unless each objective can be trained on so many items."
        for objective in self.objectives.values(): objective.check(n_items)


class PretrainNet(nn.Module):
    "A net and its objectives as one model: of a batch's inputs, as `Streams.read` takes them, name -> loss."
    def __init__(
        self,
        net: nn.Module,  # With `Streams`
        objectives: Objectives,
    ):
        super().__init__()
        self.net = net
        self.objectives = objectives

    def forward(self, *inputs): return self.objectives(self.net, self.net.read(*inputs))

    @property
    def encoders(self): return self.net.encoders

    @property
    def by_layer(self) -> bool:
        "Whether each layer of an encoder is a parameter group."
        return self.net.by_layer

    @by_layer.setter
    def by_layer(self, value): self.net.by_layer = value

    def param_groups(self) -> dict[str, list]:
        "Parameters by name: those of the net, and 'head' for those of the objectives."
        return {**self.net.param_groups(), 'head': list(self.objectives.parameters())}


class WeightedTerms(nn.Module):
    """The weighted sum of losses that a model returns by name: the loss function of a Learner whose model is
    a `PretrainNet`."""
    def __init__(
        self,
        weights: dict,  # Name -> weight, e.g. `objectives.weights`
    ):
        super().__init__()
        check_weights(weights)
        self.weights = dict(weights)

    def forward(
        self,
        terms: dict,  # Name -> loss, a number
        *targets,  # Of the batch; not read
    ) -> torch.Tensor:  # A number
        "The sum; raises `InputError` where other losses come than there are weights for."
        if not isinstance(terms, dict) or set(terms) != set(self.weights):
            given = sorted(terms) if isinstance(terms, dict) else type(terms).__name__
            raise InputError(f'the model returned {given}; the weights are for {sorted(self.weights)}')
        return sum(weight * terms[name] for name, weight in self.weights.items())


def complete_items(
    batch: StreamBatch,
) -> StreamBatch:
    "The items that have both a frame and a text: the others say nothing about what belongs together."
    is_complete = batch.has_frame.any(1) & batch.is_token.any(1)
    return batch.of(is_complete)


def with_one(
    chosen: torch.Tensor,  # bool (n,k): entries that were drawn
    eligible: torch.Tensor,  # bool (n,k): those that may be
) -> torch.Tensor:  # bool (n,k), True for one entry or none
    "One eligible entry, drawn at random, where none was chosen; none where some were, or where none may be."
    if not eligible.numel(): return torch.zeros_like(eligible)
    # nothing here waits for a GPU's answer
    scores = torch.where(eligible, torch.rand(eligible.shape, device=eligible.device), -1.)
    best = torch.zeros_like(eligible)
    best.view(-1)[scores.view(-1).argmax()] = True
    return best & eligible & ~chosen.any()


def check_weights(
    weights: dict,  # Name -> weight
):
    "Raise `InputError` unless the weights are numbers, 0 or above, and not all 0."
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"objectives={weights!r}: give a weight for each by name, e.g. {{'mlm': 1.}}")
    for name, weight in weights.items():
        is_number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise InputError(f'{name}={weight!r}: a weight is a number, 0 or above')
    if not any(weights.values()): raise InputError(f'objectives={weights}: all weights are 0')


def check_between(
    option: str,  # Its name, for the message
    value,  # What was given
    low: float,  # Least
    high: float,  # Most
    *,
    or_low: bool = False,  # Whether `low` itself will do; `high` does not
) -> float:
    "The number as it is; `InputError` unless it is between two others."
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and (low < value < high or or_low and value == low): return value
    raise InputError(f'{option}={value!r}: give a number {"from" if or_low else "above"} {low:g}'
                     f'{"" if high == math.inf else f" and below {high:g}"}')


def text_width(
    net: nn.Module,  # With `Streams`
) -> int:
    "The width of what a fusion makes of tokens, frames and items: that of the text encoder."
    return net.encoders['title'].n_out
