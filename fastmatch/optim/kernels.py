"Optimizer steps over lists of tensors: torch's fused and foreach kernels, the same code for the CPU and the GPU."
import math

import torch

# On the CPU a foreach call is one sweep through memory after another: lists are cut so that a part stays in the cache through all sweeps of a step
# (elements of float32 in one of its five tensors; from 2**16 to 2**18 took the same time, the whole list 1.6 times as long).
CHUNK = 2**18
# AdaBelief keeps its average itself and hands the kernel what gives that average back: any value well inside (0,1) does (see `belief_`)
KEEP = 15 / 16


def chunks(
    *lists: list,  # Lists of one length; tensors in the first
):
    "Cut the lists together at `CHUNK` elements on the CPU; elsewhere every launch costs, so they stay whole."
    if lists[0][0].device.type != 'cpu':
        yield lists
        return
    start = size = 0
    for i, p in enumerate(lists[0]):
        if size and size + p.numel() > CHUNK:
            yield tuple(o[start:i] for o in lists)
            start, size = i, 0
        size += p.numel()
    yield tuple(o[start:] for o in lists)


def rectification(
    step: int,  # From 1
    sqr_mom: float,  # Momentum of the squares
) -> float | None:  # Factor on the learning rate; None while the variance can't be told (torch's and fastai's limit of 5)
    "How far the second moment can be trusted, https://arxiv.org/abs/1908.03265"
    r_inf = 2 / (1 - sqr_mom) - 1
    r = r_inf - 2 * step * sqr_mom**step / (1 - sqr_mom**step)
    return math.sqrt((r - 4) * (r - 2) * r_inf / ((r_inf - 4) * (r_inf - 2) * r)) if r > 5 else None


def centralize_(
    grads: list,  # Gradients of more than one dimension
):
    "Take each output's mean off its gradient, in place, https://arxiv.org/abs/2004.01461"
    # no foreach call broadcasts in one kernel. In place costs half of what new tensors do; a sum saves the pass that a mean takes to divide.
    for g in grads: g.sub_(g.sum(tuple(range(1, g.ndim)), keepdim=True), alpha=len(g) / g.numel())


def adam_(p, g, m, s, step, lr, mom, sqr_mom, eps, wd, rate=1.):
    "Adam with decoupled decay in one sweep; `rate` scales the step but not the decay."
    t = torch.full((), float(step), device=p[0].device)
    torch._fused_adamw_(p, g, m, s, [], [t] * len(p), lr=lr * rate, beta1=mom, beta2=sqr_mom, weight_decay=wd / rate, eps=eps, amsgrad=False,
                        maximize=False)


def belief_(p, g, m, s, step, lr, mom, sqr_mom, eps, wd, rate=1.):
    "AdaBelief through Adam's kernel: squares of `g - m`, `eps` in the state and outside the root as in https://arxiv.org/abs/2010.07468"
    torch._foreach_lerp_(m, g, 1 - mom)
    d = torch._foreach_sub(g, m)
    # the kernel averages its gradient `d` into `m`: step back so far that it arrives at the average that is there already
    torch._foreach_lerp_(m, d, 1 - 1 / KEEP)
    torch._foreach_add_(s, eps / sqr_mom)
    adam_(p, d, m, s, step, lr, KEEP, sqr_mom, eps, wd, rate * (1 - KEEP**step) / (1 - mom**step))


def foreach_(p, g, m, s, step, lr, mom, sqr_mom, eps, wd, rate, belief=False, beta=0.):
    "The same steps without the fused kernel: before rectification sets in (`rate` None), with softplus (`beta`), for tensors that aren't dense."
    if wd: torch._foreach_mul_(p, 1 - lr * wd)
    torch._foreach_lerp_(m, g, 1 - mom)
    d = torch._foreach_sub(g, m) if belief else g
    torch._foreach_mul_(s, sqr_mom)
    torch._foreach_addcmul_(s, d, d, 1 - sqr_mom)
    if belief: torch._foreach_add_(s, eps)
    lr = lr / (1 - mom**step)
    if rate is None: return torch._foreach_add_(p, m, alpha=-lr)
    denom = torch._foreach_sqrt(s)
    torch._foreach_div_(denom, math.sqrt(1 - sqr_mom**step))
    torch._foreach_add_(denom, eps)
    if beta: softplus_(denom, beta)
    torch._foreach_addcdiv_(p, m, denom, -lr * rate)


def softplus_(xs, beta):
    "log(1 + exp(beta x)) / beta for x >= 0, in place."
    tail = torch._foreach_mul(xs, -beta)
    torch._foreach_exp_(tail)
    torch._foreach_log1p_(tail)
    torch._foreach_add_(xs, tail, alpha=1 / beta)
