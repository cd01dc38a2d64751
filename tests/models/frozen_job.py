"""Encode pictures into a folder, in a process that is killed after so many batches; after 0: it isn't.

`python -m tests.models.frozen_job FOLDER BATCHES FILE ...`
"""
import os
import sys

import torch
from torch import nn

from fastmatch.models import frozen


class Patches(nn.Module):
    "An image encoder whose weights are the same in each process: the means of 16 patches, through a layer."
    mean = [.4, .5, .6]
    std = [.2, .25, .3]

    def __init__(self, n_out=5, seed=0):
        super().__init__()
        self.n_out = n_out
        self.n_batches = 0
        self.linear = nn.Linear(48, n_out)
        weight = torch.randn(n_out, 48, generator=torch.Generator().manual_seed(seed))
        self.linear.weight.data.copy_(weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images):
        self.n_batches += 1
        return self.linear(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


class Killed(Patches):
    "Ends the process as a kill does."
    def __init__(self, n_batches):
        super().__init__()
        self.last = n_batches

    def forward(self, images):
        if self.n_batches == self.last: os._exit(9)
        return super().forward(images)


def main(folder, n_batches, *files):
    frozen.CHUNK = 4
    # a batch is encoded to try the encoder
    encoder = Killed(int(n_batches) + 1) if int(n_batches) else Patches()
    # the class that is killed makes the same features
    Killed.__name__ = 'Patches'
    frozen.FrameFeatures(encoder, 16, folder, bs=4, device='cpu').warm(files)


if __name__ == '__main__': main(*sys.argv[1:])
