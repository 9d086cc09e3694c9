"""Prediction targets of networks for the variance-preserving process, and the clean data that follow from them.

Everywhere ``x_t = alpha * x + sigma * noise`` with ``alpha**2 + sigma**2 = 1``; tensors (N, ...), alpha and sigma
(N, 1, ...).
"""

import torch
from torch import Tensor


class Epsilon:
    """The noise, every step weighed alike (Ho et al. 2020, eq. 14)."""

    def target(self, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(alpha)

    def clean(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * output) / alpha


class Velocity:
    """v = alpha * noise - sigma * x, every step weighed alike (Salimans and Ho 2022, section 4 and appendix D)."""

    def target(self, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * noise - sigma * x

    def weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(alpha)

    def clean(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * x_t - sigma * output


class CleanImage:
    """The clean data, weighed by the truncated signal-to-noise ratio max(alpha**2 / sigma**2, 1) (Salimans and Ho 2022,
    section 4): without the weight, the fine steps that make an image sharp hardly count."""

    def target(self, x: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x

    def weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return ((alpha / sigma) ** 2).clamp(min=1)

    def clean(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output
