"""No alignment: the objective's loss alone."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn


class NoAlignment:
    """Nothing is added to the loss."""

    weight: ClassVar[float] = 0.0
    projector: ClassVar[None] = None

    def prepare(self, network: nn.Module, shape: Sequence[int]) -> None:
        pass

    def losses(self, network: nn.Module, images: Tensor, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
        return {"loss": loss()}
