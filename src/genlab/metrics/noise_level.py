"""Noise level of samples, beyond the data's."""

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from genlab.metrics.base import Direction, MetricBatch

_FLATTEST = 0.1  # quantile of the windows' deviations that is used
_OF_NOISE = 0.66044  # that quantile of sqrt(chi^2_8 / 8): what 3 x 3 pixels of unit white noise have there


class NoiseLevel(Metric):
    """The noise that samples have beyond the data's: a standard deviation, as a share of the pixel range. 0 is best.

    The noise of one image is measured in its flattest parts (Olsen 1993, CVGIP: Graphical Models and Image Processing
    55(4), compares the ways): a low quantile of the standard deviations of all its windows of 3 x 3 pixels, scaled so
    that white noise on a flat picture gives its own deviation. Edges do not count, and blur makes none. That of a set
    is the median; ``noise_level`` = sqrt(max(0, samples^2 - reference^2)). Where pictures are black, half of the noise
    is clipped away: 5 % then count as 2.5 %.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    directions: ClassVar[Mapping[str, Direction | None]] = {"noise_level": "lower"}
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
        (self.real if real else self.fake).append(flattest_deviation(batch["image"]))

    def compute(self) -> dict[str, Tensor]:
        """``noise_level`` in [0, 1]."""
        samples, reference = (dim_zero_cat(side).quantile(0.5) for side in (self.fake, self.real))
        return {"noise_level": (samples.square() - reference.square()).clamp(min=0).sqrt()}

    def settings(self) -> dict[str, int | float | str]:
        return {"flattest": _FLATTEST}


def flattest_deviation(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W), sides of 3 or more -> (N,) float64: the standard deviation of the noise, of a range of 1."""
    x = images.float()
    total, squares = (F.avg_pool2d(values, 3, stride=1, divisor_override=1) for values in (x, x.square()))
    variance = ((9 * squares - total.square()) / 72).flatten(1)  # whole numbers below 2^24 so far: exact
    return (
        variance.kthvalue(1 + int(_FLATTEST * (variance.shape[1] - 1)), dim=1).values.double().sqrt() / _OF_NOISE / 255
    )
