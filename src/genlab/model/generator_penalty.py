"""Penalties on the generator. They differentiate a gradient, so they run in float32."""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from genlab.model.gathered import gathered


class GeneratorPenalty(Protocol):
    """What is added to the generator's loss in every ``every``-th of its turns; 0: in none."""

    every: int
    share: int  # it is of one image in so many of a batch

    def penalty(self, images: Tensor, styles: Tensor, normal: Callable[..., Tensor]) -> Tensor:
        """``images``: (N, C, H, W), made of ``styles`` (N, L, W); ``normal``: draws (N, *shape). -> a scalar."""
        ...


class NoGeneratorPenalty:
    """Nothing is added."""

    every = 0
    share = 1

    def penalty(self, images: Tensor, styles: Tensor, normal: Callable[..., Tensor]) -> Tensor:
        return images.new_zeros(())


class PathLength(nn.Module):
    """Steps in styles that are equally long change images by as much (Karras et al. 2020, section 3.2).

    weight * E (|J^T y| - a)^2, where J^T y is the gradient of the images times random images y, and a the average of
    its length so far, over all processes. Lazy: with ``every`` times the weight.
    """

    average: Tensor

    def __init__(
        self,
        weight: float = 2.0,
        every: int = 4,
        decay: float = 0.01,  # how much of the average is a batch's
        share: int = 2,  # it is of one image in so many of a batch
    ):
        """Raises ValueError: a value is out of its range."""
        super().__init__()
        if every < 1 or share < 1 or not 0 < decay <= 1:
            raise ValueError(f"every={every} and share={share} must be whole numbers >= 1, decay={decay} in (0, 1].")
        self.weight, self.every, self.decay, self.share = weight, every, decay, share
        self.register_buffer("average", torch.zeros(()))

    def penalty(self, images: Tensor, styles: Tensor, normal: Callable[..., Tensor]) -> Tensor:
        """Lengths are sqrt(mean over layers of sum over style of squares), of y of standard deviation 1/sqrt(H W)."""
        y = normal(*images.shape[1:]) / math.sqrt(images.shape[2] * images.shape[3])
        (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
        lengths = gathered(slope.square().sum(dim=2).mean(dim=1).sqrt())
        average = torch.lerp(self.average, lengths.mean(), self.decay)
        self.average.copy_(average.detach())
        return self.every * self.weight * (lengths - average).square().mean()
