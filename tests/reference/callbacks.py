"""Training with callbacks as a plain loop, to compare with: every algorithm written from its paper.

Everything happens in the order of the papers, on weights and buffers in dictionaries.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call


def length(tensors):
    "The length of all tensors together, as one vector."
    return float(sum((tensor.double()**2).sum() for tensor in tensors))**.5


def copied(tensors): return {name: tensor.clone() for name, tensor in tensors.items()}


class Loop:
    """SGD with momentum on a model's weights, which are left as they are.

    A batch is a dict of inputs `x` and targets `y`; where mixed, the other targets `y1` and shares `lam`;
    where a margin moves, the margin `m`; where outputs are held, the earlier ones `old`.
    """
    def __init__(self, model, kind, live=None, half=None, scale=1., clip=None, **options):
        self.model = model.train()
        self.kind = kind
        self.half = half
        self.scale = scale
        self.clip = clip
        self.options = options
        self.w = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.b = copied(dict(model.named_buffers()))
        self.live = live or list(self.w)
        self.momenta = {name: torch.zeros_like(self.w[name]) for name in self.live}
        self.n = 0
        self.flat_part = None
        self.outs = {}
        self.terms = []

    def logits(self, w, x, b):
        "The model's output with weights `w` and buffers `b`."
        with torch.autocast(x.device.type, self.half or torch.bfloat16, enabled=self.half is not None):
            out = functional_call(self.model, {**w, **b}, (x,))
            return (torch.tanh(out) if self.kind == 'MarginSchedule' else out).float()

    def each(self, out, y, batch):
        "The loss of each row; of a sum, of each term."
        if self.kind == 'MarginSchedule':
            margins = batch['m'] * F.one_hot(y, out.shape[1])
            return F.cross_entropy(self.options['s'] * (out - margins), y, reduction='none')
        plain = F.cross_entropy(out, y, reduction='none')
        if self.kind != 'LossTerms': return plain
        return torch.stack([plain, self.options['focal'] * (1 - (-plain).exp())**2 * plain])

    def rows(self, w, batch, b):
        "The loss of each row of a batch, with all that is added to it."
        out = self.logits(w, batch['x'], b)
        self.last = out.detach()
        loss = self.each(out, batch['y'], batch)
        if 'y1' in batch:
            loss = batch['lam'] * loss + (1 - batch['lam']) * self.each(out, batch['y1'], batch)
        if self.kind == 'LossTerms':
            self.terms.append(loss.detach().mean(1).tolist())
            loss = loss.sum(0)
        if 'old' in batch:
            divergence = F.kl_div((out / 5).log_softmax(1), (batch['old'] / 5).softmax(1), reduction='none')
            loss = loss + self.options['weight'] * divergence.sum(1)
        return loss

    def grad(self, w, group, buffers=None, of=None):
        "Mean gradient over the rows of all batches; buffers given are moved, else copies."
        of = of or self.live
        n_rows = sum(len(batch['y']) for batch in group)
        total = None
        for batch in group:
            leaves = {name: weight.clone().requires_grad_(name in of) for name, weight in w.items()}
            b = copied(self.b) if buffers is None else buffers
            loss = self.rows(leaves, batch, b).sum() / n_rows * self.scale
            gradients = torch.autograd.grad(loss, [leaves[name] for name in of])
            total = gradients if total is None else [a + c for a, c in zip(total, gradients)]
        return {name: gradient / self.scale for name, gradient in zip(of, total)}

    def at(self, moves):
        "The weights, moved."
        return {name: weight + moves[name] if name in moves else weight for name, weight in self.w.items()}

    def uphill(self, gradients, rho):
        "The weights moved by `rho` along the gradients."
        norm = length(gradients.values())
        return self.at({name: rho * gradient / norm for name, gradient in gradients.items()})

    def look(self, w, batch):
        "The loss of each row, without gradients."
        with torch.no_grad(): return self.rows(w, batch, copied(self.b))

    def hard(self, group):
        "The batches with their hardest rows only."
        harder = []
        for batch in group:
            clean = batch.get('clean', batch)
            with torch.no_grad(): losses = self.rows(self.w, {key: clean[key] for key in 'xy'}, self.b)
            top = losses.topk(math.ceil(self.options['share'] * len(losses))).indices.sort().values
            harder.append(batch if 'clean' in batch else {key: values[top] for key, values in batch.items()})
        return harder

    def gradient(self, group, it):
        "The gradient of a step that begins at batch `it`."
        options = self.options
        if self.kind == 'HardMining': return self.grad(self.w, self.hard(group))
        if self.kind == 'ESAM': return self.esam(group, it)
        plain = self.grad(self.w, group, self.b)
        if self.kind == 'SAM': return self.grad(self.uphill(plain, options['rho']), group)
        if self.kind == 'ASAM': return self.asam(group, plain)
        if self.kind == 'LookSAM': return self.looksam(group, plain)
        if self.kind in ('FGM', 'PGD') and options['name'] in plain: return self.adversarial(group, plain)
        return plain

    def asam(self, group, plain):
        sizes = {name: self.w[name].abs() + .01 for name in plain}
        norm = length([sizes[name] * plain[name] for name in plain])
        rho = self.options['rho']
        return self.grad(self.at({name: rho * sizes[name]**2 * plain[name] / norm for name in plain}), group)

    def looksam(self, group, plain):
        self.n += 1
        plain_length = length(plain.values())
        if (self.n - 1) % self.options['k']:
            factor = .7 * plain_length / length(self.flat_part.values())
            return {name: gradient + factor * self.flat_part[name] for name, gradient in plain.items()}
        sharp = self.grad(self.uphill(plain, self.options['rho']), group)
        products = [float((sharp[name].double() * plain[name].double()).sum()) for name in plain]
        along = sum(products) / plain_length**2
        self.flat_part = {name: sharp[name] - along * plain[name] for name in plain}
        return sharp

    def adversarial(self, group, plain):
        name = self.options['name']
        move = torch.zeros_like(plain[name])
        moved = plain
        for _ in range(self.options['k']):
            move = move + self.options['alpha'] * moved[name] / length([moved[name]])
            move = move * min(1., self.options['eps'] / length([move]))
            moved = self.grad(self.at({name: move}), group)
        return {key: plain[key] + moved[key] for key in plain}

    def esam(self, group, it):
        options = self.options
        draw = np.random.default_rng([0, it]).random(len(self.live))
        most = max(options['beta'], draw.min())
        chosen = [name for name, drawn in zip(self.live, draw) if drawn <= most]
        before = [self.look(self.w, batch) for batch in group]
        plain = self.grad(self.w, group, self.b, chosen)
        w = self.uphill(plain, options['rho'] / math.sqrt(options['beta']))
        # each batch weighs as many rows as it had
        n_rows = sum(len(batch['y']) for batch in group)
        total = dict.fromkeys(self.live, 0)
        for batch, losses in zip(group, before):
            n_top = max(2, round(options['gamma'] * len(losses)))
            top = (self.look(w, batch) - losses).topk(n_top).indices.sort().values
            harmed = {key: values[top] for key, values in batch.items() if key != 'clean'}
            share = len(batch['y']) / n_rows
            gradients = self.grad(w, [harmed])
            total = {name: total[name] + share * gradients[name] for name in self.live}
        return total

    def step(self, group, lr, mom, it, blown=False):
        "One step; `blown`: with an infinite loss somewhere, skipped."
        if blown:
            # the first pass's statistics have moved, and that is all
            if self.kind == 'HardMining': self.hard(group)
            else:
                for batch in group: self.logits(self.w, batch['x'], self.b)
            return
        gradients = self.gradient(group, it)
        if self.clip is not None:
            factor = min(1., self.clip / (length(gradients.values()) + 1e-6))
            gradients = {name: gradient * factor for name, gradient in gradients.items()}
        for name, gradient in gradients.items():
            self.momenta[name] = mom * self.momenta[name] + gradient
            self.w[name] = self.w[name] - lr * self.momenta[name]
