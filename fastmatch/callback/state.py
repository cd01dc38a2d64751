"""What a training run depends on besides its settings: copied, and put back later.

Random numbers, the buffers that forward passes move, where the loaders' shuffling is, the whole state of a
Learner; and BatchNorm's running statistics, made anew for the weights as they are.
"""
import copy
import random
from contextlib import contextmanager

import numpy as np
import torch
from fastai.torch_core import find_bs, get_model, to_device
from torch.nn.modules.batchnorm import _BatchNorm

from .trained_on import copied_weights


def random_state() -> dict:
    "The state of the random numbers of python, numpy and torch, on every device in use."
    # a GPU that has not been used has no state yet, and asking for it would take memory there
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state(), cuda=cuda)


def set_random_state(
    state: dict,  # What `random_state` returned
):
    "Draw the random numbers that follow `state` from now on."
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if state['cuda']: torch.cuda.set_rng_state_all(state['cuda'])


@contextmanager
def preserved_randomness():
    "Context after which random numbers go on as if none had been drawn inside."
    earlier_state = random_state()
    try: yield
    finally: set_random_state(earlier_state)


class ModelBuffers:
    "The buffers of a model (running statistics, a head's moving margin), to be copied and put back."
    def __init__(
        self,
        model: torch.nn.Module,
    ):
        self.places = [(module, buffer_name) for module in model.modules()
                       for buffer_name, buffer in module._buffers.items() if buffer is not None]

    def copy(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        "Each buffer, and a copy of its values."
        buffers = [module._buffers[buffer_name] for module, buffer_name in self.places]
        return [(buffer, buffer.clone()) for buffer in buffers]

    @torch.no_grad()
    def restore(
        self,
        copies: list,  # What `copy` returned
    ):
        "Put the values back, and the buffers themselves where a module has replaced one by another tensor."
        for (module, buffer_name), (buffer, _) in zip(self.places, copies):
            module._buffers[buffer_name] = buffer
        if not copies: return
        buffers, buffer_values = zip(*copies)
        torch._foreach_copy_(list(buffers), list(buffer_values))


class DrawnRows:
    "Notes which rows of its dataset a fastai `DataLoader` draws for each batch; it keeps no record of them."
    def __init__(
        self,
        loader,  # `DataLoader`; with torch's own loaders the rows stay unknown
    ):
        self.loader = loader
        self.replaced = loader.__dict__.get('get_idxs')
        self.indices = None
        if not hasattr(loader, 'get_idxs'): return
        draw_indices = loader.get_idxs

        def get_idxs():
            self.indices = list(draw_indices())
            return self.indices
        loader.get_idxs = get_idxs

    def rows(
        self,
        batch: int,  # Number of the batch in this epoch, from 0
    ) -> list[int] | None:  # None where the loader doesn't draw row by row
        "The rows of the dataset that a batch is made of."
        if self.indices is None or self.loader.bs is None: return None
        return self.indices[batch * self.loader.bs:(batch + 1) * self.loader.bs]

    def close(self):
        "Leave the loader as it was found."
        if self.replaced is None: self.loader.__dict__.pop('get_idxs', None)
        else: self.loader.get_idxs = self.replaced


def loader_state(loader) -> dict:
    "How far a loader's shuffling is; torch's own loaders use torch's random numbers and have no state."
    loader = _own_loader(loader)
    generator = getattr(loader, 'rng', None)
    sampler = getattr(loader, 'sampler', None)
    # a `SampledDL` counts its epochs
    return dict(random=generator and generator.getstate(), epoch=getattr(sampler, 'i', None))


def set_loader_state(loader, saved_state: dict):
    "Let the loader draw what follows `saved_state`, which `loader_state` returned."
    loader = _own_loader(loader)
    if saved_state['random'] is not None: loader.rng.setstate(saved_state['random'])
    if saved_state['epoch'] is not None: loader.sampler.i = saved_state['epoch']


def _own_loader(loader):
    "A loader without what lets several processes share it."
    return loader.__dict__.get('dl', loader)


def learner_state(learner) -> dict:
    "Copies of what training changes in a Learner besides callbacks: weights, optimizer, randomness, loaders."
    return dict(model=copied_weights(get_model(learner.model)),
                opt=copy.deepcopy(learner.opt.state_dict()), random=random_state(),
                loaders=[loader_state(loader) for loader in learner.dls.loaders])


def set_learner_state(learner, saved_state: dict):
    "Put a Learner back where it was when `learner_state` returned `saved_state`."
    get_model(learner.model).load_state_dict(saved_state['model'])
    # a copy: fastai's Lookahead takes the dict apart
    learner.opt.load_state_dict(copy.deepcopy(saved_state['opt']))
    set_random_state(saved_state['random'])
    for loader, loader_saved in zip(learner.dls.loaders, saved_state['loaders'], strict=True):
        set_loader_state(loader, loader_saved)


def batch_norms(model) -> list:
    "The BatchNorm layers of `model` that keep running statistics."
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None]


@torch.no_grad()
def update_bn(
    learn,  # Learner whose training batches are passed through its model
    norms: list | None = None,  # BatchNorm layers to renew; default all
):
    """Compute BatchNorm's running statistics anew for the weights as they are now, from one pass over the
    training data.

    Averaged weights need it. `torch.optim.swa_utils.update_bn` does the same for models of one input; here
    every input of a batch reaches the model. Random numbers, the loader's shuffling and the model's mode are
    left as they were.
    """
    model = learn.model
    loader = learn.dls.train
    norms = batch_norms(model) if norms is None else norms
    if not norms: return
    training_modes = {module: module.training for module in model.modules()}
    former_stats = [(batch_norm.momentum, batch_norm.running_mean.clone(), batch_norm.running_var.clone())
                    for batch_norm in norms]
    shuffling = loader_state(loader)
    # dropout and what heads do in training stay out of it, as they do in validation
    model.eval()
    for batch_norm in norms:
        batch_norm.train()
        batch_norm.reset_running_stats()
        batch_norm.momentum = None  # the plain mean over all batches
    try:
        with preserved_randomness(): _pass_training_batches(learn)
    finally:
        set_loader_state(loader, shuffling)
        for module, training in training_modes.items(): module.training = training
        for batch_norm, (former_momentum, former_mean, former_variance) in zip(norms, former_stats):
            batch_norm.momentum = former_momentum
            if batch_norm.num_batches_tracked > 0: continue
            # no batch reached it: it is used in training only
            batch_norm.running_mean.copy_(former_mean)
            batch_norm.running_var.copy_(former_variance)


def _pass_training_batches(learner):
    "Pass each training batch of two rows or more through the model."
    device = next(learner.model.parameters()).device
    for batch in learner.dls.train:
        n_inputs = getattr(learner.dls, 'n_inp', 1 if len(batch) == 1 else len(batch) - 1)
        if find_bs(batch) > 1: learner.model(*to_device(batch[:n_inputs], device))
