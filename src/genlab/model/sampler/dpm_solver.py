"""DPM-Solver++(2M): second order at one evaluation a step."""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from genlab.model.sampler.grid import SigmaGrid, check_grid
from genlab.seeding import RandomStream


class DPMSolver2M:
    """A multistep solver of the probability-flow ODE (Lu et al. 2022, DPM-Solver++, algorithm 2), written for data that
    are not scaled: in lambda = -log sigma, with D extrapolated from the last two evaluations."""

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
        clean_last, step_last = None, 0.0
        for sigma, sigma_next in pairwise(sigmas):
            clean = denoise(x, x.new_full((len(x),), sigma))
            if sigma_next == 0:
                return clean  # lambda is infinite there: one step of first order
            step = math.log(sigma / sigma_next)  # in lambda
            extrapolated = clean
            if clean_last is not None:
                extrapolated = clean + step / (2 * step_last) * (clean - clean_last)
            x = sigma_next / sigma * x - math.expm1(-step) * extrapolated
            clean_last, step_last = clean, step
        return x
