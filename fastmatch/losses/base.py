"What all losses share: fastai's form (`reduction`, `activation`, `decodes`), several heads at once, and checked labels."
import torch
from torch import nn

from ..core import HeadOutput, InputError


def upcast(x):
    "Half and bfloat16 to float32; float32 and float64 as they are, so that `gradcheck` reaches the formula."
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Loss(nn.Module):
    "A loss over one head's output or a dict of them (summed); subclasses give `one(out, y)`, a value per row."
    y_int = True  # tells fastai's mixing callbacks that targets are class indices: they then mix losses, not labels

    def __init__(
        self,
        reduction: str = 'mean',  # 'mean', 'sum' or 'none' (a value per row)
        head_weights: dict | None = None,  # Weight of each head by name ('image', 'title', 'joint'); 1 where not named
    ):
        super().__init__()
        if reduction not in ('mean', 'sum', 'none'): raise InputError(f"reduction={reduction!r}: choose 'mean', 'sum' or 'none'")
        self.reduction, self.head_weights = reduction, dict(head_weights or {})

    def forward(self, out, y):
        if not isinstance(out, dict): return self.reduce(self._checked(out, y), y)
        if unknown := set(self.head_weights) - set(out):
            raise InputError(f'head_weights names {sorted(unknown)}; the model has the heads {list(out)}')
        return self.reduce(sum(self.head_weights.get(k, 1.) * self._checked(o, y) for k, o in out.items()), y)

    def _checked(self, out, y):
        n_classes = (out.cos if isinstance(out, HeadOutput) else out).shape[-1]
        if len(y) and not (0 <= int(y.min()) and int(y.max()) < n_classes):
            raise InputError(f'labels from {int(y.min())} to {int(y.max())} for {n_classes} classes: they must be 0 to {n_classes - 1}')
        return self.one(out, y)

    def one(
        self,
        out,  # `HeadOutput`, or logits (n,c)
        y,  # int64 (n,)
    ) -> torch.Tensor:  # (n,) the loss of each row
        "The loss of each row."
        raise NotImplementedError

    def reduce(self, loss, y):
        "The rows' losses (n,) as `reduction` asks."
        return loss.mean() if self.reduction == 'mean' else loss.sum() if self.reduction == 'sum' else loss

    def activation(self, out): return out  # what a matching model returns in evaluation is an embedding already
    def decodes(self, out): return out
