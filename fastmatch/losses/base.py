"What all losses share: fastai's form (`reduction`, `activation`, `decodes`), several heads at once, and checked labels."
import math

import torch
from torch import nn

from ..core import HeadOutput, InputError, preview


def upcast(x):
    "Half and bfloat16 to float32; float32 and float64 as they are, so that `gradcheck` reaches the formula."
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def columns(
    out,  # `HeadOutput`, or logits (n,c)
    y,  # int64 (n,) classes
) -> torch.Tensor:  # int64 (n,)
    "The column of `out` that each class sits in: the class itself, unless the head looked at some centres only."
    classes = out.extra.get('classes') if isinstance(out, HeadOutput) else None
    return y if classes is None else torch.searchsorted(classes, y).clamp(max=len(classes) - 1)


class NotANumber(InputError):
    "A loss became NaN."


def _lost(loss, out, rows):
    "What to say of a loss that is NaN: in which rows, and the range of what it reads."
    x = loss.reads(out).detach()
    lost, known = x.flatten(1).isnan().any(1), x[~x.isnan()]
    bad = (lost if lost.any() else rows.detach().isnan()).nonzero().flatten().tolist()
    span = f'the others run from {known.min():.3g} to {known.max():.3g}' if len(known) else 'there are no others'
    return (f'{type(loss).__name__}: NaN in {len(bad)} of {len(rows)} rows ({preview(bad)}). Of the {x.numel()} values it reads {int(x.isnan().sum())} are NaN, {span}: '
            'lower the learning rate, or look for NaN in inputs and weights')


def check_range(y, n_classes, what='labels'):
    lo, hi = torch.stack(y.aminmax()).tolist()
    if not (0 <= lo and hi < n_classes): raise InputError(f'{what} from {lo:g} to {hi:g} for {n_classes} classes: they must be 0 to {n_classes - 1}')


def check_scale(s):
    if s is not None and not 0 < s < math.inf: raise InputError(f's={s}: the scale must be above 0, or None for the rule of AdaCos')
    return s


def check_smoothing(x):
    if not 0 <= x <= 1: raise InputError(f'label_smoothing={x}: choose from 0 to 1')
    return x


class Loss(nn.Module):
    "A loss over one head's output or a dict of them (summed); subclasses give `one(out, y)`, a value per row."
    y_int = True  # tells fastai's mixing callbacks to mix losses, not labels: with two targets every loss here is right

    def __init__(
        self,
        reduction: str = 'mean',  # 'mean', 'sum' or 'none' (a value per row)
        head_weights: dict | None = None,  # Weight of each head by name ('image', 'title', 'joint'); 1 where not named
    ):
        super().__init__()
        self._calls = 0
        if reduction not in ('mean', 'sum', 'none'): raise InputError(f"reduction={reduction!r}: choose 'mean', 'sum' or 'none'")
        self.reduction, self.head_weights = reduction, dict(head_weights or {})

    def forward(self, out, *ys):
        # a value read from a GPU waits for all that was started there before; a CPU has it at hand
        self._calls += 1
        look = ys[0].device.type == 'cpu' or self._calls & (self._calls - 1) == 0
        if not isinstance(out, dict): return self.reduce(self._checked(out, *ys, look=look), ys[0])
        if unknown := set(self.head_weights) - set(out):
            raise InputError(f'head_weights names {sorted(unknown)}; the model has the heads {list(out)}')
        return self.reduce(sum(self.head_weights.get(k, 1.) * self._checked(o, *ys, look=look) for k, o in out.items()), ys[0])

    def _checked(self, out, *ys, look):
        self.check(out, *ys)
        if look: self.check_values(out, *ys)
        rows = self.one(out, *ys)
        if look and bool(self.telltale(out, rows).detach().isnan().any()): raise NotANumber(_lost(self, out, rows))
        return rows

    def reads(self, out): return out.cos if isinstance(out, HeadOutput) else out
    # cosines and logits end in a sum over all of a row: its loss tells of each, at the cost of looking at n values
    def telltale(self, out, rows): return rows

    def check(self, out, y):
        "Raise `InputError` unless the shapes fit, every batch: here, a class for each row of `out`."
        n = len(self.reads(out))
        if y.shape != (n,) or y.dtype != torch.int64:
            raise InputError(f'{type(self).__name__} wants the class of each of the {n} rows, int64 ({n},); it got {y.dtype} {tuple(y.shape)}')

    def check_values(self, out, y):
        "Raise `InputError` unless the values fit; on a GPU in batches 1, 2, 4, 8 ... alone. Here, class indices that have a column."
        n_classes = self.reads(out).shape[-1]
        if isinstance(out, HeadOutput) and 'classes' in out.extra:
            if len(lost := y[out.extra['classes'][columns(out, y)] != y]):
                raise InputError(f'the head looked at {n_classes} centres without those of the labels {preview(lost.tolist())}: '
                                 'the callback HeadLabels hands it the labels')
        elif len(y): check_range(y, n_classes)

    def one(
        self,
        out,  # `HeadOutput`, or logits (n,c)
        y,  # int64 (n,)
    ) -> torch.Tensor:  # (n,) the loss of each row
        "The loss of each row."
        raise NotImplementedError

    def reduce(self, loss, y):
        "The rows' losses (n,) as `reduction` asks."
        return self.mean(loss, y) if self.reduction == 'mean' else loss.sum() if self.reduction == 'sum' else loss

    def mean(self, loss, y):
        "The mean of the rows' losses; weighted, or over some rows only, where the paper says so."
        return loss.mean()

    def activation(self, out): return out  # what a matching model returns in evaluation is an embedding already
    def decodes(self, out): return out


def read_cosines(loss, out):
    "Raise `InputError` unless `out` is a head's output."
    if not isinstance(out, HeadOutput):
        raise InputError(f"{type(loss).__name__} reads a head's cosines; it got {type(out).__name__} "
                         '(in evaluation the model returns embeddings, which have no loss)')


def read_extra(
    loss,  # Who asks, for the message
    out,  # `HeadOutput`
    key: str,  # 'norms', 't', 's' or 'centers'
    head: str,  # The head that gives it
):
    "What the head hands over besides cosines, or `InputError` naming the head that does."
    if key not in out.extra: raise InputError(f'{type(loss).__name__} reads {key!r} of a {head}: match_learner(..., head_func={head})')
    return out.extra[key]
