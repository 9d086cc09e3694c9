"""Bernoulli likelihood of binary pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.seeding import RandomStream


class Bernoulli:
    """Each pixel is white (above 127.5 of 255) with a probability that the decoder gives as a logit; two gray
    levels."""

    levels: int | None = 2

    def num_parameters(self, channels: int) -> int:
        """Parameter channels for images of ``channels`` channels."""
        return channels

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Nats of images (N, C, H, W) on [-1, 1], binarised at 0, given logits of the same shape. -> (N,)."""
        sign = torch.where(x >= 0, 1.0, -1.0)
        return F.logsigmoid(sign * parameters.float()).flatten(1).sum(dim=1)

    def sample(self, parameters: Tensor, generator: RandomStream) -> Tensor:
        """(N, C, H, W) logits -> images of -1 and 1."""
        return torch.where(generator.rand(*parameters.shape[1:]) < parameters.float().sigmoid(), 1.0, -1.0)

    def mean(self, parameters: Tensor) -> Tensor:
        """(N, C, H, W) logits -> expected images, in [-1, 1]."""
        return 2 * parameters.float().sigmoid() - 1
