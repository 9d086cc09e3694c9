"""The blocks of patches that I-JEPA hides and sees (Assran et al. 2023, arXiv:2301.08243, section 3)."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from genlab.model.augment.diffaugment import Uniform

_TRIES = 8  # draws of the blocks of an image, of which the first one that leaves enough to see is taken
_DRAWS, _TOO_FEW = 1000, 10  # of so many draws, so many leave less to see than an image is given
_STEPS = 16  # at which the ranges of sizes are looked at

Size = tuple[int, int]  # patches in a column and in a row


class Sizes(NamedTuple):
    """Of the blocks of a step."""

    target: Size
    context: Size


class Blocks(NamedTuple):
    """The numbers of patches, counted row by row."""

    seen: Tensor  # (N, K), of the context, none of which is in a target
    targets: Tensor  # (N, num_targets, M), block by block


class BlockMasks:
    """A few blocks that are predicted, and a large one that is seen, without what it shares with them.

    Sizes are drawn for a step, the places of blocks for each image. All images of a step are given equally many patches
    to see, K: so many that 99 of 100 draws leave as many, and of more a random part. Draws that leave fewer are drawn
    again. So K depends on the sizes alone; in the published code it is the least of a batch.
    """

    def __init__(
        self,
        num_targets: int = 4,
        target_scale: Sequence[float] = (0.15, 0.2),  # share of the image's patches, least and greatest
        target_aspect: Sequence[float] = (0.75, 1.5),  # height / width, least and greatest
        context_scale: Sequence[float] = (0.85, 1.0),  # share of the image's patches; the block is as high as wide
    ):
        """Raises ValueError: no target, or a range that is none."""
        if num_targets < 1:
            raise ValueError(f"num_targets={num_targets} must be 1 or more.")
        for name, values in {"target_scale": target_scale, "context_scale": context_scale}.items():
            if len(values) != 2 or not 0 < values[0] <= values[1] <= 1:
                raise ValueError(f"{name}={list(values)} must be two shares of the image in order, such as [0.15,0.2].")
        if len(target_aspect) != 2 or not 0 < target_aspect[0] <= target_aspect[1]:
            raise ValueError(f"target_aspect={list(target_aspect)} must be two ratios in order, such as [0.75,1.5].")
        self.num_targets, self.target_scale = num_targets, tuple(target_scale)
        self.target_aspect, self.context_scale = tuple(target_aspect), tuple(context_scale)

    def check(self, grid: Size) -> None:
        """Raises ValueError: in images of ``grid`` patches a target can leave nothing to see."""
        target, context = self.largest(grid).target, self.sizes(grid, (0, 0, 0)).context
        if math.prod(context) <= math.prod(target):
            raise ValueError(
                f"in images of {grid[0]} x {grid[1]} patches a target of {target[0]} x {target[1]} can leave "
                "nothing to see. Use a smaller model.encoder.patch_size, or a smaller model.masks.target_scale."
            )

    def largest(self, grid: Size) -> Sizes:
        """The sizes whose step costs most, about: the largest target and the largest context."""
        aspects = [step / _STEPS for step in range(_STEPS + 1)]
        target = max((self.sizes(grid, (1, aspect, 1)).target for aspect in aspects), key=math.prod)
        return Sizes(target, self.sizes(grid, (1, 1, 1)).context)

    def sizes(self, grid: Size, uniform: Sequence[float]) -> Sizes:
        """By three numbers in [0, 1]: the target's scale and aspect, and the context's scale."""
        scale, aspect, context = (
            least + (most - least) * share
            for (least, most), share in zip(
                (self.target_scale, self.target_aspect, self.context_scale), uniform, strict=True
            )
        )
        return Sizes(_block(grid, scale, aspect), _block(grid, context, 1.0))

    def num_seen(self, grid: Size, sizes: Sizes) -> int:
        """K, from 1 to the patches of a context less those of one target."""
        return _num_seen(grid, sizes, self.num_targets)

    def draw(self, grid: Size, sizes: Sizes, uniform: Uniform) -> Blocks:
        """For each image, by its random numbers."""
        count = self.num_seen(grid, sizes)
        places = uniform(_TRIES * 2 * (self.num_targets + 1)).unflatten(1, (_TRIES, self.num_targets + 1, 2))
        last = places[:, -1:].clone()
        last[:, :, :-1] = last[:, :, :1]  # all targets in one place, which leaves enough
        seen, targets = _placed(grid, sizes, torch.cat([places[:, :-1], last], dim=1))  # (N, tries, ...)
        first = (seen.sum(dim=2) >= count).byte().argmax(dim=1)  # of the draws that leave enough
        rows = torch.arange(len(first), device=first.device)
        seen, targets = seen[rows, first], targets[rows, first]
        order = uniform(seen.shape[1]) + (~seen).float()  # what is not seen comes last
        return Blocks(order.argsort(dim=1, stable=True)[:, :count], targets)


def _block(grid: Size, scale: float, aspect: float) -> Size:
    """The sides of a block of ``scale`` of all patches, whole numbers from 1 to the image's."""
    area = grid[0] * grid[1] * scale
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(height, 1), grid[0]), min(max(width, 1), grid[1])


@lru_cache(maxsize=1024)
def _num_seen(grid: Size, sizes: Sizes, num_targets: int) -> int:
    places = torch.rand(_DRAWS, num_targets + 1, 2, generator=torch.Generator().manual_seed(0))
    left = _placed(grid, sizes, places)[0].sum(dim=1)
    most = math.prod(sizes.context) - math.prod(sizes.target)
    return max(1, min(int(left.sort().values[_TOO_FEW]), most))


def _placed(grid: Size, sizes: Sizes, places: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks at ``places`` (..., T + 1, 2) in [0, 1), the context last -> which patches are seen, (..., P) bool, and
    the numbers of those in targets, (..., T, M)."""
    targets = _numbers(grid, sizes.target, places[..., :-1, :])
    context = _numbers(grid, sizes.context, places[..., -1, :])
    seen = torch.zeros(*context.shape[:-1], math.prod(grid), dtype=torch.bool, device=places.device)
    seen.scatter_(-1, context, True).scatter_(-1, targets.flatten(-2), False)
    return seen, targets


def _numbers(grid: Size, size: Size, place: Tensor) -> Tensor:
    """Of the patches in blocks at ``place`` (..., 2): 0 is the top or the left end, 1 beyond the other. -> (..., M)."""
    room = torch.tensor([whole - side + 1 for whole, side in zip(grid, size, strict=True)], device=place.device)
    top, left = (place * room).long().unbind(dim=-1)
    rows = top[..., None] + torch.arange(size[0], device=place.device)
    columns = left[..., None] + torch.arange(size[1], device=place.device)
    return (rows[..., :, None] * grid[1] + columns[..., None, :]).flatten(-2)
