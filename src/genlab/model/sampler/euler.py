"""Euler's method for the probability-flow ODE."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from genlab.model.sampler.grid import SigmaGrid, check_grid
from genlab.seeding import RandomStream


class Euler:
    """dx/dsigma = (x - D(x; sigma)) / sigma in straight steps, first order (Karras et al. 2022, eq. 1 and 3).

    Straight in sigma is straight in the time of flow matching too, where this is the usual Euler sampler.
    """

    def __init__(self, num_steps: int, grid: SigmaGrid):
        check_grid(grid, num_steps)
        self.num_steps, self.grid = num_steps, grid

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser per sample."""
        return self.num_steps

    def __call__(self, denoise: Callable[[Tensor, Tensor], Tensor], noise: Tensor, generator: RandomStream) -> Tensor:
        """``noise``: standard normal (N, C, H, W). -> data of that shape; ``generator`` is not used."""
        sigmas = self.grid(self.num_steps).tolist()
        x = sigmas[0] * noise
        for sigma, sigma_next in pairwise(sigmas):
            slope = (x - denoise(x, x.new_full((len(x),), sigma))) / sigma
            x = x + (sigma_next - sigma) * slope
        return x
