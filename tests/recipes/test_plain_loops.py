"""Losses, SAM and the schedule of `fit_flat_cos` without a fastai Learner: in a plain PyTorch loop, and under
Lightning. Both end with the weights of a Learner that trained with the callbacks."""
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fastmatch.callback.second_pass import MovedWeights, joint_norm
from fastmatch.callback.sharpness import SAM
from fastmatch.callback.state import ModelBuffers
from fastmatch.core import seed_everything
from fastmatch.layers.heads import CosineHead
from fastmatch.losses import ArcFace
from fastmatch.optim import sgd
from fastmatch.schedule.curves import flat_cos
from tests.callback.small import Items, body_and_head, data, everything, fit, make_learner

EPOCHS, RATE, RHO, BATCH = 3, .02, .1, 4


class Net(nn.Module):
    "A small encoder with BatchNorm, and a head of class centers."
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(2),
                                  nn.Flatten())
        self.head = CosineHead(36, 3)

    def forward(self, images): return self.head(self.body(images))
    def param_groups(self): return body_and_head(self)


def new_net():
    seed_everything(0)
    return Net()


def batches(): return torch.utils.data.DataLoader(Items(data()), batch_size=BATCH)


def optimizer_and_schedule(model, n_steps):
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=.9)
    curve = flat_cos()
    return optimizer, LambdaLR(optimizer, lambda step: curve(step / n_steps))


def sam_step(model, loss_func, images, targets, backward=torch.Tensor.backward):
    "The gradient of SAM: found where the loss is higher, for the weights as they are."
    loss = loss_func(model(images), targets)
    backward(loss)
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    gradients = [weight.grad for weight in weights]
    # running statistics are those of the first pass
    buffers = ModelBuffers(model)
    before = buffers.copy()
    with MovedWeights(weights):
        with torch.no_grad(): torch._foreach_add_(weights, gradients, alpha=RHO / joint_norm(gradients))
        for weight in weights: weight.grad = None
        backward(loss_func(model(images), targets))
    buffers.restore(before)
    return loss.detach()


@pytest.fixture(scope='module')
def learned():
    "Weights and buffers that a Learner ends with."
    model = new_net()
    learner = make_learner(model, partial(sgd, mom=.9), loss=ArcFace(m=.2, s=8), cbs=SAM(RHO), bs=BATCH)
    fit(learner, 'fit_flat_cos', EPOCHS, RATE)
    return everything(learner)


class Trained:
    "What `everything` reads of."
    def __init__(self, model): self.model = model


def test_a_plain_loop(learned):
    model, loss_func = new_net(), ArcFace(m=.2, s=8)
    optimizer, schedule = optimizer_and_schedule(model, EPOCHS * len(batches()))
    for _ in range(EPOCHS):
        for images, targets in batches():
            optimizer.zero_grad()
            sam_step(model, loss_func, images, targets)
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(everything(Trained(model)), learned, atol=1e-5, rtol=1e-4)
    untrained = everything(Trained(new_net()))
    assert (learned - untrained).abs().max() > .01


def test_lightning(learned, tmp_path):
    lightning = pytest.importorskip('lightning', reason='lightning is not installed')

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = new_net()
            self.loss_func = ArcFace(m=.2, s=8)

        def training_step(self, batch, number):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            loss = sam_step(self.net, self.loss_func, *batch, backward=self.manual_backward)
            optimizer.step()
            self.lr_schedulers().step()
            return loss

        def configure_optimizers(self):
            optimizer, schedule = optimizer_and_schedule(self.net, self.trainer.estimated_stepping_batches)
            return [optimizer], [schedule]
    module = Module()
    trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator='cpu', logger=False,
                                enable_checkpointing=False, enable_progress_bar=False,
                                enable_model_summary=False, default_root_dir=tmp_path)
    trainer.fit(module, batches())
    torch.testing.assert_close(everything(Trained(module.net)), learned, atol=1e-5, rtol=1e-4)
