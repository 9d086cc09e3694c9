"""Sharpness of samples, relative to the data's."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.metrics.base import Direction, MetricBatch

_STEEPEST = 0.98  # quantile over pixels: 5 of 16 x 16 are steeper
_BLURRIEST = 0.1  # quantile over real images: sharper images count as sharp


class Sharpness(Metric):
    """How steep the edges of samples are: 1 as steep as the data's, less if samples are blurred.

    The sharpness of one image is the 98 % quantile over its pixels of the maximum local variation, max |I(p) - I(q)|
    over the eight neighbors q of p (Bahrami & Kot 2014, IEEE Signal Processing Letters 21(6), eq. 1), as a share of
    the image's own range, so that neither contrast nor content counts: 1 for a step from darkest to brightest, 0.4 for
    one blurred by a Gaussian of sigma 1 pixel. ``sharpness`` = min(1, s / s_10) in [0, 1], s the median of the samples
    and s_10 what nine tenths of the reference exceed: a sharp choice of pictures, or noise, counts for nothing, and
    neither do a few blurred samples; it is blur of most of them that shows.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"sharpness": "higher"}
    is_differentiable = False
    full_state_update = False

    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("fake", [], dist_reduce_fx="cat")

    def update(self, batch: MetricBatch, real: bool) -> None:
        """Takes ``image`` (N, C, H, W) uint8."""
        (self.real if real else self.fake).append(steepness(batch["image"]))

    def compute(self) -> dict[str, Tensor]:
        """``sharpness`` in [0, 1]."""
        sharp = dim_zero_cat(self.real).quantile(_BLURRIEST)
        return {"sharpness": (dim_zero_cat(self.fake).quantile(0.5) / sharp).clamp(max=1)}

    def settings(self) -> dict[str, int | float | str]:
        return {"steepest": _STEEPEST, "blurriest": _BLURRIEST}


def steepness(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> (N,) float64 in [0, 1]: the steepest edges of each image, as a share of its range.

    Of its brightness, the sum over channels. An image of one color has none: 0.
    """
    brightness = images.float().sum(dim=1, keepdim=True)  # (N, 1, H, W), whole numbers
    highest = F.max_pool2d(brightness, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-brightness, 3, stride=1, padding=1)
    variation = torch.maximum(highest - brightness, brightness - lowest).flatten(1)
    steepest = variation.kthvalue(1 + int(_STEEPEST * (variation.shape[1] - 1)), dim=1).values
    span = brightness.flatten(1).amax(dim=1) - brightness.flatten(1).amin(dim=1)
    return torch.where(span > 0, steepest.double() / span, 0.0)
