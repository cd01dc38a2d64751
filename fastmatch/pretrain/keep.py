"Objectives of pretraining that go on in fine-tuning, beside the loss of the labels."
import torch

from ..losses.base import Loss
from .base import check_weights


class WithObjectives(Loss):
    """A loss of labels and the weighted losses of objectives that a model returns beside its heads' outputs.

    In evaluation, where the model returns no objectives, it is the loss of the labels alone.
    """
    def __init__(
        self,
        loss: Loss,  # Of the labels
        weights: dict,  # Objective -> weight
    ):
        super().__init__()
        check_weights(weights)
        self.loss = loss
        self.objective_weights = dict(weights)
        self.reduction = loss.reduction

    @property
    def n_targets(self): return getattr(self.loss, 'n_targets', 1)

    # mixing and callbacks that pick rows set it for a while
    @property
    def reduction(self): return self._reduction

    @reduction.setter
    def reduction(self, value):
        self._reduction = value
        if 'loss' in self._modules: self.loss.reduction = value

    def forward(
        self,
        output,  # What the model returned: a dict with the objectives' losses among the heads' outputs
        *targets,  # As for the loss of the labels
        **mixing,  # `partners` and `share` of mixed rows
    ) -> torch.Tensor:
        "The loss of the labels and the weighted sum of the objectives, which is added to that of each row."
        if not isinstance(output, dict) or not set(self.objective_weights) <= set(output):
            return self.loss(output, *targets, **mixing)
        heads = {name: head_output for name, head_output in output.items()
                 if name not in self.objective_weights}
        terms = sum(weight * output[name] for name, weight in self.objective_weights.items())
        return self.loss(heads, *targets, **mixing) + terms

    def activation(self, output): return self.loss.activation(output)
    def decodes(self, output): return self.loss.decodes(output)
