"""Inpainting by a model with a density, a flow: Langevin steps of what is unknown."""

import torch
from torch import Tensor

from genlab.model.base import Condition, HasScore
from genlab.seeding import RandomStream

STEPS = 100
_SHARPEST = 1 / 256  # a model of images without noise has details of about half a gray level
_PACE = 0.5  # a step's standard deviation, by that of the model's noise


def langevin(
    model: HasScore,
    image: Tensor,
    start: Tensor,
    unknown: Tensor,
    condition: Condition | None,
    generator: RandomStream,
    steps: int = STEPS,
) -> Tensor:
    """Steps x + e / 2 * score(x) + sqrt(e) * noise (Welling and Teh 2011, eq. 5, of all the data) where ``image`` (N,
    C, H, W) is ``unknown`` (N, 1, H, W), from ``start``; what is known keeps the noise that it is given at first, as
    the model's density is of noisy images. They draw from the density of the unknown given the known, approximately:
    steps are short (half the noise of the model), and 100 do not go far. -> (N, C, H, W), without noise; of what is
    known, too, as the model sees it.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be 1 or more.")
    pace = _PACE * max(model.noise_std, _SHARPEST)
    known = model.noisy(image, generator)
    x = torch.where(unknown, model.noisy(start, generator), known)
    for _ in range(steps):
        moved = x + pace**2 / 2 * model.score(x, condition) + pace * generator.randn_like(x)
        x = torch.where(unknown, moved, known)
    return model.clean(x, condition)
