"Memory for the gradient of a large weight, used again in each step."
import sys

import numpy as np
import torch

KEPT = 2  # SAM holds the gradient of the first pass during the second


class GradientMemory:
    """Memory for gradients of one weight, that is used again as soon as nothing refers to it any more.

    The gradient of 100,000 class centers is 200 MB. Asked for anew in each step, the system maps that memory
    page by page every time, which takes a sixth of the step, and now and then several times as long as the
    whole step, when it first has to find pages. A copy of it, or one read from a file, holds nothing.
    """
    def __init__(self):
        self.arrays = []

    def empty_like(
        self,
        weight: torch.Tensor,  # On a CPU, float32 or float64; others get memory of their own
    ) -> torch.Tensor:
        "A tensor of the shape of `weight`, whatever is in it."
        if weight.device.type != 'cpu' or weight.dtype not in (torch.float32, torch.float64):
            return torch.empty_like(weight)
        like = weight.detach().numpy()
        self.arrays = [array for array in self.arrays
                       if (array.shape, array.dtype) == (like.shape, like.dtype)]
        for array in self.arrays:
            # this list, the loop's name and the argument: no tensor
            if sys.getrefcount(array) == 3: return torch.from_numpy(array)
        made = np.empty_like(like, order='C')
        # the oldest is given up: it goes when its gradient goes
        self.arrays = [*self.arrays, made][-KEPT:]
        return torch.from_numpy(made)

    def __reduce__(self): return GradientMemory, ()
    def __deepcopy__(self, memo): return GradientMemory()
