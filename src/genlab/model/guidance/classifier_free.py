"""Classifier-free guidance (Ho and Salimans 2022): extrapolation from the unconditional prediction."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class ClassifierFree:
    """D_u + w (D_c - D_u) of the unconditional and the conditional denoiser (eq. 6; their w is ours minus 1); likewise
    for logits and for a flow's shifts and scales. 1 is no guidance; below 1, the condition counts less."""

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
        weights = lambda sigma: torch.full(sigma.shape, self.strength, device=sigma.device)  # noqa: E731
        return extrapolated(denoise, condition, nothing, weights)

    def mix(self, untold: Tensor, told: Tensor) -> Tensor:
        """Of logits (N, ...)."""
        return untold + self.strength * (told - untold)


def extrapolated(
    denoise: Callable[..., Tensor],
    condition: Mapping[str, Tensor],
    nothing: Mapping[str, Tensor],
    weights: Callable[[Tensor], Tensor | None],  # of noise levels (N,) -> (N,); None: no row is guided
) -> Callable[[Tensor, Tensor], Tensor]:
    """A denoiser that is guided by a weight for each row."""
    both = {key: torch.cat([blank, condition.get(key, blank)]) for key, blank in nothing.items()}  # 2N rows

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        weight = weights(sigma)
        if weight is None:
            return denoise(x, sigma, condition)
        ones = [1] * (x.ndim - 1)
        untold, told = denoise(x.repeat(2, *ones), sigma.repeat(2), both).chunk(2)
        return torch.lerp(untold, told, weight.to(x.dtype).view(-1, *ones))

    return guided
