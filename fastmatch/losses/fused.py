"""The softmax over cosines with a margin, its forward and backward pass written out in few sweeps through
memory."""
import torch
from torch.autograd.function import once_differentiable

from ..core import HeadOutput

# Cosines are kept this far from -1 and 1, where the arc cosine's slope is infinite. The distance must
# be large enough that float32 does not round the cosine to 1.
EPS = 1e-6
# How many cosines are worked out together on a CPU, so that they stay in its cache from one sweep to the next
# (2**17 to 2**20 took about the same time).
PART_SIZE = 2**19


def row_parts(cosines) -> list[slice]:
    """Slices over the rows of `cosines` (n,c): on a CPU parts of `PART_SIZE` cosines, elsewhere all rows
    at once."""
    n_rows, n_columns = cosines.shape
    part_rows = max(1, PART_SIZE // n_columns) if cosines.device.type == 'cpu' else n_rows
    return [slice(first_row, min(first_row + part_rows, n_rows)) for first_row in range(0, n_rows, part_rows)]


class MarginCrossEntropy(torch.autograd.Function):
    """Cross-entropy of each row (n,) of scaled cosines, with `loss.margin` on the target's cosine and
    `loss.other_cosines` on the rest.

    Autograd would sweep through (n,c) values a dozen times: copies to put the target in, the scaling, the
    softmax, each forward and back. With many thousands of classes that is most of the time of a training
    step.
    """
    @staticmethod
    def forward(
        ctx,
        cosines,  # (n,c)
        loss,  # `NormSoftmax`: its `margin`, `other_cosines` and `label_smoothing`
        scale,  # A number, or a tensor of one number that is not trained
        targets,  # int64 (n,) classes
        columns,  # int64 (n,), the column of each row's class
        embeddings,  # (n,d), for `other_cosines`
        extra,  # A `HeadOutput`'s, for `other_cosines`
    ):
        columns = columns[:, None]
        with torch.enable_grad():
            target_cosines = cosines.detach().gather(1, columns).squeeze(1).requires_grad_()
            hard_cosines = loss.margin(target_cosines.clamp(-1 + EPS, 1 - EPS), targets)
            margin_slope, = torch.autograd.grad(hard_cosines.sum(), target_cosines)
        hard_cosines = hard_cosines.detach()[:, None]
        probabilities = torch.empty_like(cosines)
        row_losses = []
        for part in row_parts(cosines):
            others = cosines[part]
            if not loss.keeps_other_cosines:
                output = HeadOutput(others, embeddings[part], extra)
                others = loss.other_cosines(others, hard_cosines[part], output)
            logits = (scale * others).scatter_(1, columns[part], scale * hard_cosines[part])
            torch.softmax(logits, 1, out=probabilities[part])
            # log(sum(exp(logits))), from the largest probability: it is at least 1/c, so that its log is
            # accurate, while the target's probability may be rounded to 0
            log_total = logits.amax(1) - probabilities[part].amax(1).log()
            part_losses = log_total - (scale * hard_cosines[part]).squeeze(1)
            if loss.label_smoothing:
                part_losses = torch.lerp(part_losses, log_total - logits.mean(1), loss.label_smoothing)
            row_losses.append(part_losses)
        ctx.loss = loss
        ctx.scale = scale
        ctx.extra = extra
        ctx.save_for_backward(cosines, probabilities, columns, hard_cosines, margin_slope, embeddings)
        return torch.cat(row_losses)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_rows):
        cosines, probabilities, columns, hard_cosines, margin_slope, embeddings = ctx.saved_tensors
        loss, smoothing = ctx.loss, ctx.loss.label_smoothing
        grad_cosines = torch.empty_like(probabilities)
        grad_rows = (ctx.scale * grad_rows)[:, None]
        for part in row_parts(cosines):
            # the gradient of cross-entropy with respect to the logits: probabilities minus the (smoothed)
            # target
            grad = torch.mul(probabilities[part], grad_rows[part], out=grad_cosines[part])
            if smoothing: grad -= smoothing / probabilities.shape[1] * grad_rows[part]
            grad_hard = grad.gather(1, columns[part]) - (1 - smoothing) * grad_rows[part]
            if not loss.keeps_other_cosines:
                output = HeadOutput(cosines[part], embeddings[part], ctx.extra)
                slope = loss.other_cosines_slope(cosines[part], hard_cosines[part], output)
                if slope is not None:
                    grad *= slope
                else:
                    grad_hard = _through_other_cosines(loss, output, hard_cosines[part], grad, columns[part],
                                                       grad_hard)
            grad.scatter_(1, columns[part], margin_slope[part, None] * grad_hard)
        return grad_cosines, None, None, None, None, None, None


def _through_other_cosines(
    loss,
    output: HeadOutput,
    hard_cosines,  # (n,1) target cosines with the margin
    grad,  # (n,c) gradient of what `other_cosines` returns; overwritten with the gradient of the cosines
    columns,  # int64 (n,1), columns of the targets
    grad_hard,  # (n,1) gradient of `hard_cosines` so far
):  # (n,1) the gradient of `hard_cosines` with what `other_cosines` adds to it
    "Differentiate `loss.other_cosines` by autograd, where the loss gives no slope."
    with torch.enable_grad():
        cosines = output.cos.detach().requires_grad_()
        hard_cosines = hard_cosines.detach().requires_grad_()
        # a weighted sum and not `grad(..., grad_outputs)`: with gradients handed over, torch imports sympy
        # (36 MB)
        others = loss.other_cosines(cosines, hard_cosines, output._replace(cos=cosines))
        total = (others * grad.scatter_(1, columns, 0.)).sum()
    grad_cosines, more_grad_hard = torch.autograd.grad(total, (cosines, hard_cosines), allow_unused=True)
    grad.copy_(grad_cosines)
    return grad_hard if more_grad_hard is None else grad_hard + more_grad_hard
