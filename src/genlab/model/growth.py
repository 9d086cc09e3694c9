"""Growth of networks in resolution over a run, as a function of the examples seen (Karras et al. 2018, section 2)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 4  # side of the first images


class Stage(NamedTuple):
    """A point of a growth."""

    level: int  # how often 4x4 has been doubled
    alpha: float  # share of the newest layers in an image, in [0, 1]; 1: they are there entirely

    @property
    def resolution(self) -> int:
        """The side of an image."""
        return SMALLEST * 2**self.level

    @property
    def is_fading(self) -> bool:
        return self.alpha < 1


class ProgressiveGrowth:
    """Growth from 4x4 by doubling: each resolution but the first is faded in over ``fade`` examples, and then stays as
    it is for ``stable`` examples; the last one until the run ends.

    Nothing of the optimizers is reset when layers are added: the paper names no such reset. Those of layers that an
    image does not pass through make no step.
    """

    def __init__(
        self,
        fade: int = 800_000,  # examples, as published
        stable: int = 800_000,
        batch_size: Mapping[int, int] | None = None,  # examples of an optimizer step, by resolution, e.g. {64: 8}
        lr_factor: Mapping[int, float] | None = None,  # times the optimizers' rates, by resolution, e.g. {64: 1.5}
    ):
        """Resolutions that ``batch_size`` does not name have steps of ``data.batch_size`` examples, over all devices; a
        smaller number divides a batch into so many steps, all of the same stage.

        Raises ValueError: a number is outside its range, or no image is of such a resolution.
        """
        if fade < 0 or stable < 1:
            raise ValueError(f"model.growth.fade={fade} must be >= 0, and model.growth.stable={stable} >= 1.")
        self.fade, self.stable = fade, stable
        self.batch_size, self.lr_factor = dict(batch_size or {}), dict(lr_factor or {})
        for name, by_resolution in (("batch_size", self.batch_size), ("lr_factor", self.lr_factor)):
            for resolution, value in by_resolution.items():
                if not _is_resolution(resolution):
                    raise ValueError(
                        f"model.growth.{name} names the resolution {resolution!r}; there are {SMALLEST}, 8, 16, 32, 64 "
                        "and so on."
                    )
                if not 0 < value < math.inf:
                    raise ValueError(f"model.growth.{name} of {resolution} is {value}, and must be above 0.")

    def stage(self, examples: int, levels: int) -> Stage:
        """After so many ``examples``, of networks of ``levels`` resolutions."""
        done, into = divmod(examples - self.stable, self.fade + self.stable)
        level = done + 1
        if level >= levels:
            return Stage(levels - 1, 1.0)
        return Stage(level, 1.0) if level == 0 or into >= self.fade else Stage(level, into / self.fade)

    def steps_of(self, stage: Stage, batch_size: int) -> int:
        """How many optimizer steps a batch of ``batch_size`` examples is divided into."""
        return max(1, batch_size // self.batch_size.get(stage.resolution, batch_size))


def _is_resolution(side: object) -> bool:
    return isinstance(side, int) and side >= SMALLEST and side & (side - 1) == 0


def shrunk(images: Tensor, stage: Stage) -> Tensor:
    """Real images as they are at ``stage``, by average pooling; while layers are faded in, mixed with their half
    resolution, as generated ones are. (N, C, H, W) -> (N, C, resolution, resolution)."""
    if images.shape[-1] > stage.resolution:
        images = F.avg_pool2d(images, images.shape[-1] // stage.resolution)
    if not stage.is_fading:
        return images
    coarser = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2)
    return torch.lerp(coarser, images, stage.alpha)


def enlarged(images: Tensor, side: int) -> Tensor:
    """Each pixel repeated. (N, C, H, W) -> (N, C, side, side)."""
    return images if images.shape[-1] == side else F.interpolate(images, size=(side, side))
