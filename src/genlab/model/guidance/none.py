"""No guidance: the model as it is."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor


class NoGuidance:
    """Samples of the conditional model itself."""

    strength: ClassVar[float] = 1.0

    def guide(self, denoise: Callable[..., Tensor], condition: Any, nothing: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, sigma: denoise(x, sigma, condition)

    def mix(self, untold: Tensor, told: Tensor) -> Tensor:
        return told
