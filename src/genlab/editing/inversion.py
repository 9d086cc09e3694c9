"""Inversion: the noise that a diffusion model makes a picture of, by its ODE backwards (Song et al. 2021, section 4.3;
Karras et al. 2022, algorithm 1)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from genlab.editing.steps import levels_of
from genlab.model.parts import Denoiser
from genlab.model.sampler.grid import Karras

STEPS = 40
_LOWEST = 0.002  # noise of a picture, less than half a gray level of 8 bits


def ode_levels(sampler: Any, num_steps: int = STEPS) -> list[float]:
    """The levels of ``num_steps`` steps between a picture and the highest level of ``sampler``, ascending: equal steps
    in sigma^(1/7) from 0.002. Raises ValueError: ``num_steps`` is below 1."""
    if num_steps < 1:
        raise ValueError(f"steps={num_steps} must be 1 or more.")
    highest = levels_of(sampler)[0]
    levels: list[float] = Karras(_LOWEST, highest)(num_steps + 1).flip(0)[1:].tolist()
    return levels


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


def to_noise(denoise: Denoiser, image: Tensor, levels: Sequence[float]) -> Tensor:
    """The noise of images (N, C, H, W), nearly standard normal for a good model: what a sampler of these ``levels``,
    ascending, begins with. Needs only D(x; sigma), so it is the same for all objectives."""
    return follow(denoise, image, levels) / levels[-1]


def of_noise(denoise: Denoiser, noise: Tensor, levels: Sequence[float]) -> Tensor:
    """The images of noise (N, C, H, W): the inverse of :func:`to_noise`, up to the error of its steps."""
    return follow(denoise, levels[-1] * noise, levels[::-1])
