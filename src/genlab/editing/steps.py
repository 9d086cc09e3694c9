"""Parts of a sampler's way from noise to data: its levels, a single step, the way from some level on."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genlab.model.parts import Denoiser
from genlab.seeding import RandomStream


def levels_of(sampler: Any) -> list[float]:
    """The noise levels of a sampler, descending from the highest; the last one is 0."""
    levels: list[float] = sampler.grid(sampler.num_steps).tolist()
    return levels


def levels_made(sampler: Any, strength: float) -> list[float]:
    """Those of the last steps of a sampler, of which a share of ``strength`` is made: none at 0, else one at least; the
    last level is 0. Raises ValueError: ``strength`` is outside [0, 1]."""
    levels = levels_of(sampler)
    return levels[len(levels) - 1 - steps_made(strength, len(levels) - 1) :]


def steps_made(strength: float, num_steps: int) -> int:
    """The steps of ``num_steps`` at a strength: 0 at 0, else one at least. Raises ValueError: it is outside [0, 1]."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} is outside [0, 1]: 0 keeps the picture, 1 begins with noise.")
    return max(round(strength * num_steps), 1 if strength > 0 else 0)


def through(
    sampler: Any, levels: Sequence[float], denoise: Denoiser, x: Tensor, generator: RandomStream
) -> Tensor:  # fmt: skip
    """What a sampler makes of ``x`` = clean + levels[0] * noise, (N, C, H, W), on its way through ``levels`` alone,
    descending. All else about it stays: the noise that EDM's sampler adds is still a share of that of all its steps.

    A way of one level more is one step. Samplers that remember earlier steps begin anew.
    """
    part = copy.copy(sampler)
    part.grid = lambda num_steps: torch.tensor(levels, dtype=torch.float64)
    data: Tensor = part(denoise, x / levels[0], generator)
    return data
