"""A Gaussian, for which everything about diffusion has a closed form. Shared by the tests of this folder."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

MEAN, STD = 0.3, 0.5


def ideal(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of data N(MEAN, STD^2): (N, C, H, W), (N,) -> (N, C, H, W)."""
    gain = STD**2 / (STD**2 + sigma**2)
    return MEAN + gain[:, None, None, None] * (x - MEAN)


def flowed(x: Tensor, sigma: float) -> Tensor:
    """Where the probability-flow ODE takes ``x`` from noise level ``sigma`` to 0."""
    return MEAN + (x - MEAN) * STD / (STD**2 + sigma**2) ** 0.5


class Function(nn.Module):
    """A network that is a function of the input and its noise level, and that remembers how it was called."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.function = function
        self.calls: list[tuple[Tensor, Tensor, Mapping[str, Tensor] | None]] = []

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        self.calls.append((x, noise_level, condition))
        return self.function(x, noise_level)


def column(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1)."""
    return values[:, None, None, None]


def log_density(x: Tensor, std: float = STD) -> Tensor:
    """Nats of each example, (N, C, H, W) -> (N,)."""
    return torch.distributions.Normal(MEAN, std).log_prob(x).flatten(1).sum(dim=1)
