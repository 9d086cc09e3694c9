"""Penalties on the discriminator's slope. They differentiate a gradient, so they run in float32."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from genlab.model.objective.broadcast import beside

Scores = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> scores (N,)


class Penalty(Protocol):
    """What is added to the discriminator's loss in every ``every``-th of its steps; 0: in none."""

    every: int

    def penalty(self, discriminator: Scores, real: Tensor, fake: Tensor, uniform: Tensor) -> Tensor:
        """``real``, ``fake``: (N, C, H, W); ``uniform``: (N,), random in [0, 1). -> a scalar."""
        ...


class NoPenalty:
    """For discriminators that are kept smooth by spectral normalization, or not at all."""

    every = 0

    def penalty(self, discriminator: Scores, real: Tensor, fake: Tensor, uniform: Tensor) -> Tensor:
        return real.new_zeros(())


class R1:
    """gamma / 2 E |grad D(real)|^2: flat at the data (Mescheder et al. 2018, eq. 9).

    Lazy (Karras et al. 2020, appendix B): it is computed only every ``every`` steps, with that much more weight.
    """

    def __init__(
        self,
        gamma: float | None = 1.0,  # None: 0.0002 pixels / batch_size (Karras et al. 2020, arXiv:2006.06676, app. D)
        every: int = 16,
        batch_size: int | None = None,  # images of a step, where gamma is None
    ):
        """Raises ValueError: a value is out of its range, or gamma is to be found without the batch size."""
        if every < 1:
            raise ValueError(f"every must be a whole number >= 1, got {every}.")
        if gamma is None and not batch_size:
            raise ValueError("gamma=null is found from the batch size. Add batch_size=${data.batch_size}.")
        self.gamma, self.every, self.batch_size = gamma, every, batch_size

    def penalty(self, discriminator: Scores, real: Tensor, fake: Tensor, uniform: Tensor) -> Tensor:
        gamma = self.gamma
        if gamma is None:
            gamma = 0.0002 * real.shape[2] * real.shape[3] / (self.batch_size or 1)
        return self.every * gamma / 2 * squared_slope(discriminator, real).mean()


class GradientPenalty:
    """weight E (|grad D(between)| - 1)^2 at random points between real and fake (Gulrajani et al. 2017, eq. 3)."""

    def __init__(self, weight: float = 10.0, every: int = 1):
        if every < 1:
            raise ValueError(f"every must be a whole number >= 1, got {every}.")
        self.weight, self.every = weight, every

    def penalty(self, discriminator: Scores, real: Tensor, fake: Tensor, uniform: Tensor) -> Tensor:
        between = torch.lerp(fake, real, beside(uniform, real))
        slope = (squared_slope(discriminator, between) + 1e-12).sqrt()  # the root has no slope at 0
        return self.every * self.weight * (slope - 1).square().mean()


def squared_slope(discriminator: Scores, images: Tensor) -> Tensor:
    """|grad D|^2 of each image (N, C, H, W), with a graph of its own. -> (N,)."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1)
