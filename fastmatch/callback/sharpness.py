"""Training for flat minima, which tend to generalize better: SAM and its relatives ASAM, LookSAM and ESAM.

Each perturbs the weights towards a higher loss and steps with the gradient found there; they share the second
pass of `second_pass.py`. Frozen weights are neither perturbed nor stepped. `SAF`, which needs no second pass,
is in `saf.py`.
"""
import math

import numpy as np
import torch
from fastai.callback.core import CancelBackwardException

from ..core import InputError
from ..optim.kernels import chunks
from ..processes import for_all, n_joined
from .base import refuse_comparing_loss, row_losses, unmixed_loss
from .second_pass import MovedWeights, SecondPass, joint_norm


class SAM(SecondPass):
    """Sharpness-aware minimization: each step uses the gradient found `rho` uphill of the weights.

    From https://arxiv.org/abs/2010.01412. Every step costs a second forward and backward pass. With several
    processes each goes uphill by the gradient of its own rows, as in the paper's experiments.
    """
    first_pass_is_local = True

    def __init__(
        self,
        rho: float = .05,  # Length of the move uphill, of all weights together (the paper's value)
    ):
        if not rho >= 0: raise InputError(f'rho={rho}: 0 or above')
        self.rho = rho

    def gradient_norm(self, weights, gradients) -> float:
        "The length that the perturbation is divided by."
        return joint_norm(gradients)

    def ascend(self, weights, gradients, factor):
        "Move the weights uphill, in place, by `factor` times the perturbation's direction."
        torch._foreach_add_(weights, gradients, alpha=factor)

    def perturbation_length(self) -> float: return self.rho
    def _all_parameters(self): return [parameter for group in self.opt.param_lists for parameter in group]

    def perturb(self, weights, gradients) -> bool:
        "Move the weights uphill; False, and no move, where gradients aren't finite and the step is skipped."
        with torch.no_grad():
            # gradients and norm both contain the loss's scale, so that it cancels
            norm = self.gradient_norm(weights, gradients)
            if not for_all(math.isfinite(norm), weights[0].device):
                # with several processes the step is skipped in all of them
                if n_joined() > 1 and gradients: gradients[0].fill_(math.nan)
                return False
            if norm > 0:
                factor = self.perturbation_length() / norm
                for some_tensors in chunks(weights, gradients): self.ascend(*some_tensors, factor)
            return True

    def change_gradients(self):
        weights, gradients = self.weights_and_gradients()
        with MovedWeights(weights):
            if self.perturb(weights, gradients): self.recompute_gradients(weights)

    def recompute_gradients(self, weights):
        "Replace the gradients by those of a second pass at the weights as they are now."
        for weight in weights: weight.grad = None
        self.second_pass()


class ASAM(SAM):
    """SAM in which each weight moves in proportion to its size, so that rescaling layers changes nothing.

    From https://arxiv.org/abs/2102.11600. Use it where layers differ much in scale; `rho` is much larger than
    SAM's. As in the authors' code, this goes for parameters with 'weight' in their names; biases and others
    move as under SAM, as if their size were 1.
    """
    def __init__(
        self,
        rho: float = .5,  # How far, in units of the weights (the paper's value; 10 to 40 times SAM's)
        eta: float = .01,  # Added to each weight's size (the paper's value); at 0 the invariance is exact
        scale_all: bool = False,  # Move biases and all others in proportion to their sizes too
    ):
        super().__init__(rho)
        if not eta >= 0: raise InputError(f'eta={eta}: 0 or above')
        self.eta = eta
        self.scale_all = scale_all

    def before_fit(self):
        super().before_fit()
        self._scaled = {parameter for name, parameter in self.learn.model.named_parameters()
                        if self.scale_all or 'weight' in name}

    def sizes(self, weights) -> list:
        "The absolute value of each weight plus `eta`; 1 for parameters that are not scaled."
        weight_sizes = torch._foreach_abs(weights)
        torch._foreach_add_(weight_sizes, self.eta)
        for weight, weight_size in zip(weights, weight_sizes):
            if weight not in self._scaled: weight_size.fill_(1.)
        return weight_sizes

    def gradient_norm(self, weights, gradients):
        norms_of_parts = []
        for some_weights, some_gradients in chunks(weights, gradients):
            scaled_gradients = self.sizes(some_weights)
            torch._foreach_mul_(scaled_gradients, some_gradients)
            norms_of_parts.append(joint_norm(scaled_gradients))
        return math.hypot(*norms_of_parts)

    def ascend(self, weights, gradients, factor):
        squared_sizes = self.sizes(weights)
        torch._foreach_mul_(squared_sizes, squared_sizes)
        torch._foreach_addcmul_(weights, squared_sizes, gradients, value=factor)

    def after_fit(self): self.__dict__.pop('_scaled', None)


class LookSAM(SAM):
    """SAM's second pass in every `k`-th step only; in between, the part of its gradient that leads to
    flatness is used again.

    From https://arxiv.org/abs/2203.02714. Nearly SAM's effect at little more than the cost of plain training.
    """
    first_pass_is_local = False  # in most steps there is no second one

    def __init__(
        self,
        rho: float = .05,  # Length of the move uphill, of all weights together
        k: int = 5,  # Steps from one second pass to the next (the paper's value)
        alpha: float = .7,  # Length of the reused part relative to the gradient's (the paper's value)
    ):
        super().__init__(rho)
        if k < 1: raise InputError(f'k={k}: 1 or more')
        if not alpha >= 0: raise InputError(f'alpha={alpha}: 0 or above')
        self.k = k
        self.alpha = alpha

    def before_fit(self):
        super().before_fit()
        self._count = 0
        self._flat_part = {}
        self._flat_length = 0.

    def change_gradients(self):
        weights, gradients = self.weights_and_gradients()
        if self._count % self.k == 0: self._renew_flat_part(weights, gradients)
        else: self._reuse_flat_part(weights, gradients)

    def _renew_flat_part(self, weights, gradients):
        "A step of SAM; keeps what in its gradient is at right angles to the plain one, for the next steps."
        with MovedWeights(weights):
            if not self.perturb(weights, gradients): return
            self.recompute_gradients(weights)
        pairs = [pair for pair in zip(weights, gradients) if pair[0].grad is not None]
        weights, plain_gradients = map(list, zip(*pairs))
        sharp_gradients = [weight.grad for weight in weights]
        plain_length = joint_norm(plain_gradients)
        products = [(sharp * plain).sum() for sharp, plain in zip(sharp_gradients, plain_gradients)]
        product = float(torch.stack(products).sum())
        # a step that will be skipped is tried again, with the part there was
        if not (math.isfinite(product) and math.isfinite(joint_norm(sharp_gradients))): return
        self._count += 1
        if plain_length == 0: return
        # in place: the plain gradients become the part of the sharp ones that is at right angles to them
        torch._foreach_mul_(plain_gradients, -product / plain_length**2)
        torch._foreach_add_(plain_gradients, sharp_gradients)
        self._flat_length = joint_norm(plain_gradients)
        # a part much shorter than the gradient is nothing but rounding
        is_long_enough = self._flat_length > 1e-4 * joint_norm(sharp_gradients)
        self._flat_part = dict(zip(weights, plain_gradients)) if is_long_enough else {}

    def _reuse_flat_part(self, weights, gradients):
        "Add the part that was kept to the gradients, in proportion to their length."
        with_flat_part = [(gradient, self._flat_part[weight])
                          for weight, gradient in zip(weights, gradients) if weight in self._flat_part]
        if with_flat_part:
            gradients, flat_parts = map(list, zip(*with_flat_part))
            norm = joint_norm(gradients)
            # a step that will be skipped doesn't count
            if not math.isfinite(norm): return
            torch._foreach_add_(gradients, flat_parts, alpha=self.alpha * norm / self._flat_length)
        self._count += 1

    def state_dict(self):
        "For a training that is resumed: how many steps there were, and the part that is used again."
        flat_parts = [self._flat_part.get(parameter) for parameter in self._all_parameters()]
        return dict(count=self._count, length=self._flat_length, part=flat_parts)

    def load_state_dict(self, saved_state):
        "Go on from what `state_dict` returned."
        self._count = saved_state['count']
        self._flat_length = saved_state['length']
        parts = zip(self._all_parameters(), saved_state['part'])
        self._flat_part = {weight: part.to(weight.device) for weight, part in parts if part is not None}

    def after_fit(self): self._flat_part = {}


class ESAM(SAM):
    """SAM that perturbs a random share of the weights and repeats only the rows whose loss this raises most.

    From https://arxiv.org/abs/2110.03141. Cheaper than SAM. The loss must give a value for each row by
    `reduction='none'`; with losses that compare rows with each other, such as pair losses, `gamma` must be 1.
    """
    def __init__(
        self,
        rho: float = .05,  # Length of the move uphill, of all weights together
        beta: float = .6,  # Share of the weight tensors that are perturbed (the paper's value)
        gamma: float = .5,  # Share of the rows in the second pass, 2 rows at least; below 1 with new dropout
        seed: int = 0,  # Seed of the choice of weights
    ):
        super().__init__(rho)
        for option, value in dict(beta=beta, gamma=gamma).items():
            if not 0 < value <= 1: raise InputError(f'{option}={value}: above 0, at most 1')
        # not named `beta`: fastai warns where a callback and its Learner have an attribute of the same name
        self.share = beta
        self.gamma = gamma
        self.seed = seed

    def before_fit(self):
        super().before_fit()
        if self.gamma < 1: refuse_comparing_loss(self, 'ESAM(gamma=1) repeats all rows')

    def before_batch(self):
        # all batches of an accumulated step perturb the same weights
        if self._passes: return
        self._before = []
        weights = [parameter for parameter in self._all_parameters() if parameter.requires_grad]
        # by the number of the batch alone: a resumed training chooses the same, and no random number is drawn
        random_numbers = np.random.default_rng([self.seed, self.learn.train_iter]).random(len(weights))
        highest = max(self.share, random_numbers.min())
        self._chosen = [weight for weight, drawn in zip(weights, random_numbers) if drawn <= highest]

    def before_backward(self):
        # the first backward pass needs the gradients of the chosen weights only, which is cheaper
        scaler = getattr(self.learn, 'scaler', None)
        loss = self.learn.loss_grad
        torch.autograd.backward(loss if scaler is None else scaler.scale(loss), inputs=self._chosen)
        raise CancelBackwardException

    def after_cancel_backward(self): pass

    def after_loss(self):
        super().after_loss()
        if self.gamma == 1: return
        with torch.no_grad():
            learner = self.learn
            self._losses = row_losses(learner.loss_func, learner.pred, learner.yb, unmixed_loss(learner))

    def after_backward(self):
        super().after_backward()
        if self.gamma < 1: self._before.append(self._losses)

    def perturbation_length(self):
        # the gradient of a share of the weights is shorter than the whole by about the root of that share;
        # the paper divides the perturbation by the share
        return self.rho / math.sqrt(self.share)

    def change_gradients(self):
        weights, gradients = self.weights_and_gradients()
        with MovedWeights(weights):
            if not self.perturb(weights, gradients): return
            harmed_rows = self._harmed_rows() if self.gamma < 1 else None
            for weight in weights: weight.grad = None
            self.second_pass(harmed_rows)

    def _harmed_rows(self) -> list[torch.Tensor]:
        "For each forward pass the rows, int64 (k,), whose loss the perturbation raised most, ascending."
        harmed_rows = []
        for losses_before, losses_after in zip(self._before, self.recompute_losses()):
            n_chosen = min(len(losses_before), max(2, round(self.gamma * len(losses_before))))
            harmed_rows.append((losses_after - losses_before).topk(n_chosen).indices.sort().values)
        return harmed_rows
