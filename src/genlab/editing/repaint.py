"""RePaint: inpainting by a diffusion model that was not trained for it (Lugmayr et al. 2022, arXiv:2201.09865)."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from genlab.editing.steps import levels_made, through
from genlab.model.parts import Denoiser
from genlab.seeding import RandomStream

RESAMPLINGS = 10  # the paper's
JUMP_LENGTH = 1  # the paper's 10 are of 250 steps


def repaint(
    denoise: Denoiser,
    sampler: Any,
    image: Tensor,
    unknown: Tensor,
    generator: RandomStream,
    resamplings: int = RESAMPLINGS,
    jump_length: int = JUMP_LENGTH,
    strength: float = 1.0,
) -> Tensor:
    """Algorithm 1, for data that are not scaled, with the steps of any sampler (``ancestral``: the paper's).

    After each step, what is known is replaced by itself with fresh noise of the level that the step has reached (eq.
    8a): image + sigma * noise. So that the rest may agree with it, noise is added again, up to ``jump_length`` levels
    before, and the steps are repeated, each stretch ``resamplings`` times (appendix B). At the last level, 0, what is
    known is the image itself.

    Args:
        denoise: D(x; sigma)
        sampler: a sampler with levels; D of a consistency model needs the consistency sampler (Song et al. 2023,
            algorithm 4, in which an image is denoised and noised in turn)
        image: (N, C, H, W), clean; at a strength of 1 anything where it is unknown
        unknown: (N, 1, H, W) bool
        generator: of N rows
        resamplings: 1 or more; 1 replaces known pixels and repeats nothing
        jump_length: 1 or more levels
        strength: the share of the sampler's steps that are made, from 0 to 1: below 1 what is unknown begins as it is
            in ``image``, with noise, as SDEdit does (Meng et al. 2021, algorithm 2)

    Returns:
        (N, C, H, W), equal to ``image`` to the last bit where it is known.

    Raises:
        ValueError: ``resamplings`` or ``jump_length`` is below 1, or ``strength`` outside [0, 1].
    """
    levels = levels_made(sampler, strength)

    def with_known(x: Tensor, sigma: float) -> Tensor:
        known = image + sigma * generator.randn_like(image) if sigma > 0 else image
        return torch.where(unknown, x, known)

    begun = 0 if strength == 1 else image
    x = with_known(begun + levels[0] * generator.randn_like(image), levels[0])
    for here, there in pairwise(walk(len(levels) - 1, resamplings, jump_length)):
        sigma, sigma_next = levels[here], levels[there]
        if there > here:
            x = with_known(through(sampler, [sigma, sigma_next], denoise, x, generator), sigma_next)
        else:
            x = x + math.sqrt(sigma_next**2 - sigma**2) * generator.randn_like(x)
    return x


def walk(num_steps: int, resamplings: int, jump_length: int) -> list[int]:
    """The levels that are passed, by their number: from 0, the highest, to ``num_steps``, which is clean. From each
    multiple of ``jump_length`` between them the way goes back that far, ``resamplings`` - 1 times. Raises
    ValueError."""
    if resamplings < 1 or jump_length < 1:
        raise ValueError(f"resamplings={resamplings} and jump_length={jump_length} must be 1 or more.")
    way = [0]
    for there in range(1, num_steps + 1):
        way.append(there)
        if there % jump_length == 0 and there < num_steps:
            stretch = range(there - jump_length, there + 1)
            way += [*stretch] * (resamplings - 1)
    return way


def evaluated_steps(num_steps: int, resamplings: int, jump_length: int) -> int:
    """How many steps of the sampler a walk makes."""
    return sum(there > here for here, there in pairwise(walk(num_steps, resamplings, jump_length)))
