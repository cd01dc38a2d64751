"Layers between an encoder and a loss: pooling, a normalising neck, and heads of class centres."
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from ..core import HeadOutput, InputError, auto_scale


def _blocks(n, like):
    "Slices over `n` rows: on a CPU as many as stay in its cache, elsewhere all at once."
    step = max(1, 2**19 // like.shape[1]) if like.device.type == 'cpu' else n
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _zeros_like(w):
    "Zeros that on a CPU take memory only where they are written: the gradient of a few rows then costs those rows."
    return torch.zeros_like(w) if w.device.type != 'cpu' else torch.from_numpy(np.zeros(w.shape, w.detach().numpy().dtype))


class Cosines(torch.autograd.Function):
    "Cosines (n,c) of unit rows `x` (n,d) with rows of `w`, and the lengths (c,) of those; `rows` picks some of `w`'s, each once."
    # Dividing the products by the lengths costs little beside them; normalising `w`, forward and back, costs several copies of it.
    @staticmethod
    def forward(ctx, x, w, rows=None):
        c = len(w) if rows is None else len(rows)
        cos, norms = x.new_empty(len(x), c), x.new_empty(c)
        for b in _blocks(c, w):
            part = w[b] if rows is None else w[rows[b]]
            norms[b] = torch.linalg.vector_norm(part, dim=1).clamp_(min=1e-12)
            cos[:, b] = (x @ part.t()).div_(norms[b])
        ctx.save_for_backward(x, w, cos, norms, rows)
        ctx.set_materialize_grads(False)
        return cos, norms

    @staticmethod
    @once_differentiable
    def backward(ctx, g_cos, g_norms):
        x, w, cos, norms, rows = ctx.saved_tensors
        dx, dw = torch.zeros_like(x), _zeros_like(w)
        for b in _blocks(len(norms), w):
            part = w[b] if rows is None else w[rows[b]]
            g = torch.zeros_like(cos[:, b]) if g_cos is None else g_cos[:, b] / norms[b]
            # d cos / dw = (x - cos w/|w|) / |w|: the second part is one factor a row
            along = torch.einsum('nc,nc->c', g, cos[:, b])
            if g_norms is not None: along -= g_norms[b]
            # straight into its place where that is one piece
            d = torch.mm(g.t(), x, out=dw[b]) if rows is None else g.t() @ x
            d.addcmul_(part, (along / norms[b])[:, None], value=-1)
            if rows is not None: dw[rows[b]] = d
            dx.addmm_(g, part)
        return dx, dw, None


class CosineHead(nn.Module):
    "Class centres as weights: returns the cosine of each embedding with each centre, https://arxiv.org/abs/1704.06369"
    labels = None  # (n,) the batch's labels, given by `HeadLabels` to heads that want them
    wants_labels = False
    no_gc = True  # a centre's gradient has a mean of its own right: optimizers don't centralise it

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes (training groups)
        k: int = 1,  # Centres of a class, of which the nearest counts: room for noise and odd views, https://doi.org/10.1007/978-3-030-58621-8_43
    ):
        super().__init__()
        if k < 1: raise InputError(f'k={k}: a class has one centre at least')
        self.n_in, self.n_out, self.k = n_in, n_out, k
        self.weight = nn.Parameter(torch.empty(n_out * k, n_in))
        # the direction of a centre is all that counts; a small norm lets it turn quickly under Adam at first
        nn.init.normal_(self.weight, std=.01)

    def forward(self, emb) -> HeadOutput:
        # cosines in float32 at least, also under autocast: a half-precision cosine can't hold a margin
        with torch.autocast(emb.device.type, enabled=False):
            x = emb if emb.dtype == torch.float64 else emb.float()
            classes = self.pick()
            rows = None if classes is None else (classes[:, None] * self.k + torch.arange(self.k, device=classes.device)).flatten()
            cos, norms = Cosines.apply(F.normalize(x), self.weight.to(x.dtype), rows)
            extra = {} if classes is None else {'classes': classes}
            if self.k == 1: extra['norms'] = norms
            else: cos = cos.unflatten(1, (-1, self.k)).amax(2)
            return HeadOutput(cos, x, {**extra, **self.more(cos)})

    def pick(self):
        "The classes looked at, sorted int64, or None for all."

    def more(self, cos):
        "What else goes into the output's `extra`."
        return {}

    def need_labels(self):
        if self.labels is None: raise InputError(f'{type(self).__name__} wants the labels in training: add the callback HeadLabels')
        return self.labels

    def extra_repr(self): return f'n_in={self.n_in}, n_out={self.n_out}' + (f', k={self.k}' if self.k > 1 else '')


class SampledHead(CosineHead):
    "Looks at the centres of the batch's classes and a share of the others, drawn anew each time (Partial FC), https://arxiv.org/abs/2010.05222"
    wants_labels = True

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes
        k: int = 1,  # Centres of a class
        share: float = .2,  # Of all classes, the batch's among them (.1 lost next to nothing in the paper)
    ):
        super().__init__(n_in, n_out, k)
        if not 0 < share <= 1: raise InputError(f'share={share}: above 0, at most 1')
        self.share = share

    def pick(self):
        if not self.training: return None
        have = self.need_labels().unique()
        draw = torch.rand(self.n_out, device=have.device)
        draw[have] = 2.
        return draw.topk(max(len(have), round(self.share * self.n_out))).indices.sort().values


class TrackedHead(CosineHead):
    "Keeps track of how far training is: `t`, the mean target cosine (CurricularFace), and `s`, the scale that the batch needs (AdaCos)."
    wants_labels = True

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes
        k: int = 1,  # Centres of a class
        beta: float = .99,  # Share of the old mean kept at each batch (CurricularFace's .99)
    ):
        super().__init__(n_in, n_out, k)
        self.beta = beta
        self.register_buffer('t', torch.zeros(()))
        self.register_buffer('s', torch.tensor(auto_scale(n_out)))

    @torch.no_grad()
    def more(self, cos):
        if self.training:
            y = self.need_labels()[:, None]
            target = cos.gather(1, y)
            self.t.lerp_(target.mean().to(self.t), 1 - self.beta)
            rest = torch.cat([(self.s * cos[b]).scatter_(1, y[b], -math.inf).logsumexp(1) for b in _blocks(len(cos), cos)]).logsumexp(0) - math.log(len(cos))
            self.s.copy_(rest / target.clamp(-1, 1).acos().median().clamp(max=math.pi / 4).cos())
        # copies: the next batch moves the buffers, perhaps before this one's gradient is taken
        return {'t': self.t.clone(), 's': self.s.clone()}


class CenterHead(CosineHead):
    "Has a second centre for each class, a point in the space of embeddings, for `CenterLoss`; their rate is the parameter group 'centers'."
    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes
        k: int = 1,  # Centres of a class for the cosines
    ):
        super().__init__(n_in, n_out, k)
        self.centers = nn.Parameter(torch.randn(n_out, n_in) * .01)

    def more(self, cos): return {'centers': self.centers}
