"""Gaussian likelihood of independent pixels."""

import math

import torch
from torch import Tensor

from genlab.seeding import RandomStream


class Gaussian:
    """A density: with a fixed scale, squared error; else the decoder also gives the scale of each pixel.

    Parameter channels: the means, then, unless the scale is fixed, the logarithms of the scales.
    """

    levels: int | None = None  # a density on the real line, not a distribution over gray levels

    def __init__(
        self,
        scale: float | None = None,  # standard deviation of every pixel, in units of [-1, 1]; None: from the decoder
        min_scale: float = 0.01,  # of the decoder's scales; 2.5 gray levels is 0.02
    ):
        """A pixel that never changes would have an unbounded density, hence ``min_scale``.

        Raises:
            ValueError: a scale that is not positive.
        """
        if min_scale <= 0 or (scale is not None and scale <= 0):
            raise ValueError(f"scale={scale} and min_scale={min_scale} must be above 0: they are standard deviations.")
        self.scale, self.min_scale = scale, min_scale

    def num_parameters(self, channels: int) -> int:
        """Parameter channels for images of ``channels`` channels."""
        return channels if self.scale is not None else 2 * channels

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Nats of images (N, C, H, W) given parameters (N, D, H, W). -> (N,)."""
        mean, scale = self._split(parameters)
        nats = -0.5 * ((x - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        return nats.expand_as(x).flatten(1).sum(dim=1)

    def sample(self, parameters: Tensor, generator: RandomStream) -> Tensor:
        """(N, D, H, W) -> images (N, C, H, W), not clamped."""
        mean, scale = self._split(parameters)
        return mean + scale * generator.randn_like(mean)

    def mean(self, parameters: Tensor) -> Tensor:
        """(N, D, H, W) -> expected images (N, C, H, W)."""
        return self._split(parameters)[0]

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        parameters = parameters.float()
        if self.scale is not None:
            return parameters, torch.full_like(parameters[:1, :1, :1, :1], self.scale)
        mean, log_scale = parameters.chunk(2, dim=1)
        return mean, log_scale.clamp(max=5).exp() + self.min_scale
