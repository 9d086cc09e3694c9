"""Classifier-free guidance at some noise levels only (Kynkäänniemi et al. 2024)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from genlab.model.guidance.classifier_free import extrapolated


class Interval:
    """For diffusion: guided where ``low`` <= sigma <= ``high``, else not. At high noise, guidance makes samples of a
    class alike; at low noise it has no effect. Where no row is inside, a call costs half."""

    def __init__(self, strength: float = 2.0, low: float = 0.0, high: float = float("inf")):
        """Raises ValueError if no noise level lies between the ends."""
        if not 0 <= low <= high:
            raise ValueError(f"model.guidance.low={low} and high={high}: use noise levels with 0 <= low <= high.")
        self.strength, self.low, self.high = strength, low, high

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        if condition is None or nothing is None or self.strength == 1:
            return lambda x, sigma: denoise(x, sigma, condition)
        return extrapolated(denoise, condition, nothing, self._weights)

    def _weights(self, sigma: Tensor) -> Tensor | None:
        inside = (self.low <= sigma) & (sigma <= self.high)
        return torch.where(inside, self.strength, 1.0) if inside.any() else None
