"""Heads: the last layer of a model in training. A head holds a center for each class and returns the cosines
of embeddings with the centers, from which the losses in `fastmatch.losses` work.

Centers are weights of the model, not of the loss, because fastai builds its optimizer from the model alone.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from ..core import HeadOutput, InputError, auto_scale, row_blocks
from ..processes import rows_of_all
from .cosines import Cosines
from .gradient_memory import GradientMemory


class CosineHead(nn.Module):
    """A vector for each class, its center: returns the cosine of each embedding with each center,
    https://arxiv.org/abs/1704.06369

    From embeddings (n, n_in) it makes a `HeadOutput`: `cos` (n, n_out), float32 or float64; `emb`, the
    embeddings in the same dtype; and `extra`, a dict with the lengths of the centers as 'norms' (where `k` is
    1) and what subclasses add.

    With `k` above 1 a class has several centers, which leaves room for wrong labels and unusual views:
    sub-center ArcFace, https://doi.org/10.1007/978-3-030-58621-8_43
    """
    labels = None  # (n,) classes of the batch, set by the callback `HeadLabels` where `wants_labels` is true
    wants_labels = False
    _gradient_memory = None  # of heads that an earlier version exported
    # tells this package's optimizers not to centralize the gradient (take off its mean): the mean over a
    # center's entries is part of the direction it has to move in
    centralize_gradient = False

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes (training groups)
        k: int = 1,  # Centers of each class, of which the nearest counts
    ):
        super().__init__()
        if k < 1: raise InputError(f'k={k}: a class has at least one center')
        self.n_in = n_in
        self.n_out = n_out
        self.k = k
        self.weight = nn.Parameter(torch.empty(n_out * k, n_in))
        # only the direction of a center counts; a short one turns quickly under Adam, which is right at the
        # start
        nn.init.normal_(self.weight, std=.01)
        self._gradient_memory = GradientMemory()

    def forward(self, embeddings) -> HeadOutput:
        # in float32 at least, also under autocast: a cosine in half precision is too coarse for a margin
        with torch.autocast(embeddings.device.type, enabled=False):
            if self.training and not len(embeddings):
                raise InputError(f'{type(self).__name__} got a batch of 0 rows: there is nothing to train on')
            if embeddings.dtype != torch.float64: embeddings = embeddings.float()
            classes = self.sampled_classes()
            center_rows = None if classes is None else self._rows_of(classes)
            cosines, norms = Cosines.apply(F.normalize(embeddings), self.weight.to(embeddings.dtype),
                                           center_rows, self._gradient_memory)
            extra = {} if classes is None else {'classes': classes}
            if self.k == 1: extra['norms'] = norms
            # the nearest of the k centers of each class
            else: cosines = cosines.unflatten(1, (-1, self.k)).amax(2)
            return HeadOutput(cosines, embeddings, {**extra, **self.extra_outputs(cosines)})

    def _rows_of(self, classes):
        "The rows of `weight` that hold the centers of `classes`: those of one class are neighbors."
        return (classes[:, None] * self.k + torch.arange(self.k, device=classes.device)).flatten()

    def sampled_classes(self):
        "The classes whose centers are compared, int64 in ascending order; None for all."

    def extra_outputs(self, cosines) -> dict:
        "What a subclass adds to the output's `extra`."
        return {}

    def batch_labels(self):
        "The classes of the batch, or `InputError` where no callback has set them."
        if self.labels is None:
            raise InputError(f'{type(self).__name__} wants the labels in training: '
                             'add the callback HeadLabels')
        return self.labels

    def extra_repr(self):
        centers_shown = f', k={self.k}' if self.k > 1 else ''
        return f'n_in={self.n_in}, n_out={self.n_out}{centers_shown}'


class SampledHead(CosineHead):
    """A `CosineHead` that compares with a sample of the centers in training: those of the batch's classes,
    filled up with classes drawn anew in each batch (Partial FC), https://arxiv.org/abs/2010.05222

    For very many classes, where the full softmax takes most of the time and memory. The columns of `cos` then
    stand for the classes that `extra['classes']` lists. It needs the callback `HeadLabels`.
    """
    wants_labels = True

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes
        k: int = 1,  # Centers of each class
        share: float = .2,  # Share of all classes, the batch's included (.1 lost almost nothing in the paper)
    ):
        super().__init__(n_in, n_out, k)
        if not 0 < share <= 1: raise InputError(f'share={share}: above 0, at most 1')
        self.share = share

    def sampled_classes(self):
        if not self.training: return None
        batch_classes = self.batch_labels().unique()
        n_sampled = max(len(batch_classes), round(self.share * self.n_out))
        # the largest of random numbers below 1 are a fair draw; those of the batch's classes are larger than
        # all
        random_numbers = torch.rand(self.n_out, device=batch_classes.device)
        random_numbers[batch_classes] = 2.
        return random_numbers.topk(n_sampled).indices.sort().values


class TrackedHead(CosineHead):
    """A `CosineHead` that keeps track of how far training is, for `CurricularFace` and `AdaCos`.

    It adds to `extra`: 't', the running mean of the cosines with the own class, and 's', the scale that the
    last batch asks for. Both are saved with the model. It needs the callback `HeadLabels`.
    """
    wants_labels = True

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes
        k: int = 1,  # Centers of each class
        beta: float = .99,  # Share of the old mean that is kept in each batch (.99 in CurricularFace)
    ):
        super().__init__(n_in, n_out, k)
        self.beta = beta
        self.register_buffer('t', torch.zeros(()))
        self.register_buffer('s', torch.tensor(auto_scale(n_out)))

    @torch.no_grad()
    def extra_outputs(self, cosines):
        if self.training:
            columns = self.batch_labels()[:, None]
            target_cosines = cosines.gather(1, columns)
            self.t.lerp_(rows_of_all(target_cosines).mean().to(self.t), 1 - self.beta)
            self.s.copy_(self._adacos_scale(cosines, columns, target_cosines))
        # copies: the next batch changes the buffers, perhaps before this batch's gradient is taken
        return {'t': self.t.clone(), 's': self.s.clone()}

    def _adacos_scale(self, cosines, columns, target_cosines):
        """AdaCos' scale for the batch, from the scale before: log(B) / cos(min(pi/4, theta)), with B the
        mean over the rows of sum(exp(s cos)) over the other classes, and theta the median angle to the
        own class. It is 1 at least, as the fixed scale of `auto_scale` is: with two classes B falls below 1
        as soon as the other class is on the far side, and a scale below 0 would push rows away from their
        own class."""
        log_sums = [(self.s * cosines[block]).scatter_(1, columns[block], -math.inf).logsumexp(1)
                    for block in row_blocks(len(cosines), cosines)]
        log_sums = rows_of_all(torch.cat(log_sums))
        log_b = log_sums.logsumexp(0) - math.log(len(log_sums))
        theta = rows_of_all(target_cosines).clamp(-1, 1).acos().median()
        return (log_b / theta.clamp(max=math.pi / 4).cos()).clamp(min=1.)


class CenterHead(CosineHead):
    """A `CosineHead` with a second center for each class, a point among the embeddings, for `CenterLoss`;
    it adds 'centers' (n_out, n_in) to `extra`."""
    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes
        k: int = 1,  # Centers of each class for the cosines
    ):
        super().__init__(n_in, n_out, k)
        self.centers = nn.Parameter(torch.randn(n_out, n_in) * .01)

    def extra_outputs(self, cosines): return {'centers': self.centers}
