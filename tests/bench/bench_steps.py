"""What a step costs: 147 tensors, 3.4 million parameters in 6 groups (tf_efficientnet_lite0), Lookahead k=6,
milliseconds a step over whole cycles."""
from functools import partial

import timm
import timm.optim
import torch
from fastai.optimizer import ranger as fastais_ranger
from torch import nn

from fastmatch.optim import ranger, ranger_adabelief
from tests.bench.harness import DEVICE, Case, bench

K = 6  # steps between two meetings of fast and slow weights
# most that a step may cost against torch's AdamW with foreach kernels
BARS = {'ranger': .5, 'ranger_adabelief': 1.}
REFERENCE = 'adamw_foreach'


def groups(seed: int = 0) -> list[list]:
    "Weights with gradients, in six groups of neighbours."
    model = timm.create_model('tf_efficientnet_lite0', num_classes=0)
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter((torch.randn(parameter.shape, generator=generator) * .05).to(DEVICE))
                  for parameter in model.parameters()]
    for parameter in parameters:
        parameter.grad = (torch.randn(parameter.shape, generator=generator) * .01).to(DEVICE)
    size = -(-len(parameters) // 6)
    return [parameters[start:start + size] for start in range(0, len(parameters), size)]


def _torchs(groups): return [{'params': group} for group in groups]


def _pytorch_optimizers(groups):
    from pytorch_optimizer import Ranger
    return Ranger(_torchs(groups), lr=1e-3, k=K)


# timm has no Ranger of its own: its RAdam under its Lookahead is the same without centralization
def _timms(groups): return timm.optim.create_optimizer_v2(_torchs(groups), 'lookahead_radam', lr=1e-3)


SIDES = {
    'adamw_foreach': lambda groups: torch.optim.AdamW(_torchs(groups), lr=1e-3, foreach=True),
    'adamw_fused': lambda groups: torch.optim.AdamW(_torchs(groups), lr=1e-3, fused=True),
    'ranger': lambda groups: ranger(groups, 1e-3),
    'ranger_nogc': lambda groups: ranger(groups, 1e-3, gc=False),
    'ranger_adabelief': lambda groups: ranger_adabelief(groups, 1e-3),
    'ranger_adabelief_nogc': lambda groups: ranger_adabelief(groups, 1e-3, gc=False),
    'fastai_ranger': lambda groups: fastais_ranger(groups, 1e-3),
    'pytorch_optimizer_ranger': _pytorch_optimizers,
    'timm_lookahead_radam': _timms,
}


def cycle_of(
    name: str,  # One of `SIDES`
):
    "A callable that takes `K` steps of one side; the phase before rectification is over."
    optimizer = SIDES[name](groups())

    def cycle():
        for _ in range(K): optimizer.step()
    for _ in range(2): cycle()
    return cycle


@bench('steps')
def optimizers(quick):
    "A cycle of six steps of each optimizer, against torch's AdamW with foreach kernels."
    for name in SIDES:
        if name != REFERENCE:
            sides = {side: partial(cycle_of, side) for side in (REFERENCE, name)}
            yield Case(name, sides, reference=REFERENCE, bar=BARS.get(name))
