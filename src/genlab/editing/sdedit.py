"""SDEdit: noise on a picture, and the sampler from there (Meng et al. 2021, arXiv:2108.01073)."""

from typing import Any

from torch import Tensor

from genlab.editing.steps import levels_made, through
from genlab.model.parts import Denoiser
from genlab.seeding import RandomStream


def sdedit(denoise: Denoiser, sampler: Any, image: Tensor, strength: float, generator: RandomStream) -> Tensor:
    """Algorithm 1: ``image`` + sigma * noise, denoised by the last steps of the sampler.

    Args:
        denoise: D(x; sigma), under the condition that the result shall meet
        sampler: any sampler with levels
        image: (N, C, H, W), clean
        strength: the share of the sampler's steps that are made, from 0 to 1: at 0 the result is the image itself, to
            the last bit; at 1 noise is that of the highest level, where next to nothing of it is left
        generator: of N rows

    Raises:
        ValueError: ``strength`` is outside [0, 1].
    """
    levels = levels_made(sampler, strength)
    if levels[0] == 0:
        return image
    noisy = image + levels[0] * generator.randn_like(image)
    return through(sampler, levels, denoise, noisy, generator)
