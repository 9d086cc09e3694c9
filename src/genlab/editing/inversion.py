"""Inversion: the noise that a diffusion model makes a picture of, by its ODE backwards (Song et al. 2021, section 4.3;
Karras et al. 2022, algorithm 1)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genlab.editing.steps import levels_of, steps_made
from genlab.model.parts import Denoiser
from genlab.model.sampler.grid import Karras

STEPS = 40
_LOWEST = 0.002  # noise of a picture, less than half a gray level of 8 bits


def ode_levels(sampler: Any, num_steps: int = STEPS, strength: float = 1.0) -> list[float]:
    """The levels of ``num_steps`` steps between a picture and the highest level of ``sampler``, ascending: equal steps
    in sigma^(1/7) from 0.002. Of these steps the first are made, a share of ``strength``. Raises ValueError:
    ``num_steps`` is below 1, or ``strength`` outside [0, 1]."""
    if num_steps < 1:
        raise ValueError(f"steps={num_steps} must be 1 or more.")
    highest = levels_of(sampler)[0]
    levels: list[float] = Karras(_LOWEST, highest)(num_steps + 1).flip(0)[1:].tolist()
    return levels[: steps_made(strength, num_steps) + 1]


def follow(denoise: Denoiser, x: Tensor, levels: Sequence[float]) -> Tensor:
    """dx/dsigma = (x - D(x; sigma)) / sigma from ``x`` (N, C, H, W) at ``levels[0]`` to the last one, up or down, by
    Heun's method. No level is 0."""

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - denoise(x, x.new_full((len(x),), sigma))) / sigma

    for sigma, sigma_next in pairwise(levels):
        start = slope(x, sigma)
        ahead = x + (sigma_next - sigma) * start
        x = x + (sigma_next - sigma) * (start + slope(ahead, sigma_next)) / 2
    return x


def way(denoise: Denoiser, image: Tensor, levels: Sequence[float]) -> list[Tensor]:
    """Images (N, C, H, W) with noise, on their way along ``levels``, ascending: one for each, ``image`` first."""
    passed = [image]
    for step in pairwise(levels):
        passed.append(follow(denoise, passed[-1], step))
    return passed


def to_noise(denoise: Denoiser, image: Tensor, levels: Sequence[float]) -> Tensor:
    """The noise of images (N, C, H, W), nearly standard normal for a good model: what a sampler of these ``levels``,
    ascending, begins with. Where the last one is not high, it is the image and noise, divided by it. Needs only
    D(x; sigma), so it is the same for all objectives."""
    return way(denoise, image, levels)[-1] / levels[-1]


def of_noise(
    denoise: Denoiser,
    noise: Tensor,
    levels: Sequence[float],
    unknown: Tensor | None = None,
    passed: Sequence[Tensor] = (),
) -> Tensor:
    """The images of noise (N, C, H, W): the inverse of :func:`to_noise`, up to the error of its steps.

    With ``unknown`` (N, 1, H, W) bool the other places are at each level what they were in ``passed``, the
    :func:`way` there: DiffEdit's third step (Couairon et al. 2023, arXiv:2210.11427). In the end they are the image's,
    to the last bit."""
    x = levels[-1] * noise
    for here in range(len(levels) - 1, -1, -1):
        if unknown is not None:
            x = torch.where(unknown, x, passed[here])
        if here:
            x = follow(denoise, x, (levels[here], levels[here - 1]))
    return x
