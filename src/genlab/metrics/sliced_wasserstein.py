"""Sliced Wasserstein distance of patches at each scale of an image (Karras et al. 2018)."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.data.base import DataSpec
from genlab.errors import ConfigError
from genlab.metrics.base import Direction, MetricBatch
from genlab.metrics.ordered import in_order
from genlab.seeding import derive_seed, uniform_by_index

_SMALLEST, _LARGEST = 16, 1024  # sides of a pyramid's images
_PATCH = 7  # pixels
_CHUNK = 64  # images per pass, for any batch size, since float32 sums depend on it
_DIRECTIONS = 16  # projected and sorted at a time
_SPARE = 1.25  # images that are kept, as a multiple of those that are needed, before some are dropped


class SlicedWasserstein(Metric):
    """Sliced Wasserstein distances between patches of samples and of real images, times 1000 (Karras et al. 2018,
    arXiv:1710.10196, section 5).

    An image is divided into a Laplacian pyramid, down to 16x16 (Burt and Adelson 1983): ``swd_128`` is of what images
    of 128 pixels have beyond those of 64, ``swd_16`` of the rest. Of each image and scale ``num_patches`` patches of
    7x7 pixels are taken, and each channel of them is normalized by its mean and deviation over the whole set. The
    distance is the mean of the absolute differences between the sorted projections of both sets onto a random
    direction, over ``num_directions`` directions; ``swd`` is its mean over scales. 0 is best; contrast, color casts and
    brightness do not count. Example i of both sides has patches at the same places, so a set is at 0 from itself.

    Few images have larger distances: as many of both sides are compared as the smaller one has, and ``num_images`` at
    most, a random choice of the others. Memory: twice ``num_images`` images, and their patches at one scale in float32,
    with the defaults and images of 128x128 some 5 GB.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "swd": "lower",
        **{f"swd_{_SMALLEST * 2**k}": "lower" for k in range(int(math.log2(_LARGEST // _SMALLEST)) + 1)},
    }
    is_differentiable = False
    full_state_update = False

    real_image: list[Tensor]
    real_index: list[Tensor]
    fake_image: list[Tensor]
    fake_index: list[Tensor]

    def __init__(
        self,
        num_images: int = 16_384,  # of each side at most; 16,384 are published
        num_patches: int = 128,  # of an image, at each scale
        num_directions: int = 512,
        seed: int = 0,  # of images, places and directions
    ):
        """Raises ValueError if a number is below 1, or ``num_images`` below 2."""
        super().__init__()
        if num_images < 2 or num_patches < 1 or num_directions < 1:
            raise ValueError(
                f"num_images={num_images} must be >= 2, num_patches={num_patches} and "
                f"num_directions={num_directions} >= 1."
            )
        self.num_images, self.num_patches, self.num_directions = num_images, num_patches, num_directions
        self.seed = seed
        self._used = num_images
        self._highest = {True: math.inf, False: math.inf}  # rank, by _ranks, above which an image is not needed
        for state in ("image", "index"):
            self.add_state(f"real_{state}", [], dist_reduce_fx="cat")
            self.add_state(f"fake_{state}", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, S, S) uint8 and ``index`` (N,)."""
        image, index = self._side(real)
        wanted = self._ranks(batch["index"]) <= self._highest[real]
        image.append(batch["image"][wanted])
        index.append(batch["index"][wanted])
        if sum(map(len, index)) > _SPARE * self.num_images:
            images, indices = self._lowest(torch.cat(image), torch.cat(index), self.num_images)
            image[:], index[:] = [images], [indices]
            self._highest[real] = float(self._ranks(indices).max())

    def reset(self) -> None:
        super().reset()
        self._highest = {True: math.inf, False: math.inf}

    def compute(self) -> dict[str, Tensor]:
        """``swd`` and, for each scale, ``swd_<side>``, all 0 or more. Raises ConfigError if the images do not fit."""
        sides = [(dim_zero_cat(image), dim_zero_cat(index)) for image, index in map(self._side, (True, False))]
        images = sides[0][0]
        _check_size(images.shape[1:])
        self._used = min(self.num_images, *(len(index) for _, index in sides))
        chosen = [self._lowest(*side, self._used) for side in sides]
        ordered = [(in_order([image], [index]), index.sort().values) for image, index in chosen]
        distances = {}
        for scale in range(num_scales(images.shape[-1])):
            real, fake = (normalized(self._patches(*side, scale)) for side in ordered)
            directions = random_directions(real.shape[1], self.num_directions, derive_seed(self.seed, 2, scale))
            distance = 1000 * sliced_wasserstein(real, fake, directions.to(images.device))
            distances[f"swd_{images.shape[-1] >> scale}"] = distance
        return {"swd": torch.stack([*distances.values()]).mean(), **distances}

    def settings(self) -> dict[str, int | float | str]:
        """As used by the latest ``compute``."""
        return {
            "num_images": self._used,
            "num_patches": self.num_patches,
            "num_directions": self.num_directions,
            "seed": self.seed,
        }

    def check_samples(self, spec: DataSpec, columns: frozenset[str]) -> None:
        """See ChecksSamples."""
        _check_size(spec.shape)

    def _side(self, real: bool) -> tuple[list[Tensor], list[Tensor]]:
        return (self.real_image, self.real_index) if real else (self.fake_image, self.fake_index)

    def _ranks(self, index: Tensor) -> Tensor:
        """A random number for each index (N,), the same in any process: images with the lowest are kept."""
        return torch.from_numpy(uniform_by_index(derive_seed(self.seed, 0), index.cpu().numpy())).to(index.device)

    def _lowest(self, images: Tensor, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The ``count`` images of the lowest ranks, and their indices."""
        kept = self._ranks(index).argsort()[:count]
        return images[kept], index[kept]

    def _patches(self, images: Tensor, index: Tensor, scale: int) -> Tensor:
        """Of images (N, C, S, S) at a scale of their pyramid -> (N * num_patches, C, 7, 7) float32."""
        parts = []
        for image, part in zip(images.split(_CHUNK), index.split(_CHUNK), strict=True):
            level = laplacian(image.float(), scale, is_last=scale == num_scales(images.shape[-1]) - 1)
            corners = random_corners(part, self.num_patches, level.shape[-1], derive_seed(self.seed, 1, scale))
            parts.append(patches(level, corners))
        return torch.cat(parts)


def _check_size(shape: torch.Size | tuple[int, ...]) -> None:
    """``shape``: (C, H, W). Raises ConfigError."""
    height, width = shape[-2:]
    if height != width or not _SMALLEST <= width <= _LARGEST or width & (width - 1):
        raise ConfigError(
            f"swd needs square images whose side is a power of two from {_SMALLEST} to {_LARGEST}, and the data are "
            f"{height}x{width}. Leave it out of metrics=[...]."
        )


def num_scales(side: int) -> int:
    """Images in the pyramid of one of ``side`` pixels."""
    return int(math.log2(side // _SMALLEST)) + 1


def _blurred(images: Tensor) -> Tensor:
    """By the binomial filter of five pixels, with the images mirrored about their outermost pixels."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    channels = images.shape[1]
    kernel = torch.outer(row, row).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def laplacian(images: Tensor, scale: int, is_last: bool) -> Tensor:
    """An image of the Laplacian pyramid of (N, C, S, S) float -> (N, C, S / 2^scale, S / 2^scale).

    Images at half the side are blurred and each second pixel is taken. What the next one has, enlarged by zeros between
    its pixels and the same filter, is subtracted; nothing if it is the last one.
    """
    for _ in range(scale):
        images = _blurred(images)[..., ::2, ::2]
    if is_last:
        return images
    spread = torch.zeros_like(images)
    spread[..., ::2, ::2] = _blurred(images)[..., ::2, ::2]
    return images - 4 * _blurred(spread)


def random_corners(index: Tensor, count: int, side: int, seed: int) -> Tensor:
    """Upper left corners of ``count`` patches of each image. ``index``: (N,) -> (N, count, 2) int64, (row, column)."""
    numbers = index.cpu().numpy()[:, None, None] * (2 * count) + np.arange(2 * count).reshape(count, 2)
    places = uniform_by_index(seed, numbers) * (side - _PATCH + 1)
    return torch.from_numpy(places.astype(np.int64)).to(index.device)


def patches(images: Tensor, corners: Tensor) -> Tensor:
    """(N, C, S, S) and corners (N, K, 2) -> (N * K, C, 7, 7)."""
    (n, c, _, side), count = images.shape, corners.shape[1]
    offsets = torch.arange(_PATCH, device=images.device)
    row = corners[..., :1, None] + offsets[:, None]  # (N, K, 7, 1)
    column = corners[..., 1:, None] + offsets  # (N, K, 1, 7)
    places = (row * side + column).flatten(1)[:, None].expand(-1, c, -1)  # (N, C, K * 49)
    found = images.flatten(2).gather(2, places).view(n, c, count, _PATCH, _PATCH)
    return found.transpose(1, 2).flatten(0, 1)


def normalized(found: Tensor) -> Tensor:
    """Patches (M, C, 7, 7), each channel with mean 0 and deviation 1 over all of them -> (M, C * 49), in place of them.

    A channel of a single value is 0.
    """
    found -= found.mean(dim=(0, 2, 3), keepdim=True, dtype=torch.float64).float()
    variance = found.square().mean(dim=(0, 2, 3), keepdim=True, dtype=torch.float64)
    found /= torch.where(variance > 0, variance.sqrt(), 1.0).float()
    return found.flatten(1)


def random_directions(size: int, count: int, seed: int) -> Tensor:
    """Uniform on the sphere: (count, size) float32, each of length 1."""
    drawn = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(drawn, dim=1).float()


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Mean over ``directions`` (K, D) of the Wasserstein-1 distance between projections of two sets (M, D) of equal
    size: a float64 scalar."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for some in directions.split(_DIRECTIONS):
        total += (_sorted(some @ a.T) - _sorted(some @ b.T)).abs().double().mean(dim=1).sum()
    return total / len(directions)


def _sorted(rows: Tensor) -> Tensor:
    """Each row. NumPy sorts several times as fast as torch on a CPU."""
    if rows.is_cuda:
        return rows.sort(dim=1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))
