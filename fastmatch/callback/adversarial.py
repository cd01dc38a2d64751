"""Adversarial training on chosen weights, as a rule the word embeddings of a title encoder: FGM and PGD.

The weights are moved uphill, a second pass is made there, and its gradient is added to the plain one.
"""
import math

import torch

from ..core import InputError, preview
from .second_pass import MovedWeights, SecondPass, joint_norm


class FGM(SecondPass):
    """Adversarial training in one step: adds the gradient found with the chosen weights moved `eps` along
    their own gradient.

    From https://arxiv.org/abs/1605.07725 (fast gradient method on word embeddings). Costs a second forward
    and backward pass.
    """
    def __init__(
        self,
        eps: float = 1.,  # Length of the move of each chosen weight tensor
        names: str | tuple = 'word_embeddings',  # Parts of the names of the weights to move
        weight: float = 1.,  # Factor on the second gradient
    ):
        if not eps >= 0: raise InputError(f'eps={eps}: 0 or above')
        self.eps = eps
        self.names = (names,) if isinstance(names, str) else tuple(names)
        self.weight = weight

    def before_fit(self):
        super().before_fit()
        parameters = dict(self.learn.model.named_parameters())
        self._chosen = [weight for weight_name, weight in parameters.items()
                        if any(name_part in weight_name for name_part in self.names)]
        if not self._chosen:
            raise InputError(f'names={list(self.names)}: in no name of a weight; '
                             f'this model has {preview(parameters, 12)}')

    def change_gradients(self):
        chosen = [weight for weight in self._chosen if weight.grad is not None and weight.requires_grad]
        if not chosen or not all(math.isfinite(joint_norm([weight.grad])) for weight in chosen): return
        weights, plain_gradients = self.weights_and_gradients()
        with MovedWeights(chosen) as moved_weights:
            overflow = self.attack(chosen, [weight.grad for weight in chosen], moved_weights.start)
            if overflow is None:
                for weight in weights: weight.grad = None
                self.second_pass()
        if overflow is not None:
            # a loss scaler, or a guard, sees them and skips the step as it skips that of a plain training
            for weight, gradient in zip(chosen, overflow): weight.grad = gradient
            return
        for weight, gradient in zip(weights, plain_gradients):
            if weight.grad is None: weight.grad = gradient
            else: weight.grad.mul_(self.weight).add_(gradient)

    @torch.no_grad()
    def attack(
        self,
        weights: list,  # The chosen weights, which are moved in place
        gradients: list,  # Their gradients
        start: list,  # Copies of their values before they are moved
    ) -> list | None:  # Gradients that aren't finite, if it came upon such; None: the weights are moved
        "Move the chosen weights uphill."
        for weight, gradient in zip(weights, gradients): self.move(weight, gradient, self.eps)

    def move(self, weight, gradient, length):
        "Move one weight tensor by `length` along its gradient; not at all where that is 0."
        gradient_norm = joint_norm([gradient])
        if gradient_norm: weight.add_(gradient, alpha=length / gradient_norm)

    def after_fit(self): self._chosen = []


class PGD(FGM):
    """Adversarial training in `k` smaller steps, each brought back to within `eps` of the start.

    From https://arxiv.org/abs/1706.06083 (projected gradient descent). Costs `k` more forward and backward
    passes.
    """
    def __init__(
        self,
        eps: float = 1.,  # How far from its start a chosen weight tensor may be moved at most
        alpha: float = .3,  # Length of a step
        k: int = 3,  # Number of steps
        names: str | tuple = 'word_embeddings',  # Parts of the names of the weights to move
        weight: float = 1.,  # Factor on the adversarial gradient
    ):
        super().__init__(eps, names, weight)
        if k < 1: raise InputError(f'k={k}: 1 or more')
        if not alpha > 0: raise InputError(f'alpha={alpha}: above 0')
        self.alpha = alpha
        self.k = k

    @torch.no_grad()
    def attack(self, weights, gradients, start):
        for step in range(self.k):
            # between the steps only the gradients of the chosen weights are needed
            if step: gradients = self.second_pass(of=weights)
            if not math.isfinite(joint_norm(gradients)): return gradients
            for weight, gradient, start_values in zip(weights, gradients, start):
                self.move(weight, gradient, self.alpha)
                distance = joint_norm([weight - start_values])
                if distance > self.eps: weight.copy_(torch.lerp(start_values, weight, self.eps / distance))
