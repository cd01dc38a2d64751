"A loss of many classes worked out a few rows at a time, so that what lies between cosines and loss stays in the cache."
import torch
from torch.autograd.function import once_differentiable

from ..core import HeadOutput

MANY = 2**18  # cosines that are worked out together: they fit in a core's cache (2**15 to 2**18 took about the same time, all at once a tenth longer)


def _parts(cos):
    step = max(1, MANY // cos.shape[1])
    return [slice(i, min(i + step, len(cos))) for i in range(0, len(cos), step)]


class ByRows(torch.autograd.Function):
    "Rows of `f(out, y)` (n,); the backward pass works each part out again and holds nothing of size (n,c) but the gradient."
    @staticmethod
    def forward(ctx, f, y, keys, cos, emb, *extra):
        ctx.f, ctx.keys = f, keys
        ctx.save_for_backward(y, cos, emb, *extra)
        return torch.cat([f(HeadOutput(cos[b], emb[b], dict(zip(keys, extra))), y[b]) for b in _parts(cos)])

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        y, *given = ctx.saved_tensors
        need, grads = ctx.needs_input_grad[3:], {}
        asked = [i for i, n in enumerate(need) if n]
        for b in _parts(given[0]):
            with torch.enable_grad():
                # cosines and embeddings have rows of their own, what else a head gives is for all
                at = [(o[b] if i < 2 else o).detach().requires_grad_(n) for i, (o, n) in enumerate(zip(given, need))]
                # a sum with its weights: gradients handed to `grad` make torch import sympy, 36 MB
                total = (ctx.f(HeadOutput(*at[:2], dict(zip(ctx.keys, at[2:]))), y[b]) * g[b]).sum()
            for i, d in zip(asked, torch.autograd.grad(total, [at[i] for i in asked], allow_unused=True)):
                if d is None: continue
                if i not in grads: grads[i] = torch.empty_like(given[i]) if i < 2 else torch.zeros_like(given[i])
                if i < 2: grads[i][b] = d
                else: grads[i] += d
        return None, None, None, *map(grads.get, range(len(given)))


def by_rows(
    f,  # (`HeadOutput`, y (n,)) -> losses (n,), each of its own row alone
    out,  # `HeadOutput`
    y,  # int64 (n,)
) -> torch.Tensor:  # (n,)
    "`f(out, y)`, on a CPU with many classes a few rows at a time."
    if out.cos.device.type != 'cpu' or out.cos.numel() <= MANY: return f(out, y)
    return ByRows.apply(f, y, list(out.extra), out.cos, out.emb, *out.extra.values())
