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

    def logits(self, weights, inputs, buffers):
        "The model's output with these weights and buffers."
        with torch.autocast(inputs.device.type, self.half or torch.bfloat16, enabled=self.half is not None):
            outputs = functional_call(self.model, {**weights, **buffers}, (inputs,))
            return (torch.tanh(outputs) if self.kind == 'MarginSchedule' else outputs).float()

    def each(self, outputs, targets, batch):
        "The loss of each row; of a sum, of each term."
        if self.kind == 'MarginSchedule':
            margins = batch['m'] * F.one_hot(targets, outputs.shape[1])
            return F.cross_entropy(self.options['s'] * (outputs - margins), targets, reduction='none')
        plain = F.cross_entropy(outputs, targets, reduction='none')
        if self.kind != 'LossTerms': return plain
        return torch.stack([plain, self.options['focal'] * (1 - (-plain).exp())**2 * plain])

    def rows(self, weights, batch, buffers):
        "The loss of each row of a batch, with all that is added to it."
        outputs = self.logits(weights, batch['x'], buffers)
        self.last = outputs.detach()
        loss = self.each(outputs, batch['y'], batch)
        if 'y1' in batch:
            loss = batch['lam'] * loss + (1 - batch['lam']) * self.each(outputs, batch['y1'], batch)
        if self.kind == 'LossTerms':
            self.terms.append(loss.detach().mean(1).tolist())
            loss = loss.sum(0)
        if 'old' in batch:
            softened, earlier = (outputs / 5).log_softmax(1), (batch['old'] / 5).softmax(1)
            divergence = F.kl_div(softened, earlier, reduction='none')
            loss = loss + self.options['weight'] * divergence.sum(1)
        return loss

    def grad(self, weights, batches, buffers=None, names=None):
        "Mean gradient over the rows of all batches; buffers given are moved, else copies."
        names = names or self.live
        n_rows = sum(len(batch['y']) for batch in batches)
        total = None
        for batch in batches:
            leaves = {name: weight.clone().requires_grad_(name in names) for name, weight in weights.items()}
            moved_buffers = copied(self.b) if buffers is None else buffers
            loss = self.rows(leaves, batch, moved_buffers).sum() / n_rows * self.scale
            gradients = torch.autograd.grad(loss, [leaves[name] for name in names])
            if total is None: total = gradients
            else: total = [so_far + gradient for so_far, gradient in zip(total, gradients)]
        return {name: gradient / self.scale for name, gradient in zip(names, total)}

    def at(self, moves):
        "The weights, moved."
        return {name: weight + moves[name] if name in moves else weight for name, weight in self.w.items()}

    def uphill(self, gradients, rho):
        "The weights moved by `rho` along the gradients."
        norm = length(gradients.values())
        return self.at({name: rho * gradient / norm for name, gradient in gradients.items()})

    def look(self, weights, batch):
        "The loss of each row, without gradients."
        with torch.no_grad(): return self.rows(weights, batch, copied(self.b))

    def hard(self, batches):
        "The batches with their hardest rows only."
        harder = []
        for batch in batches:
            clean = batch.get('clean', batch)
            with torch.no_grad(): losses = self.rows(self.w, {key: clean[key] for key in 'xy'}, self.b)
            hardest = losses.topk(math.ceil(self.options['share'] * len(losses))).indices.sort().values
            if 'clean' in batch: harder.append(batch)
            else: harder.append({key: values[hardest] for key, values in batch.items()})
        return harder

    def gradient(self, batches, first_batch):
        "The gradient of a step that begins at batch number `first_batch`."
        options = self.options
        if self.kind == 'HardMining': return self.grad(self.w, self.hard(batches))
        if self.kind == 'ESAM': return self.esam(batches, first_batch)
        plain = self.grad(self.w, batches, self.b)
        if self.kind == 'SAM': return self.grad(self.uphill(plain, options['rho']), batches)
        if self.kind == 'ASAM': return self.asam(batches, plain)
        if self.kind == 'LookSAM': return self.looksam(batches, plain)
        if self.kind in ('FGM', 'PGD') and options['name'] in plain: return self.adversarial(batches, plain)
        return plain

    def asam(self, batches, plain):
        # the authors scale what is called a weight
        sizes = {name: self.w[name].abs() + .01 if 'weight' in name else torch.ones_like(self.w[name])
                 for name in plain}
        norm = length([sizes[name] * plain[name] for name in plain])
        rho = self.options['rho']
        moves = {name: rho * sizes[name]**2 * plain[name] / norm for name in plain}
        return self.grad(self.at(moves), batches)

    def looksam(self, batches, plain):
        self.n += 1
        plain_length = length(plain.values())
        if (self.n - 1) % self.options['k']:
            factor = .7 * plain_length / length(self.flat_part.values())
            return {name: gradient + factor * self.flat_part[name] for name, gradient in plain.items()}
        sharp = self.grad(self.uphill(plain, self.options['rho']), batches)
        products = [float((sharp[name].double() * plain[name].double()).sum()) for name in plain]
        along = sum(products) / plain_length**2
        self.flat_part = {name: sharp[name] - along * plain[name] for name in plain}
        return sharp

    def adversarial(self, batches, plain):
        name = self.options['name']
        move = torch.zeros_like(plain[name])
        moved = plain
        for _ in range(self.options['k']):
            move = move + self.options['alpha'] * moved[name] / length([moved[name]])
            move = move * min(1., self.options['eps'] / length([move]))
            moved = self.grad(self.at({name: move}), batches)
        return {key: plain[key] + moved[key] for key in plain}

    def esam(self, batches, first_batch):
        options = self.options
        draws = np.random.default_rng([0, first_batch]).random(len(self.live))
        largest = max(options['beta'], draws.min())
        chosen = [name for name, drawn in zip(self.live, draws) if drawn <= largest]
        before = [self.look(self.w, batch) for batch in batches]
        plain = self.grad(self.w, batches, self.b, chosen)
        uphill_weights = self.uphill(plain, options['rho'] / math.sqrt(options['beta']))
        # each batch weighs as many rows as it had
        n_rows = sum(len(batch['y']) for batch in batches)
        total = dict.fromkeys(self.live, 0)
        for batch, losses in zip(batches, before):
            n_top = max(2, round(options['gamma'] * len(losses)))
            most_harmed = (self.look(uphill_weights, batch) - losses).topk(n_top).indices.sort().values
            harmed = {key: values[most_harmed] for key, values in batch.items() if key != 'clean'}
            share = len(batch['y']) / n_rows
            gradients = self.grad(uphill_weights, [harmed])
            total = {name: total[name] + share * gradients[name] for name in self.live}
        return total

    def step(self, batches, lr, momentum, first_batch, blown=False):
        "One step; `blown`: with an infinite loss somewhere, skipped."
        if blown:
            # the first pass's statistics have moved, and that is all
            if self.kind == 'HardMining': self.hard(batches)
            else:
                for batch in batches: self.logits(self.w, batch['x'], self.b)
            return
        gradients = self.gradient(batches, first_batch)
        if self.clip is not None:
            factor = min(1., self.clip / (length(gradients.values()) + 1e-6))
            gradients = {name: gradient * factor for name, gradient in gradients.items()}
        for name, gradient in gradients.items():
            self.momenta[name] = momentum * self.momenta[name] + gradient
            self.w[name] = self.w[name] - lr * self.momenta[name]
