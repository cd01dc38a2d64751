"What a training run depends on besides its weights: random numbers, and the buffers that forward passes move."
import random
from contextlib import contextmanager

import numpy as np
import torch


def random_state() -> dict:
    "The state of python's, numpy's and torch's random numbers, on every device in use."
    # a GPU that nobody has touched yet has no state, and asking for it would take memory there
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state(), cuda=cuda)


def set_random_state(
    state: dict,  # As `random_state` gives it
):
    "Go on with the random numbers that follow `state`."
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if state['cuda']: torch.cuda.set_rng_state_all(state['cuda'])


@contextmanager
def randomness_kept():
    "Whatever is drawn inside, random numbers go on afterwards as if nothing had been."
    now = random_state()
    try: yield
    finally: set_random_state(now)


class Buffers:
    "A model's buffers (running statistics, a head's moving margin), to be taken down and put back."
    def __init__(
        self,
        model: torch.nn.Module,
    ):
        self.at = [(m, k) for m in model.modules() for k, b in m._buffers.items() if b is not None]

    def take(self) -> list:
        "Each buffer with a copy of what is in it."
        return [(t, t.clone()) for t in (m._buffers[k] for m, k in self.at)]

    @torch.no_grad()
    def put(
        self,
        kept: list,  # As `take` gave it
    ):
        "Put the buffers back, those that a module has replaced by others too."
        for (m, k), (t, _) in zip(self.at, kept): m._buffers[k] = t
        if kept: torch._foreach_copy_(*map(list, zip(*kept)))
