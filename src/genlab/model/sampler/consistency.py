"""Few-step sampling of consistency models."""

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from genlab.model.sampler.grid import SigmaGrid, check_grid
from genlab.seeding import RandomStream


class Consistency:
    """Denoise fully, add noise of the next level, and again: Song et al. (2023), algorithm 1.

    It needs a D that predicts the end of the probability-flow ODE. With objectives other than ``consistency``, D is an
    expected image, and samples would be blurred.
    """

    denoises_to_the_end: ClassVar[bool] = True

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
        for sigma, sigma_next in pairwise(sigmas):
            x = denoise(x, x.new_full((len(x),), sigma))
            if sigma_next > 0:
                x = x + sigma_next * generator.randn_like(x)
        return x
