"What a training run depends on besides its weights: random numbers, and the buffers that forward passes move."
import copy
import random
from contextlib import contextmanager

import numpy as np
import torch
from fastai.callback.core import Callback


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


class Sleeper(Callback):
    "A callback that may sit a fit out, by `self.run = False` in `before_fit`; fastai wakes it at the fit's end alone, which one that broke off never had."
    def __call__(self, event_name):
        if event_name == 'before_fit': self.run = True
        return super().__call__(event_name)


class Drawn:
    "Tells which rows of its dataset a loader has drawn for each batch of the epoch; the loader tells nobody."
    def __init__(
        self,
        dl,  # `DataLoader`
    ):
        self.dl, self.had, self.idxs = dl, dl.__dict__.get('get_idxs'), None
        # one of torch's own draws elsewhere
        if not hasattr(dl, 'get_idxs'): return
        draw = dl.get_idxs
        def get_idxs():
            self.idxs = list(draw())
            return self.idxs
        dl.get_idxs = get_idxs

    def rows(self, i) -> list | None:
        "The rows of batch `i`; None where the loader doesn't draw by row."
        return None if self.idxs is None or self.dl.bs is None else self.idxs[i * self.dl.bs:(i + 1) * self.dl.bs]

    def close(self):
        if self.had is None: self.dl.__dict__.pop('get_idxs', None)
        else: self.dl.get_idxs = self.had


def loader_state(dl) -> dict:
    "Where a loader's shuffling is; torch's own shuffles by torch's random numbers."
    # a `SampledDL` counts its epochs
    rng = getattr(dl, 'rng', None)
    return dict(random=rng and rng.getstate(), epoch=getattr(getattr(dl, 'sampler', None), 'i', None))


def set_loader_state(dl, state):
    "Draw what follows `state`."
    if state['random'] is not None: dl.rng.setstate(state['random'])
    if state['epoch'] is not None: dl.sampler.i = state['epoch']


def learner_state(learn) -> dict:
    "Copies of all that training changes in a Learner but its callbacks: weights, optimizer, random numbers."
    return dict(model={k: v.detach().clone() for k, v in learn.model.state_dict().items()}, opt=copy.deepcopy(learn.opt.state_dict()),
                random=random_state(), loaders=[loader_state(o) for o in learn.dls.loaders])


def set_learner_state(learn, state):
    "Train on from `state`."
    learn.model.load_state_dict(state['model'])
    # fastai's Lookahead takes the dict apart
    learn.opt.load_state_dict(copy.deepcopy(state['opt']))
    set_random_state(state['random'])
    for dl, o in zip(learn.dls.loaders, state['loaders'], strict=True): set_loader_state(dl, o)
