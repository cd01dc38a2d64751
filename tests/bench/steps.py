"What a step costs: 147 tensors, 3.4 million parameters in 6 groups (tf_efficientnet_lite0), Lookahead k=6, milliseconds a step over whole cycles."
import time
from statistics import median

import timm
import timm.optim
import torch
from fastai.optimizer import ranger as fastais_ranger
from torch import nn

from fastmatch.optim import ranger, ranger_adabelief

K = 6  # steps between two meetings of fast and slow weights
# most that a step may cost against torch's AdamW with foreach kernels
BARS = {'ranger': .5, 'ranger_adabelief': 1.}
REFERENCE = 'adamw_foreach'


def groups(seed: int = 0) -> list[list]:
    "Weights with gradients, in six groups of neighbours."
    shapes = [p.shape for p in timm.create_model('tf_efficientnet_lite0', num_classes=0).parameters()]
    gen = torch.Generator().manual_seed(seed)
    params = [nn.Parameter(torch.randn(s, generator=gen) * .05) for s in shapes]
    for p in params: p.grad = torch.randn(p.shape, generator=gen) * .01
    n = -(-len(params) // 6)
    return [params[i:i + n] for i in range(0, len(params), n)]


def _torchs(params): return [{'params': o} for o in params]


def _pytorch_optimizers(params):
    from pytorch_optimizer import Ranger
    return Ranger(_torchs(params), lr=1e-3, k=K)


# timm has no Ranger of its own: its RAdam under its Lookahead is the same without centralization
def _timms(params): return timm.optim.create_optimizer_v2(_torchs(params), 'lookahead_radam', lr=1e-3)


SIDES = {
    'adamw_foreach': lambda p: torch.optim.AdamW(_torchs(p), lr=1e-3, foreach=True),
    'adamw_fused': lambda p: torch.optim.AdamW(_torchs(p), lr=1e-3, fused=True),
    'ranger': lambda p: ranger(p, 1e-3),
    'ranger_nogc': lambda p: ranger(p, 1e-3, gc=False),
    'ranger_adabelief': lambda p: ranger_adabelief(p, 1e-3),
    'ranger_adabelief_nogc': lambda p: ranger_adabelief(p, 1e-3, gc=False),
    'fastai_ranger': lambda p: fastais_ranger(p, 1e-3),
    'pytorch_optimizer_ranger': _pytorch_optimizers,
    'timm_lookahead_radam': _timms,
}


def build(
    name: str,  # One of `SIDES`
):
    "A callable that takes `K` steps of one side; the phase before rectification is over."
    opt = SIDES[name](groups())
    def cycle():
        for _ in range(K): opt.step()
    for _ in range(2): cycle()
    return cycle


def measure(
    names=tuple(SIDES),  # Which sides
    rounds: int = 15,  # Cycles of each, in turn
    clock=time.perf_counter,  # `time.thread_time` with one thread tells processor time on a busy machine
) -> dict[str, float]:  # Milliseconds a step, the median of the rounds
    "Time the sides in turn, so that a busy moment meets all of them."
    cycles, times = {k: build(k) for k in names}, {k: [] for k in names}
    for _ in range(rounds):
        for k, cycle in cycles.items():
            start = clock()
            cycle()
            times[k].append(1e3 * (clock() - start) / K)
    return {k: median(v) for k, v in times.items()}


if __name__ == '__main__':
    found = measure()
    for k, v in found.items(): print(f"{k:>26} {v:7.2f} ms  {v / found[REFERENCE]:.2f} x {REFERENCE}" + (f'  (bar {BARS[k]})' if k in BARS else ''))
