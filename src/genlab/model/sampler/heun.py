"""The second-order sampler of EDM, deterministic or stochastic."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from genlab.model.sampler.grid import SigmaGrid, check_grid
from genlab.seeding import RandomStream


class Heun:
    """Heun's method for the probability-flow ODE, with fresh noise before each step if ``s_churn`` > 0 (Karras et al.
    2022, algorithm 2)."""

    def __init__(
        self,
        num_steps: int,
        grid: SigmaGrid,
        s_churn: float = 0.0,  # noise added over the whole run, in units of sigma; 0 is deterministic
        s_min: float = 0.0,  # noise is added between these levels only
        s_max: float = float("inf"),
        s_noise: float = 1.0,  # standard deviation of added noise; above 1 makes up for detail lost
    ):
        check_grid(grid, num_steps)
        self.num_steps, self.grid = num_steps, grid
        self.s_churn, self.s_min, self.s_max, self.s_noise = s_churn, s_min, s_max, s_noise

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser per sample: two a step, but the last step ends where there is no slope."""
        return 2 * self.num_steps - 1

    def __call__(self, denoise: Callable[[Tensor, Tensor], Tensor], noise: Tensor, generator: RandomStream) -> Tensor:
        """``noise``: standard normal (N, C, H, W). -> data of that shape."""

        def slope(x: Tensor, sigma: float) -> Tensor:
            return (x - denoise(x, x.new_full((len(x),), sigma))) / sigma

        sigmas = self.grid(self.num_steps).tolist()
        gamma = min(self.s_churn / self.num_steps, math.sqrt(2) - 1)
        x = sigmas[0] * noise
        for sigma, sigma_next in pairwise(sigmas):
            if gamma > 0 and self.s_min <= sigma <= self.s_max:
                raised = (1 + gamma) * sigma
                x = x + self.s_noise * math.sqrt(raised**2 - sigma**2) * generator.randn_like(x)
                sigma = raised
            start = slope(x, sigma)
            x_next = x + (sigma_next - sigma) * start
            if sigma_next > 0:
                x_next = x + (sigma_next - sigma) * (start + slope(x_next, sigma_next)) / 2
            x = x_next
        return x
