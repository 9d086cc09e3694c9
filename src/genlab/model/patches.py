"""Images as rows of patches, and which of them are hidden: what families share that learn from the rest of an image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.model.augment.diffaugment import Uniform
from genlab.model.augment.views import Views


def to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Images (N, C, H, W) -> the numbers of their P patches, row by row: (N, P, C * patch_size^2)."""
    return F.pixel_unshuffle(images, patch_size).flatten(2).mT


def to_images(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Undoes :func:`to_patches`; ``grid``: patches in a column and in a row of them."""
    return F.pixel_shuffle(patches.mT.unflatten(2, grid), patch_size)


def picked(patches: Tensor, number: Tensor) -> Tensor:
    """Of rows (N, P, D) those of the numbers (N, K) -> (N, K, D)."""
    return patches.take_along_dim(number[:, :, None], dim=1)


def each_view(views: Views, images: Tensor, uniform: Uniform) -> tuple[Tensor, Uniform]:
    """Views of images (N, C, H, W) as that many more images, (V N, C, H, W), and random numbers for them."""
    seen = views(images, uniform).flatten(0, 1)
    return seen, lambda count: torch.cat([uniform(count) for _ in range(views.count)])


def check_views(views: Views) -> None:
    """Raises ValueError: some of them are small, and patches are of whole images."""
    if views.num_local:
        raise ValueError(
            f"num_local={views.num_local} views are small, and masks are of whole images. Use model.views.num_local=0."
        )
