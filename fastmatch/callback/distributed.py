"""Training in several processes, one for each GPU, so that it equals one process with the batch of all.

`with learn.distrib_ctx(): learn.fit(...)` as with any fastai Learner, in a script that `accelerate launch` or
`torchrun` starts. fastai's own trainer cuts an epoch into as many parts as there are processes, changes
BatchNorm layers for good, takes timm's activations with them, and needs GPUs.
"""
import torch
from fastai.distributed import DistributedDL, DistributedTrainer
from fastai.torch_core import get_model, to_detach
from fastcore.basics import noop

from ..core import InputError, require_package
from ..layers.synchronized import desynchronize, synchronize
from ..processes import join_steps
from .base import other_callback
from .guard import Guard
from .saf import SAF


class SharedDL(DistributedDL):
    """A loader of which each process draws its part of every batch: batch by batch the processes have
    together what one process draws with their number times the batch size.

    What is left over in training is left out; in validation the last rows are repeated to fill up, and
    `to_detach` takes these away again.
    """
    def __init__(self, dl, **kwargs):
        super().__init__(dl, **kwargs)
        self.n = dl.n

    def __len__(self):
        return len(self.dl) // self.world_size if self.drop_last else -(-len(self.dl) // self.world_size)

    def get_idxs(self):
        "The rows of this process, batch after batch."
        drawn = [list(self.dl.get_idxs())]
        torch.distributed.broadcast_object_list(drawn, 0)
        rows, size = drawn[0], self.bs * self.world_size
        if self.drop_last: rows = rows[:len(rows) // size * size]
        self.n = len(rows)
        own = []
        for start in range(0, len(rows), size):
            batch = rows[start:start + size]
            each = -(-len(batch) // self.world_size)
            batch += rows[-1:] * (each * self.world_size - len(batch))
            own += batch[self.rank * each:(self.rank + 1) * each]
        return own

    def to_detach(self, b, cpu=True, gather=True):
        "The rows of all processes in the order of the table, without those that fill up."
        b = to_detach(b, cpu, gather)
        if not gather: return b
        n_over = max(0, self.i * self.world_size - self.n)
        # of rows; a mean has none
        return torch.utils._pytree.tree_map(
            lambda part: part[:len(part) - n_over] if torch.is_tensor(part) and part.ndim else part, b)


class SharedTrainer(DistributedTrainer):
    """Takes each step together with the other processes; `learn.distrib_ctx()` adds it.

    Raises `InputError` before training where the listings fill no batch of all processes.
    """
    def __init__(
        self,
        sync_bn: bool = True,  # Norm by the rows of all processes in BatchNorm layers
        **kwargs,  # For accelerate's `Accelerator`
    ):
        require_package('accelerate', 'training in several processes', 'fastmatch[distributed]')
        from accelerate import DistributedDataParallelKwargs
        # a loss over pairs reads no centers: torch waits in vain for their gradients unless it looks for them
        kwargs.setdefault('kwargs_handlers', [DistributedDataParallelKwargs(find_unused_parameters=True)])
        super().__init__(sync_bn, **kwargs)
        self.put_aside = []  # callbacks that the learner has again afterwards

    def before_fit(self):
        if not torch.distributed.is_initialized():
            raise InputError('SharedTrainer: there is one process alone; start a script with `accelerate '
                             'launch`, in which `with learn.distrib_ctx():` adds it')
        saf = other_callback(self, SAF)
        if saf is not None:
            raise InputError('SAF compares a listing with itself some epochs ago, which may have been in '
                             'another process: leave it out')
        guard = other_callback(self, Guard)
        if guard is not None and guard.skip:
            raise InputError('Guard(skip=True) would leave a batch out in one process, and the others wait '
                             'for it: give skip=False')
        self.old_dls = list(self.dls.loaders)
        self._layers = synchronize(self.learn.model) if self.sync_bn else []
        join_steps(True)
        self.learn.model = self.accelerator.prepare(self.learn.model)
        self.learn.dls.loaders = [self._wrap_dl(loader) for loader in self.old_dls]
        if torch.distributed.get_rank(): self.learn.logger = noop
        train = self.learn.dls.loaders[0]
        if not len(train) and len(self.old_dls[0]):
            self.leave()
            raise InputError(f'bs={train.bs}: {train.n} listings to train on fill no batch of '
                             f'{train.world_size} processes; give a smaller one')

    def _wrap_dl(self, dl): return dl if isinstance(dl, SharedDL) else SharedDL(dl)

    def after_fit(self): self.leave()

    def leave(self):
        "Give the Learner its own model and loaders back."
        if '_layers' not in self.__dict__: return
        join_steps(False)
        desynchronize(self.__dict__.pop('_layers'))
        self.learn.model = get_model(self.learn.model)
        self.learn.dls.loaders = self.old_dls
