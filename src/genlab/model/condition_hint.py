"""The condition of controlled models: maps that are drawn from a picture, or that the data know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genlab.model.condition_picture import Picture
from genlab.model.parts import HintSource

HINT = "hint"  # in conditions


@dataclass(frozen=True)
class Hint(Picture):
    """Maps (N, K, H, W) on [0, 1]; those of NaN are empty.

    Drawn from a column of a batch, or from the user's pictures.
    """

    source: HintSource

    option: ClassVar[str] = HINT

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The hints of a batch."""
        return self.source.draw(batch[self.source.reads])
