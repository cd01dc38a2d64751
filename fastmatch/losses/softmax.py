"""Softmax over the cosines to class centers: the base of all margin losses, and losses that differ in the
scale alone."""
import torch
import torch.nn.functional as F

from ..core import auto_scale
from .base import Loss, check_scale, check_smoothing, require_cosines, required_extra, target_columns, upcast
from .classify import CrossEntropy
from .fused import EPS, MarginCrossEntropy


class NormSoftmax(Loss):
    """Cross-entropy over scaled cosines (NormFace), https://arxiv.org/abs/1704.06369

    It reads the `HeadOutput` of a `CosineHead` and the classes of the rows. For a margin loss of your own,
    subclass it and implement `margin(cos, y)`.
    """
    def __init__(
        self,
        s: float | None = None,  # Scale of the cosines before the softmax; None: `auto_scale`, AdaCos' rule
        label_smoothing: float = 0.,  # Share of the target that is spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        self.s = check_scale(s)
        self.label_smoothing = check_smoothing(label_smoothing)

    def check_options(self):
        """Raise `InputError` for a margin or scale out of range: when made, and for each value a
        `MarginSchedule` will set."""
        check_scale(self.s)

    def margin(
        self,
        cos,  # (n,) cosine of each row with the center of its own class, from -(1-1e-6) to 1-1e-6
        y,  # int64 (n,) class of each row
    ):  # (n,)
        "The cosine of each row with its own class, made harder; here returned as it is."
        return cos

    def other_cosines(
        self,
        cosines,  # (n,c) cosines with all classes
        hard_cosines,  # (n,1) the target's cosine with its margin
        output,  # `HeadOutput`
    ):  # (n,c)
        """The cosines with the other classes, where a loss changes them too; here returned as they are.

        The entries of the rows' own classes are ignored. Gradients go to `cosines` and `hard_cosines` alone.
        """
        return cosines

    def other_cosines_slope(self, cosines, hard_cosines, output):
        """The derivative (n,c) of `other_cosines` with respect to the cosines, for losses in which it
        depends on nothing else that is trained; None: autograd works it out, which takes longer."""

    @property
    def keeps_other_cosines(self) -> bool:
        """Whether the other classes' cosines are left as they are, so that nothing has to be worked out
        for them."""
        return type(self).other_cosines is NormSoftmax.other_cosines

    def scale(self, output):
        "What the cosines are multiplied with: a number, or a tensor that broadcasts over (n,c)."
        return auto_scale(output.cos.shape[1]) if self.s is None else self.s

    def logits(self, output, targets):
        "The scaled cosines (n,c) with the margin on the target."
        cosines = upcast(output.cos)
        columns = target_columns(output, targets)[:, None]
        target_cosines = cosines.gather(1, columns).squeeze(1).clamp(-1 + EPS, 1 - EPS)
        hard_cosines = self.margin(target_cosines, targets)[:, None]
        # scatter replaces one entry a row and stays differentiable, without a one-hot matrix
        cosines = self.other_cosines(cosines, hard_cosines, output).scatter(1, columns, hard_cosines)
        return self.scale(output) * cosines

    def per_row(self, output, targets):
        require_cosines(self, output)
        # in float32 also under autocast: a cosine in half precision is too coarse for a margin
        with torch.autocast(output.cos.device.type, enabled=False):
            scale = self.scale(output)
            columns = target_columns(output, targets)
            if not isinstance(scale, torch.Tensor) or (scale.ndim == 0 and not scale.requires_grad):
                extra = {entry_name: entry_value.detach() for entry_name, entry_value in output.extra.items()}
                return MarginCrossEntropy.apply(upcast(output.cos), self, scale, targets, columns,
                                                output.emb.detach(), extra)
            # a scale that is trained, or one for each row, is left to autograd
            return F.cross_entropy(self.logits(output, targets), columns, reduction='none',
                                   label_smoothing=self.label_smoothing)

    activation = CrossEntropy.activation
    decodes = CrossEntropy.decodes


class AdaCos(NormSoftmax):
    """Softmax over cosines with a scale that follows the training, which a `TrackedHead` keeps track of,
    https://arxiv.org/abs/1905.00292

    The paper's fixed scale is `NormSoftmax()`.
    """
    def __init__(
        self,
        label_smoothing: float = 0.,  # Share of the target that is spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(None, label_smoothing, **kwargs)

    def scale(self, output): return required_extra(self, output, 's', 'TrackedHead')
