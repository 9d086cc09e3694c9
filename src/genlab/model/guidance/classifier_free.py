"""Classifier-free guidance (Ho and Salimans 2022): extrapolation from the unconditional prediction."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor


class ClassifierFree:
    """D_u + w (D_c - D_u) of the unconditional and the conditional denoiser (eq. 6; their w is ours minus 1); likewise
    for logits and for a flow's shifts and scales. 1 is no guidance; below 1, the condition counts less."""

    leads_away: ClassVar[bool] = True

    def __init__(self, strength: float = 2.0):
        self.strength = strength

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Both from one call of ``denoise`` on 2N rows, all keys of the condition at once."""
        if condition is None or nothing is None or self.strength == 1:
            return lambda x, sigma: denoise(x, sigma, condition)
        return extrapolated(denoise, condition, nothing, self.strength)

    def mix(self, untold: Tensor, told: Tensor) -> Tensor:
        """Of logits (N, ...)."""
        return untold + self.strength * (told - untold)


def extrapolated(
    denoise: Callable[..., Tensor], condition: Mapping[str, Tensor], nothing: Mapping[str, Tensor], strength: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """A denoiser that is guided by this strength."""
    predict = both(denoise, condition, nothing)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        untold, told = predict(x, sigma)
        weight = torch.full(sigma.shape, strength, device=sigma.device)
        return torch.lerp(untold, told, weight.to(x.dtype).view(-1, *[1] * (x.ndim - 1)))

    return guided


def both(
    denoise: Callable[..., Tensor], condition: Mapping[str, Tensor], nothing: Mapping[str, Tensor]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A function of (x, sigma) that gives D for ``nothing`` and D for ``condition``, from one call on 2N rows."""
    rows = {key: torch.cat([blank, condition.get(key, blank)]) for key, blank in nothing.items()}  # 2N

    def predict(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        untold, told = denoise(x.repeat(2, *[1] * (x.ndim - 1)), sigma.repeat(2), rows).chunk(2)
        return untold, told

    return predict
