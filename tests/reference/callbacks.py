"Training with callbacks as a plain loop: every algorithm from its paper, in the order things happen, on weights and buffers in dictionaries."
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call


def length(tensors): return float(sum((o.double()**2).sum() for o in tensors))**.5


class Loop:
    "SGD with momentum on `model`'s weights, which are left as they are; a batch is a dict of x, y and, where mixed, y1 and lam; m where a margin moves."
    def __init__(self, model, kind, live=None, half=None, scale=1., clip=None, **hyper):
        self.model = model.train()
        self.w = {k: v.detach().clone() for k, v in model.named_parameters()}
        self.b = {k: v.clone() for k, v in model.named_buffers()}
        self.live, self.half, self.scale, self.clip, self.kind, self.h = live or list(self.w), half, scale, clip, kind, hyper
        self.v, self.n, self.part, self.outs = {k: torch.zeros_like(self.w[k]) for k in self.live}, 0, None, {}
        self.terms = []

    def logits(self, w, x, b):
        with torch.autocast(x.device.type, self.half or torch.bfloat16, enabled=self.half is not None):
            out = functional_call(self.model, {**w, **b}, (x,))
            return (torch.tanh(out) if self.kind == 'MarginSchedule' else out).float()

    def each(self, out, y, batch):
        "The loss of each row; of a sum, of each term."
        if self.kind == 'MarginSchedule': return F.cross_entropy(self.h['s'] * (out - batch['m'] * F.one_hot(y, out.shape[1])), y, reduction='none')
        ce = F.cross_entropy(out, y, reduction='none')
        return torch.stack([ce, self.h['focal'] * (1 - (-ce).exp())**2 * ce]) if self.kind == 'LossTerms' else ce

    def rows(self, w, batch, b):
        out = self.logits(w, batch['x'], b)
        self.last = out.detach()
        loss = self.each(out, batch['y'], batch)
        if 'y1' in batch: loss = batch['lam'] * loss + (1 - batch['lam']) * self.each(out, batch['y1'], batch)
        if self.kind == 'LossTerms':
            self.terms.append(loss.detach().mean(1).tolist())
            loss = loss.sum(0)
        if 'old' in batch: loss = loss + self.h['weight'] * F.kl_div((out / 5).log_softmax(1), (batch['old'] / 5).softmax(1), reduction='none').sum(1)
        return loss

    def grad(self, w, group, buffers=None, of=None):
        "Mean gradient over the rows of all batches; buffers given are moved, else copies."
        of, total, res = of or self.live, sum(len(o['y']) for o in group), None
        for batch in group:
            leaves = {k: v.clone().requires_grad_(k in of) for k, v in w.items()}
            b = {k: v.clone() for k, v in self.b.items()} if buffers is None else buffers
            loss = self.rows(leaves, batch, b).sum() / total * self.scale
            gs = torch.autograd.grad(loss, [leaves[k] for k in of])
            res = gs if res is None else [a + c for a, c in zip(res, gs)]
        return {k: g / self.scale for k, g in zip(of, res)}

    def at(self, e): return {k: v + e[k] if k in e else v for k, v in self.w.items()}
    def look(self, w, batch):
        with torch.no_grad(): return self.rows(w, batch, {k: v.clone() for k, v in self.b.items()})

    def hard(self, group):
        res = []
        for o in group:
            clean = o.get('clean', o)
            with torch.no_grad(): losses = self.rows(self.w, {k: clean[k] for k in 'xy'}, self.b)
            top = losses.topk(math.ceil(self.h['share'] * len(losses))).indices.sort().values
            res.append(o if 'clean' in o else {k: v[top] for k, v in o.items()})
        return res

    def gradient(self, group, it):
        "The gradient of a step that begins at batch `it`; None where nothing is to be stepped."
        h, kind = self.h, self.kind
        if kind == 'HardMining': return self.grad(self.w, self.hard(group))
        if kind == 'ESAM': return self.esam(group, it)
        g = self.grad(self.w, group, self.b)
        if kind == 'SAM': return self.grad(self.at({k: h['rho'] * v / length(g.values()) for k, v in g.items()}), group)
        if kind == 'ASAM':
            t = {k: self.w[k].abs() + .01 for k in g}
            norm = length([t[k] * g[k] for k in g])
            return self.grad(self.at({k: h['rho'] * t[k]**2 * g[k] / norm for k in g}), group)
        if kind == 'LookSAM':
            self.n += 1
            if (self.n - 1) % h['k']: return {k: v + .7 * length(g.values()) / length(self.part.values()) * self.part[k] for k, v in g.items()}
            new = self.grad(self.at({k: h['rho'] * v / length(g.values()) for k, v in g.items()}), group)
            along = sum(float((new[k].double() * g[k].double()).sum()) for k in g) / length(g.values())**2
            self.part = {k: new[k] - along * g[k] for k in g}
            return new
        if kind in ('FGM', 'PGD'):
            if h['name'] not in g: return g
            e, name, one = torch.zeros_like(g[h['name']]), h['name'], g
            for _ in range(h['k']):
                e = e + h['alpha'] * one[name] / length([one[name]])
                e = e * min(1., h['eps'] / length([e]))
                one = self.grad(self.at({name: e}), group)
            return {k: g[k] + one[k] for k in g}
        return g

    def esam(self, group, it):
        h = self.h
        draw = np.random.default_rng([0, it]).random(len(self.live))
        chosen = [k for k, d in zip(self.live, draw) if d <= max(h['beta'], draw.min())]
        before = [self.look(self.w, o) for o in group]
        g = self.grad(self.w, group, self.b, chosen)
        w = self.at({k: h['rho'] / math.sqrt(h['beta']) * v / length(g.values()) for k, v in g.items()})
        part = []
        for o, a in zip(group, before):
            top = (self.look(w, o) - a).topk(max(2, round(h['gamma'] * len(a)))).indices.sort().values
            part.append({k: v[top] for k, v in o.items() if k != 'clean'})
        # each batch weighs as many rows as it had
        n = sum(len(o['y']) for o in group)
        gs = [(len(o['y']) / n, self.grad(w, [p])) for o, p in zip(group, part)]
        return {k: sum(s * x[k] for s, x in gs) for k in self.live}

    def step(self, group, lr, mom, it, blown=False):
        "One step; `blown`: with an infinite loss somewhere, skipped."
        if blown:
            # the first pass's statistics have moved, and that is all
            for o in self.hard(group) if self.kind == 'HardMining' else group:
                if self.kind != 'HardMining': self.logits(self.w, o['x'], self.b)
            return
        g = self.gradient(group, it)
        if self.clip is not None:
            norm = length(g.values())
            g = {k: v * min(1., self.clip / (norm + 1e-6)) for k, v in g.items()}
        for k, v in g.items():
            self.v[k] = mom * self.v[k] + v
            self.w[k] = self.w[k] - lr * self.v[k]
