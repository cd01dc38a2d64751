"A batch of pictures made smaller after each was resized: what fastai's presizing does in validation."
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class BatchResize:
    "How a batch is cropped and resized: as by fastai's batch transforms with a `size`, in validation."
    size: tuple  # (width, height) afterwards, in pixels
    box: tuple | None = None  # (left, top, width, height) of the part that is resized; None: all of it
    mode: str = 'bilinear'  # Interpolation, as `torch.nn.functional.grid_sample` calls it
    pad_mode: str = 'reflection'  # What lies beyond the border, as `grid_sample` calls it
    align_corners: bool = True  # Whether the middles of the corner pixels keep their places

    def __post_init__(self):
        # json makes lists of tuples
        self.size = tuple(int(pixels) for pixels in self.size)
        self.box = None if self.box is None else tuple(int(pixels) for pixels in self.box)

    def __call__(
        self,
        images: torch.Tensor,  # float (n,3,h,w)
    ) -> torch.Tensor:  # float (n,3,h,w) of `size`
        "The images cropped and resized."
        if self.box is not None:
            left, top, width, height = self.box
            images = images[..., top:top + height, left:left + width]
        width, height = self.size
        if images.shape[-2:] == (height, width): return images
        unmoved = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(len(images), 2, 3)
        places = F.affine_grid(unmoved, (*images.shape[:2], height, width), align_corners=self.align_corners)
        if self.mode == 'bilinear': images = _averaged(images, places)
        return F.grid_sample(images, places, self.mode, self.pad_mode, self.align_corners)


def _averaged(images, places):
    "Where the images shrink to less than half, fastai averages neighboring pixels before it interpolates."
    # fastai takes the last axes of `places`, its width and the two coordinates, for height and width
    shrinkage = min(images.shape[-2] / places.shape[-2], images.shape[-1] / places.shape[-1]) / 2
    zoom = 2 / (places.max() - places.min()).item()
    if shrinkage <= max(1, zoom): return images
    return F.interpolate(images, scale_factor=1 / shrinkage, mode='area', recompute_scale_factor=True)
