"""Denoising diffusion implicit models (DDIM): deterministic to ancestral sampling, by one parameter."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from genlab.model.sampler.grid import SigmaGrid, check_grid
from genlab.seeding import RandomStream


class DDIM:
    """Song, Meng and Ermon (2021), eq. 12 and 16, with data not scaled. ``eta`` = 0 is deterministic, and then a step
    is one of Euler's; ``eta`` = 1 is DDPM's posterior."""

    def __init__(self, num_steps: int, grid: SigmaGrid, eta: float = 0.0):
        """
        Raises:
            ValueError: ``eta`` is outside [0, 1].
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"model.sampler.eta={eta} is outside [0, 1]. Use 0 (deterministic) to 1 (as DDPM).")
        check_grid(grid, num_steps)
        self.num_steps, self.grid, self.eta = num_steps, grid, eta

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
        fresh = self.eta * s * math.sqrt(t**2 - s**2) / t  # standard deviation of new noise
        kept = math.sqrt(s**2 - fresh**2)  # and of the noise that is in x already
        return clean + kept / t * (x - clean), fresh
