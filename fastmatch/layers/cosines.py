"The cosines of embeddings with many class centers, forward and backward, without copies of the centers."
import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ..core import row_blocks
from .gradient_memory import GradientMemory

# numbers of the centers that are worked on together on a CPU: 2**18 took a twentieth longer
BLOCK_SIZE = 2**21


def lazy_zeros_like(weight) -> torch.Tensor:
    """Zeros of the shape of `weight`; on a CPU they take memory only where something is written.

    numpy asks the system for pages that read as zero and are given memory when written to, torch writes the
    zeros itself. The gradient of a few of very many centers then costs what those few cost.
    """
    if weight.device.type != 'cpu': return torch.zeros_like(weight)
    return torch.from_numpy(np.zeros(weight.shape, weight.detach().numpy().dtype))


class Cosines(torch.autograd.Function):
    """Cosines (n,c) of embeddings with class centers, and the lengths (c,) of the centers.

    Embeddings are of unit length already, centers of any length. The products are divided by the lengths of
    the centers, which costs little. Normalizing the centers, forward and back, would cost several copies of a
    matrix that may be the largest of the model.
    """
    @staticmethod
    def forward(
        ctx,
        embeddings,  # (n,d), of unit length
        weight,  # (c,d) class centers
        rows=None,  # int64: which rows of `weight` are the centers, each at most once; None: all
        memory: GradientMemory | None = None,  # For the gradient of all centers
    ):
        n_centers = len(weight) if rows is None else len(rows)
        cosines = embeddings.new_empty(len(embeddings), n_centers)
        center_norms = embeddings.new_empty(n_centers)
        for block in row_blocks(n_centers, weight, BLOCK_SIZE):
            centers = weight[block] if rows is None else weight[rows[block]]
            norms = torch.linalg.vector_norm(centers, dim=1, out=center_norms[block]).clamp_(min=1e-12)
            # in this order, not embeddings @ centers.t(): a fifth less time
            products = centers @ embeddings.t()
            torch.div(products.t(), norms, out=cosines[:, block])
        ctx.save_for_backward(embeddings, weight, cosines, center_norms, rows)
        ctx.set_materialize_grads(False)
        ctx.memory = memory or GradientMemory()
        return cosines, center_norms

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_cosines, grad_norms):
        embeddings, weight, cosines, center_norms, rows = ctx.saved_tensors
        grad_embeddings = torch.zeros_like(embeddings)
        # where all centers are taken, every number of it is written
        grad_weight = ctx.memory.empty_like(weight) if rows is None else lazy_zeros_like(weight)
        for block in row_blocks(len(center_norms), weight, BLOCK_SIZE):
            centers = weight[block] if rows is None else weight[rows[block]]
            # gradient of the products of embeddings and centers
            if grad_cosines is None: grad_products = torch.zeros_like(cosines[:, block])
            else: grad_products = grad_cosines[:, block] / center_norms[block]
            # d cos / dw = (x - cos w / |w|) / |w| for an embedding x and a center w; summed over the
            # embeddings, the second part is w times one number for each center
            along_centers = (grad_products * cosines[:, block]).sum(0)
            if grad_norms is not None: along_centers -= grad_norms[block]
            own_part = (along_centers / center_norms[block]).neg_()[:, None]
            # where all centers are taken, it is written straight into its place
            if rows is None: grad_centers = torch.mul(centers, own_part, out=grad_weight[block])
            else: grad_centers = centers * own_part
            grad_centers.addmm_(grad_products.t(), embeddings)
            if rows is not None: grad_weight[rows[block]] = grad_centers
            grad_embeddings.addmm_(grad_products, centers)
        return grad_embeddings, grad_weight, None, None
