"""An objective without randomness: reconstruct, at one level of noise that is not added."""

import torch
from torch import Tensor, nn

from genlab.model.base import Condition


class NoNoise:
    def loss(self, network: nn.Module, x: Tensor, condition: Condition | None, progress: float) -> Tensor:
        return (network(x, torch.ones(len(x), device=x.device), condition) - x).square().mean()

    def denoise(self, network: nn.Module, x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        return network(x, sigma.log(), condition)
