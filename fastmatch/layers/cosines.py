"The cosines of embeddings with many class centers, forward and backward, without copies of the centers."
import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ..core import row_blocks


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
    ):
        n_centers = len(weight) if rows is None else len(rows)
        cosines = embeddings.new_empty(len(embeddings), n_centers)
        center_norms = embeddings.new_empty(n_centers)
        for block in row_blocks(n_centers, weight):
            centers = weight[block] if rows is None else weight[rows[block]]
            center_norms[block] = torch.linalg.vector_norm(centers, dim=1).clamp_(min=1e-12)
            cosines[:, block] = (embeddings @ centers.t()).div_(center_norms[block])
        ctx.save_for_backward(embeddings, weight, cosines, center_norms, rows)
        ctx.set_materialize_grads(False)
        return cosines, center_norms

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_cosines, grad_norms):
        embeddings, weight, cosines, center_norms, rows = ctx.saved_tensors
        grad_embeddings = torch.zeros_like(embeddings)
        grad_weight = lazy_zeros_like(weight)
        for block in row_blocks(len(center_norms), weight):
            centers = weight[block] if rows is None else weight[rows[block]]
            # gradient of the products of embeddings and centers
            if grad_cosines is None: grad_products = torch.zeros_like(cosines[:, block])
            else: grad_products = grad_cosines[:, block] / center_norms[block]
            # d cos / dw = (x - cos w / |w|) / |w| for an embedding x and a center w; summed over the
            # embeddings, the second part is w times one number for each center
            along_centers = torch.einsum('nc,nc->c', grad_products, cosines[:, block])
            if grad_norms is not None: along_centers -= grad_norms[block]
            # where all centers are taken, the product is written straight into its place
            if rows is None: grad_centers = torch.mm(grad_products.t(), embeddings, out=grad_weight[block])
            else: grad_centers = grad_products.t() @ embeddings
            grad_centers.addcmul_(centers, (along_centers / center_norms[block])[:, None], value=-1)
            if rows is not None: grad_weight[rows[block]] = grad_centers
            grad_embeddings.addmm_(grad_products, centers)
        return grad_embeddings, grad_weight, None
