"Softmax and cross-entropy over cosines with a margin on the target, forward and backward in as few sweeps as it takes."
import torch
from torch.autograd.function import once_differentiable

from ..core import HeadOutput

EPS = 1e-6  # wide enough to be below 1 in float32, where clamp(-1, 1) would leave acos an infinite slope
PART = 2**19  # cosines that are worked out together on a CPU: they stay in the cache from one sweep to the next (2**17 to 2**20 took about the same time)


def _parts(cos):
    step = max(1, PART // cos.shape[1]) if cos.device.type == 'cpu' else len(cos)
    return [slice(i, min(i + step, len(cos))) for i in range(0, len(cos), step)]


class MarginRows(torch.autograd.Function):
    "Cross-entropy of each row (n,) of `s` times the cosines, `loss.margin` on the target's and `loss.others` on the rest."
    # Autograd would go through (n,c) a dozen times: copies for the target, the scale, the softmax, each forward and back.
    @staticmethod
    def forward(
        ctx,
        cos,  # (n,c)
        loss,  # `NormSoftmax`: its `margin`, `others` and `label_smoothing`
        s,  # Scale, a number or a tensor of one
        y,  # int64 (n,) classes
        at,  # int64 (n,) their columns
        emb,  # (n,d), for `others`
        extra,  # For `others`
    ):
        at = at[:, None]
        with torch.enable_grad():
            target = cos.detach().gather(1, at).squeeze(1).requires_grad_()
            hard = loss.margin(target.clamp(-1 + EPS, 1 - EPS), y)
            slope, = torch.autograd.grad(hard.sum(), target)
        hard, p, res = hard.detach()[:, None], torch.empty_like(cos), []
        for b in _parts(cos):
            x = cos[b] if loss.others_alone else loss.others(cos[b], hard[b], HeadOutput(cos[b], emb[b], extra))
            z = (s * x).scatter_(1, at[b], s * hard[b])
            torch.softmax(z, 1, out=p[b])
            # the largest probability is 1/c at least: its log is exact where the target's may be that of 0
            total = z.amax(1) - p[b].amax(1).log()
            smooth = loss.label_smoothing
            row = total - (s * hard[b]).squeeze(1)
            res.append(torch.lerp(row, total - z.mean(1), smooth) if smooth else row)
        ctx.loss, ctx.s, ctx.extra = loss, s, extra
        ctx.save_for_backward(cos, p, at, hard, slope, emb)
        return torch.cat(res)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        cos, p, at, hard, slope, emb = ctx.saved_tensors
        loss, smooth, res = ctx.loss, ctx.loss.label_smoothing, torch.empty_like(p)
        g = (ctx.s * g)[:, None]
        for b in _parts(cos):
            d = torch.mul(p[b], g[b], out=res[b])
            if smooth: d -= smooth / p.shape[1] * g[b]
            dt = d.gather(1, at[b]) - (1 - smooth) * g[b]
            if not loss.others_alone:
                out = HeadOutput(cos[b], emb[b], ctx.extra)
                if (rise := loss.others_slope(cos[b], hard[b], out)) is not None: d *= rise
                else:
                    with torch.enable_grad():
                        x, h = cos[b].detach().requires_grad_(), hard[b].detach().requires_grad_()
                        # a sum with its weights: gradients handed to `grad` make torch import sympy, 36 MB
                        total = (loss.others(x, h, out._replace(cos=x)) * d.scatter_(1, at[b], 0.)).sum()
                    dx, dh = torch.autograd.grad(total, (x, h), allow_unused=True)
                    d.copy_(dx)
                    if dh is not None: dt = dt + dh
            d.scatter_(1, at[b], slope[b, None] * dt)
        return res, None, None, None, None, None, None
