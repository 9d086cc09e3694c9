"""DDRM: linear inverse problems by a diffusion model (Kawar et al. 2022, arXiv:2201.11793)."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genlab.editing.operators import Operator
from genlab.editing.steps import levels_of
from genlab.model.parts import Denoiser
from genlab.seeding import RandomStream


def ddrm(
    denoise: Denoiser,
    sampler: Any,
    operator: Operator,
    y: Tensor,
    shape: tuple[int, ...],
    generator: RandomStream,
    noise: float = 0.0,
    eta: float = 0.85,
    eta_b: float = 1.0,
) -> Tensor:
    """Images x with y = A x + ``noise`` * n, drawn by the model.

    Each direction of x is denoised by its singular value s (eq. 4 and 5): one that is not measured by the model alone,
    with a share ``eta`` of new noise (as DDIM's eta); one whose measurement is less noisy than the level, by the
    measurement, mixed with the model's by ``eta_b``; another by the model's, with its distance from the measurement as
    noise. Without noise of the measurement and at the default ``eta_b``, A x is y, up to rounding of floats.

    Of ``sampler`` only the levels are used: the steps are the method's own.

    Args:
        denoise: D(x; sigma), the expected image
        sampler: one with levels
        operator: A
        y: the measurement, (N, ...) as ``operator.measure`` gives it
        shape: of an image, (C, H, W)
        generator: of N rows
        noise: standard deviation of the measurement's, on the scale of [-1, 1]
        eta: 0 to 1
        eta_b: 0 to 1

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: ``noise`` is negative, or ``eta`` or ``eta_b`` outside [0, 1].
    """
    if noise < 0 or not (0 <= eta <= 1 and 0 <= eta_b <= 1):
        raise ValueError(f"noise={noise} must be 0 or more, eta={eta} and eta_b={eta_b} from 0 to 1.")
    levels = levels_of(sampler)
    measured = operator.pseudo_inverse(y)  # (N, C, H, W)
    kept = (1 - eta**2) ** 0.5

    def noise_of(s: Tensor) -> Tensor:
        """Of a measurement as seen in x; infinite where there is none."""
        return torch.where(s > 0, noise / s.clamp(min=1e-12), torch.inf)

    def start(s: Tensor) -> Tensor:
        """The standard deviation to begin with."""
        there = torch.where(s > 0, noise_of(s).nan_to_num(posinf=0.0), 0.0)
        return (levels[0] ** 2 - there**2).clamp(min=0).sqrt()

    x = measured + operator.spectral(generator.randn(*shape).to(measured.dtype), start)
    for level, sigma in pairwise(levels):
        clean = denoise(x, x.new_full((len(x),), level))

        def is_sharp(s: Tensor, sigma: float = sigma) -> Tensor:
            return (s > 0) & (noise_of(s) <= sigma)

        def is_dull(s: Tensor, sigma: float = sigma) -> Tensor:
            return (s > 0) & (noise_of(s) > sigma)

        def of_measured(s: Tensor, sigma: float = sigma) -> Tensor:
            dull = kept * sigma / noise_of(s).clamp(min=1e-12)
            return torch.where(is_sharp(s), eta_b, torch.where(is_dull(s), dull, 0.0))

        def of_noisy(s: Tensor, sigma: float = sigma, level: float = level) -> Tensor:
            return torch.where(s > 0, 0.0, kept * sigma / level)

        def new(s: Tensor, sigma: float = sigma) -> Tensor:
            left = sigma**2 - eta_b**2 * torch.where(is_sharp(s), noise_of(s), 0.0) ** 2
            return torch.where(is_sharp(s), left.clamp(min=0).sqrt(), eta * sigma)

        x = (
            clean
            + operator.spectral(measured - clean, of_measured)
            + operator.spectral(x - clean, of_noisy)
            + operator.spectral(generator.randn_like(x), new)
        )
    return x
