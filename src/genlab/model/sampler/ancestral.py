"""Ancestral sampling of DDPM: every step draws from the posterior."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from genlab.model.sampler.grid import SigmaGrid, check_grid
from genlab.seeding import RandomStream


class Ancestral:
    """From level t to level s < t, the mean is x0 + s^2/t^2 (x - x0) and the variance s^2 (t^2 - s^2) / t^2, where x0
    is D(x; t): the posterior of Ho et al. (2020), eq. 6 and 7, with data not scaled."""

    def __init__(self, num_steps: int, grid: SigmaGrid):
        check_grid(grid, num_steps)
        self.num_steps, self.grid = num_steps, grid

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser per sample."""
        return self.num_steps

    def __call__(self, denoise: Callable[[Tensor, Tensor], Tensor], noise: Tensor, generator: RandomStream) -> Tensor:
        """``noise``: standard normal (N, C, H, W). -> data of that shape."""
        sigmas = self.grid(self.num_steps).tolist()
        x = sigmas[0] * noise
        for t, s in pairwise(sigmas):
            x, std = self.transition(denoise(x, x.new_full((len(x),), t)), x, t, s)
            if std > 0:
                x = x + std * generator.randn_like(x)
        return x

    def transition(self, clean: Tensor, x: Tensor, t: float, s: float) -> tuple[Tensor, float]:
        """The mean, like ``x``, and the standard deviation of a step from ``x`` (N, C, H, W) at level ``t`` to level
        ``s``; ``clean`` is D(x; t)."""
        return clean + (s / t) ** 2 * (x - clean), s * math.sqrt(t**2 - s**2) / t
