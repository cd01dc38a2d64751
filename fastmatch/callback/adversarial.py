"Adversarial training on chosen weights, as a rule the embeddings of words: FGM and PGD."
import math

import torch

from ..core import InputError, preview
from .second_pass import Moved, SecondLook, norm_of


class FGM(SecondLook):
    "Adds the gradient at embeddings moved `eps` uphill to the plain one, https://arxiv.org/abs/1605.07725"
    def __init__(
        self,
        eps: float = 1.,  # How far each chosen weight is moved, in its own length
        names: str | tuple = 'word_embeddings',  # Parts of the names of the weights to move; 'conv_stem' or the like for a picture's
        weight: float = 1.,  # Of the second gradient against the plain one
    ):
        if not eps >= 0: raise InputError(f'eps={eps}: 0 or above')
        self.eps, self.names, self.weight = eps, (names,) if isinstance(names, str) else tuple(names), weight

    def before_fit(self):
        super().before_fit()
        named = dict(self.learn.model.named_parameters())
        self._chosen = [p for k, p in named.items() if any(o in k for o in self.names)]
        if not self._chosen: raise InputError(f'names={list(self.names)}: in no name of a weight; this model has {preview(named, 12)}')

    def look(self):
        ps = [p for p in self._chosen if p.grad is not None and p.requires_grad]
        if not ps or not all(math.isfinite(norm_of([p.grad])) for p in ps): return
        every, plain = self.live()
        with Moved(ps) as home:
            self.attack(ps, [p.grad for p in ps], home.kept)
            for p in every: p.grad = None
            self.again()
        for p, g in zip(every, plain):
            if p.grad is None: p.grad = g
            else: p.grad.mul_(self.weight).add_(g)

    @torch.no_grad()
    def attack(self, ps, gs, kept):
        "Move `ps` from where they are `kept`, by their gradients `gs`."
        for p, g in zip(ps, gs): self.up(p, g, self.eps)

    def up(self, p, g, by):
        if norm := norm_of([g]): p.add_(g, alpha=by / norm)

    def after_fit(self): self._chosen = []


class PGD(FGM):
    "FGM in `k` smaller steps, each brought back to within `eps` of the start, https://arxiv.org/abs/1706.06083"
    def __init__(
        self,
        eps: float = 1.,  # How far a chosen weight may be moved at most, in its own length
        alpha: float = .3,  # Length of a step
        k: int = 3,  # Steps
        names: str | tuple = 'word_embeddings',  # As for `FGM`
        weight: float = 1.,  # As for `FGM`
    ):
        super().__init__(eps, names, weight)
        if k < 1: raise InputError(f'k={k}: 1 or more')
        if not alpha > 0: raise InputError(f'alpha={alpha}: above 0')
        self.alpha, self.k = alpha, k

    @torch.no_grad()
    def attack(self, ps, gs, kept):
        for i in range(self.k):
            # what lies between needs the gradients of the chosen weights alone
            if i: gs = self.again(of=ps)
            for p, g, start in zip(ps, gs, kept):
                self.up(p, g, self.alpha)
                far = norm_of([p - start])
                if far > self.eps: p.copy_(torch.lerp(start, p, self.eps / far))
