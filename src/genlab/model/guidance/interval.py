"""Classifier-free guidance at some noise levels only (Kynkäänniemi et al. 2024)."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from genlab.model.guidance.classifier_free import extrapolated
from genlab.model.guidance.noise_range import NoiseRange


class Interval:
    """For diffusion: guided where ``low`` <= sigma <= ``high``, else not. At high noise, guidance makes samples of a
    class alike; at low noise it has no effect. Where no row is inside, a call costs half."""

    leads_away: ClassVar[bool] = True

    def __init__(self, strength: float = 2.0, low: float = 0.0, high: float = float("inf")):
        """Raises ValueError if no noise level lies between the ends."""
        self.strength, self.range = strength, NoiseRange(low, high)

    def guide(
        self,
        denoise: Callable[..., Tensor],
        condition: Mapping[str, Tensor] | None,
        nothing: Mapping[str, Tensor] | None,
    ) -> Callable[[Tensor, Tensor], Tensor]:
        plain = lambda x, sigma: denoise(x, sigma, condition)  # noqa: E731
        if condition is None or nothing is None or self.strength == 1:
            return plain
        return self.range.within(extrapolated(denoise, condition, nothing, self.strength), plain)
