"""Images as rows of patches, and which of them are hidden: what families share that learn from the rest of an image."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from genlab.seeding import uniform_columns


def to_patches(images: Tensor, patch_size: int) -> Tensor:
    """Images (N, C, H, W) -> the numbers of their P patches, row by row: (N, P, C * patch_size^2)."""
    return F.pixel_unshuffle(images, patch_size).flatten(2).mT


def to_images(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Undoes :func:`to_patches`; ``grid``: patches in a column and in a row of them."""
    return F.pixel_shuffle(patches.mT.unflatten(2, grid), patch_size)


def picked(patches: Tensor, number: Tensor) -> Tensor:
    """Of rows (N, P, D) those of the numbers (N, K) -> (N, K, D)."""
    return patches.take_along_dim(number[:, :, None], dim=1)


class UniformOf:
    """Numbers in [0, 1) for each image, which depend on ``keys`` and on the image's ``index`` (N,) alone: neither on
    its place in the batch nor on the number of ranks. Calls give other numbers in turn."""

    def __init__(self, keys: Sequence[int], index: Tensor):
        self.keys, self.index, self.given = tuple(keys), index, 0

    def __call__(self, count: int) -> Tensor:
        """-> (N, count), on the device of the index."""
        columns = range(self.given, self.given + count)
        self.given = columns.stop
        return uniform_columns(self.keys, self.index, columns)
