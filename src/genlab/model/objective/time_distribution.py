"""Distributions of training times, between noise (0) and data (1), for flow matching."""

from typing import Protocol

import torch
from torch import Tensor


class TimeDistribution(Protocol):
    """The protocol of time distributions."""

    def __call__(self, num: int, device: torch.device) -> Tensor: ...


class Uniform:
    """Every time alike (Lipman et al. 2023)."""

    def __call__(self, num: int, device: torch.device) -> Tensor:
        """-> (num,), in [0, 1)."""
        return torch.rand(num, device=device)


class LogitNormal:
    """More often in the middle, where the velocity is hardest to predict (Esser et al. 2024, section 3.1)."""

    def __init__(self, mean: float = 0.0, std: float = 1.0):
        self.mean, self.std = mean, std  # of log(t / (1 - t)), which is minus the logarithm of the noise level

    def __call__(self, num: int, device: torch.device) -> Tensor:
        """-> (num,), in (0, 1)."""
        return torch.sigmoid(self.mean + self.std * torch.randn(num, device=device))
