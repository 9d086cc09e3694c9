"""Diffusion posterior sampling: inverse problems by the gradient of what is missed (Chung et al. 2022,
arXiv:2209.14687)."""

import torch
from torch import Tensor

from genlab.editing.operators import Operator
from genlab.model.parts import Denoiser

_STD = 0.5  # about that of images in [-1, 1]


def posterior(
    denoise: Denoiser, operator: Operator, y: Tensor, noise: float = 0.0, strength: float = 1.0
) -> Denoiser:  # fmt: skip
    """D(x; sigma | y) = D(x; sigma) + sigma^2 * the gradient in x of log p(y | x), where p(y | x) is taken to be normal
    around A D(x; sigma) (eq. 10 and 11): minus the gradient of |y - A D(x; sigma)|^2 / (2 v).

    It is a denoiser again, so any sampler draws from it. The variance v is that of the measurement's ``noise`` and of
    the image given x, which for images of standard deviation d = 0.5 is d^2 sigma^2 / (d^2 + sigma^2) (Song et al.
    2023, "Pseudoinverse-guided diffusion models", section 3.1), as seen by A at its largest singular value; the paper
    has a constant by |y - A D| in its place. ``strength`` multiplies the gradient.

    ``denoise``: expected images; ``y``: (N, ...) as ``operator.measure`` gives it.
    """

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            clean = denoise(x, sigma)
            missed = (y - operator.measure(clean)).square().sum()
            (gradient,) = torch.autograd.grad(missed, x)
        square = sigma.to(x.dtype).square().view(-1, *[1] * (x.ndim - 1))
        variance = noise**2 + operator.largest**2 * _STD**2 * square / (_STD**2 + square)
        return clean.detach() - strength * square / (2 * variance) * gradient

    return guided


def agreeing(operator: Operator, y: Tensor, x: Tensor) -> Tensor:
    """The images nearest to ``x`` (N, C, H, W) whose measurement is ``y``."""
    for _ in range(2):  # the second time for what is rounded off where the first one goes far
        x = x + operator.pseudo_inverse(y - operator.measure(x))
    return x
