"""What a head of 100,000 centres costs, forward and backward, against a plain linear layer and cross-entropy; and its peak memory.
`python tests/bench/losses.py [--threads 2] [--rounds 5]`"""
import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.layers import CosineHead, SampledHead
from fastmatch.losses import ArcFace

# what is asked of each side as a multiple of the plain one's time, and of the one-hot form's memory as a multiple of ours
BARS = {'full': 1.6, 'sampled': .5, 'memory': 2.}


class OneHot(nn.Module):
    "The common form: normalised centres, the margin worked out for every class, picked by a one-hot matrix."
    def __init__(self, d, c):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c, d) * .01)

    def forward(self, x, y, m=.5, s=30.):
        cos = F.linear(F.normalize(x), F.normalize(self.weight)).clamp(-1 + 1e-6, 1 - 1e-6)
        hot = F.one_hot(y, len(self.weight)).float()
        return F.cross_entropy(s * (hot * (cos.acos() + m).cos() + (1 - hot) * cos), y)


def sides(
    n: int = 64,  # Rows a batch
    d: int = 512,  # Width of the embedding
    c: int = 100_000,  # Classes
    share: float = .2,  # Of the centres that the sampled head looks at
    device: str = 'cpu',
    names=('plain', 'full', 'sampled', 'one_hot'),  # Which to build
) -> dict:
    "Name -> callable that runs forward and backward once and leaves no gradient."
    torch.manual_seed(0)
    x, y = torch.randn(n, d, device=device, requires_grad=True), torch.randint(c, (n,), device=device)
    loss = ArcFace(m=.5, s=30.)

    def plain():
        layer = nn.Linear(d, c, bias=False)
        return layer, lambda: F.cross_entropy(layer(x), y)

    def full():
        head = CosineHead(d, c)
        return head, lambda: loss(head(x), y)

    def sampled():
        head = SampledHead(d, c, share=share)
        head.labels = y
        return head, lambda: loss(head(x), y)

    def one_hot():
        head = OneHot(d, c)
        return head, lambda: head(x, y)

    def once(layer, forward):
        def run():
            forward().backward()
            x.grad = None
            layer.zero_grad()
        layer.to(device)
        return run

    return {k: once(*v()) for k, v in dict(plain=plain, full=full, sampled=sampled, one_hot=one_hot).items() if k in names}


def times(
    runs: dict,  # Name -> callable
    rounds: int = 5,  # Times each is run, in turn, after one that isn't counted
) -> dict:
    "Median seconds of each side; the sides take turns, so that a busy moment meets all of them."
    seconds = {k: [] for k in runs}
    for i in range(rounds + 1):
        for k, run in runs.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available(): torch.cuda.synchronize()
            if i: seconds[k].append(time.perf_counter() - start)
    return {k: statistics.median(v) for k, v in seconds.items()}


def peak_of(
    name: str,  # A side
) -> float:  # MiB
    "What one forward and backward adds to the memory of a process that holds inputs and weights, in a process of its own (Linux)."
    code = f'from tests.bench.losses import _peak; _peak({name!r})'
    return float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)


def _peak(name):
    run = sides(names=(name,))[name]
    # a first small product: what a library sets up once is no part of the figure
    (torch.randn(64, 64, requires_grad=True) @ torch.randn(64, 64)).sum().backward()
    # the highest mark so far is forgotten: building the weights took more than holding them
    Path('/proc/self/clear_refs').write_text('5')
    before = _memory('VmHWM')
    run()
    print((_memory('VmHWM') - before) / 1024)


def _memory(key): return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1])


def measure(rounds: int = 5, **kwargs) -> dict:
    "Each bar's figure: time of the full and the sampled head over the plain layer, memory of the one-hot form over ours."
    t = times(sides(names=('plain', 'full', 'sampled'), **kwargs), rounds)
    return {'full': t['full'] / t['plain'], 'sampled': t['sampled'] / t['plain'], 'memory': peak_of('one_hot') / peak_of('full')}


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--rounds', type=int, default=5)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    t = times(sides(), a.rounds)
    for k, v in t.items(): print(f'{k:>8} {v:6.3f} s  {v / t["plain"]:5.2f}x')
    for k in ('plain', 'full', 'sampled', 'one_hot'): print(f'{k:>8} {peak_of(k):6.0f} MiB beside the weights')
