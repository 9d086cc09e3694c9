"""A perceptron that scores latents."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2  # of the rectifier below zero


class LatentMLP(nn.Module):
    """Linear layers with leaky rectifiers, six of a thousand as published (Kim and Mnih 2018, appendix A)."""

    def __init__(
        self,
        latent_shape: Sequence[int],  # (Z, h, w)
        width: int = 1000,
        depth: int = 5,  # hidden layers
    ):
        """Raises ValueError: there is no hidden layer."""
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth} must be 1 or more.")
        sizes = [math.prod(latent_shape), *[width] * depth]
        self.blocks = nn.ModuleList(nn.Linear(before, width) for before in sizes[:-1])
        self.out = nn.Linear(width, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """``latent``: (N, Z, h, w) -> (N,), the logit of whether it is a model's own."""
        h = latent.flatten(1).to(self.out.weight.dtype)
        for layer in self.blocks:
            h = F.leaky_relu(layer(h), _SLOPE)
        return self.out(h)[:, 0].float()
