"""Grids of noise levels for samplers.

Each grid is called with the number of steps and returns (num_steps + 1,) levels, float64, descending, the last one 0.
One step leads from the highest level to 0.
Levels are those of x = clean + sigma * noise.
"""

import math
from typing import Protocol

import torch
from torch import Tensor


class SigmaGrid(Protocol):
    """The protocol of grids."""

    def __call__(self, num_steps: int) -> Tensor: ...


def check_grid(grid: SigmaGrid, num_steps: int) -> None:
    """Raises ValueError, when a sampler is made and not at its first sample, if there are no such levels."""
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be at least 1.")
    levels = grid(num_steps)
    if not (levels.isfinite().all() and (levels.diff() < 0).all() and levels[-1] >= 0):
        shown = ", ".join(f"{level:.4g}" for level in levels[:4].tolist())
        raise ValueError(
            f"the grid of noise levels does not fall from sigma_max to 0 ({shown}, ...). Use 0 < sigma_min < sigma_max."
        )


class Karras:
    """Equal steps in sigma ** (1 / rho) (Karras et al. 2022, eq. 5): with rho = 7, short steps at low noise."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0):
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, num_steps: int) -> Tensor:
        roots = _linspace(self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho), num_steps)
        return _end_at_zero(roots**self.rho)


class Power:
    """Equal steps in sigma ** (1 / rho) that end at 0 itself, for few steps or one: Karras et al. (2022), eq. 5, with
    sigma_min = 0. Two steps meet at 0.6, close to the 0.8 that consistency models are sampled with."""

    def __init__(self, sigma_max: float = 80.0, rho: float = 7.0):
        self.sigma_max, self.rho = sigma_max, rho

    def __call__(self, num_steps: int) -> Tensor:
        return _linspace(self.sigma_max ** (1 / self.rho), 0.0, num_steps + 1) ** self.rho


class LogUniform:
    """Equal steps in log sigma, the usual grid of DPM-Solver (Lu et al. 2022, section 3.3)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0):
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def __call__(self, num_steps: int) -> Tensor:
        return _end_at_zero(_linspace(math.log(self.sigma_max), math.log(self.sigma_min), num_steps).exp())


class VariancePreserving:
    """Equal steps in the time of DDPM's process with linear betas (Song et al. 2021, eq. 32; Karras et al. 2022,
    table 1). The defaults are the published 1000 steps from beta = 1e-4 to 0.02 as time runs from 0 to 1."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3):
        self.beta_min, self.beta_max, self.t_min = beta_min, beta_max, t_min

    def __call__(self, num_steps: int) -> Tensor:
        t = _linspace(1.0, self.t_min, num_steps)
        return _end_at_zero(torch.expm1(0.5 * (self.beta_max - self.beta_min) * t**2 + self.beta_min * t).sqrt())


class CosineGrid:
    """Equal steps in the time of the cosine schedule (Nichol and Dhariwal 2021, eq. 17), where noise becomes infinite:
    it starts at ``sigma_max``."""

    def __init__(self, s: float = 0.008, sigma_max: float = 80.0, t_min: float = 1e-3):
        self.s, self.sigma_max, self.t_min = s, sigma_max, t_min

    def __call__(self, num_steps: int) -> Tensor:
        start = math.cos(self.s / (1 + self.s) * math.pi / 2)  # the signal at time 0
        angle_max = math.acos(start / math.sqrt(1 + self.sigma_max**2))
        angle_min = (self.t_min + self.s) / (1 + self.s) * math.pi / 2
        signal = (_linspace(angle_max, angle_min, num_steps).cos() / start) ** 2
        return _end_at_zero(((1 - signal) / signal).sqrt())


class FlowGrid:
    """Equal steps in the time of flow matching, sigma = (1 - t) / t (Lipman et al. 2023), from ``sigma_max`` on: at
    time 0 noise is infinite. The last step ends at time 1."""

    def __init__(self, sigma_max: float = 80.0):
        self.sigma_max = sigma_max

    def __call__(self, num_steps: int) -> Tensor:
        t = _linspace(1 / (1 + self.sigma_max), 1.0, num_steps + 1)
        return (1 - t) / t


def _linspace(start: float, end: float, num: int) -> Tensor:
    return torch.linspace(start, end, num, dtype=torch.float64)


def _end_at_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])
