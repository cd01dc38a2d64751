"""What a step costs: 147 tensors, 3.4 million parameters in 6 groups (tf_efficientnet_lite0), Lookahead k=6,
milliseconds a step over whole cycles."""
import timm
import timm.optim
import torch
from fastai.optimizer import ranger as fastais_ranger
from torch import nn

from fastmatch.optim import ranger, ranger_adabelief
from tests.bench.harness import Case, bench

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


def _torchs(params): return [{'params': param} for param in params]


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


def cycle_of(
    name: str,  # One of `SIDES`
):
    "A callable that takes `K` steps of one side; the phase before rectification is over."
    opt = SIDES[name](groups())
    def cycle():
        for _ in range(K): opt.step()
    for _ in range(2): cycle()
    return cycle


@bench('steps')
def optimizers(quick):
    "A cycle of six steps of each optimizer, against torch's AdamW with foreach kernels."
    for name in SIDES:
        if name != REFERENCE:
            yield Case(
                name,
                {item: lambda value=item: cycle_of(value) for item in (REFERENCE, name)},
                ref=REFERENCE,
                bar=BARS.get(name),
            )
