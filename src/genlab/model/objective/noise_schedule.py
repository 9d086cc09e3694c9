"""Noise schedules of discrete diffusion processes."""

import math

import torch
from torch import Tensor


class LinearBeta:
    """Variances that grow linearly from step to step (Ho et al. 2020, section 4).

    ``alphas_bar`` (num_steps,), float64: the share of the signal's variance that is left at each step, eq. 4.
    """

    def __init__(self, beta_start: float = 1e-4, beta_end: float = 0.02, num_steps: int = 1000):
        betas = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)
        self.alphas_bar: Tensor = torch.cumprod(1 - betas, dim=0)


class ScaledLinearBeta:
    """Variances whose square roots grow linearly: Stable Diffusion's (Rombach et al. 2022, in its code).

    ``alphas_bar`` (num_steps,), float64, as in :class:`LinearBeta`.
    """

    def __init__(self, beta_start: float = 0.00085, beta_end: float = 0.012, num_steps: int = 1000):
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=torch.float64)
        self.alphas_bar: Tensor = torch.cumprod(1 - roots**2, dim=0)


class Cosine:
    """A signal that fades like a squared cosine (Nichol and Dhariwal 2021, eq. 17).

    ``alphas_bar`` (num_steps,), float64, as in :class:`LinearBeta`.
    """

    def __init__(
        self,
        s: float = 0.008,  # offset that keeps the first steps from being too small
        num_steps: int = 1000,
        beta_max: float = 0.999,  # of a single step, so that the last one leaves a trace of the signal
    ):
        time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        signal = torch.cos((time + s) / (1 + s) * math.pi / 2) ** 2
        betas = (1 - signal[1:] / signal[:-1]).clamp(max=beta_max)
        self.alphas_bar: Tensor = torch.cumprod(1 - betas, dim=0)
