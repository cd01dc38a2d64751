"A Learner's methods for a training in several processes, one for each GPU."
from fastai.callback.progress import ProgressCallback
from fastai.torch_core import num_distrib, rank_distrib


class SharedFits:
    "fastai's methods, with this package's trainer (`callback/distributed.py`) in place of fastai's."
    def distrib_ctx(self, sync_bn=True, in_notebook=False, **kwargs):
        """fastai's `distrib_ctx`: inside it a script that `accelerate launch` or `torchrun` starts trains in
        several processes, one for each GPU, as one process with the batch of all would.

        `bs` is that of each process. `sync_bn` norms by the rows of all; `kwargs` are for accelerate's
        `Accelerator`; its `fsdp_plugin`, for encoders that no GPU holds, is handed on and not tested.
        """
        # importing accelerate takes a while; importing it gives Learners the method
        import fastai.distributed  # noqa: F401
        return super().distrib_ctx(sync_bn, in_notebook, **kwargs)

    def to_distributed(self, sync_bn=True, **kwargs):
        "fastai's `to_distributed`: for a training in several processes; `distrib_ctx` calls it."
        from ..callback.distributed import SharedTrainer
        if num_distrib() < 2: return self
        trainer = SharedTrainer(sync_bn, **kwargs)
        # one process tells how far they are
        if rank_distrib():
            trainer.put_aside = self._grab_cbs(ProgressCallback)
            self.remove_cbs(trainer.put_aside)
        return self.add_cb(trainer)

    def detach_distributed(self):
        "fastai's `detach_distributed`: train in this process again; `distrib_ctx` calls it."
        from ..callback.distributed import SharedTrainer
        for trainer in self._grab_cbs(SharedTrainer):
            # a training that broke off
            trainer.leave()
            self.remove_cb(trainer)
            self.add_cbs(trainer.put_aside)
        return self
