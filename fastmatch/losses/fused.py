"""The softmax over cosines with a margin, its forward and backward pass written out in few sweeps through
memory."""
import torch
from torch.autograd.function import once_differentiable

from ..core import HeadOutput, row_blocks

# Cosines are kept this far from -1 and 1, where the arc cosine's slope is infinite. The distance must
# be large enough that float32 does not round the cosine to 1.
EPS = 1e-6


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
        for block in row_blocks(len(cosines), cosines):
            others = cosines[block]
            if not loss.keeps_other_cosines:
                output = HeadOutput(others, embeddings[block], extra)
                others = loss.other_cosines(others, hard_cosines[block], output)
            logits = (scale * others).scatter_(1, columns[block], scale * hard_cosines[block])
            torch.softmax(logits, 1, out=probabilities[block])
            # log(sum(exp(logits))), from the largest probability: it is at least 1/c, so that its log is
            # accurate, while the target's probability may be rounded to 0
            log_total = logits.amax(1) - probabilities[block].amax(1).log()
            block_losses = log_total - (scale * hard_cosines[block]).squeeze(1)
            if loss.label_smoothing:
                block_losses = torch.lerp(block_losses, log_total - logits.mean(1), loss.label_smoothing)
            row_losses.append(block_losses)
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
        for block in row_blocks(len(cosines), cosines):
            # the gradient of cross-entropy with respect to the logits: probabilities minus the (smoothed)
            # target
            grad = torch.mul(probabilities[block], grad_rows[block], out=grad_cosines[block])
            if smoothing: grad -= smoothing / probabilities.shape[1] * grad_rows[block]
            grad_hard = grad.gather(1, columns[block]) - (1 - smoothing) * grad_rows[block]
            if not loss.keeps_other_cosines:
                output = HeadOutput(cosines[block], embeddings[block], ctx.extra)
                slope = loss.other_cosines_slope(cosines[block], hard_cosines[block], output)
                if slope is not None:
                    grad *= slope
                else:
                    grad_hard = _through_other_cosines(
                        loss, output, hard_cosines[block], grad, columns[block], grad_hard)
            grad.scatter_(1, columns[block], margin_slope[block, None] * grad_hard)
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
