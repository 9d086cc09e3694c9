"""Layouts: what is where, as the data know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Layout:
    """A map for each class of the data's layouts, 1 where that class is, else 0; class 0 is the background."""

    size: int = field(default=0, init=False)  # classes, as the data have them

    reads: ClassVar[str] = "layout"

    def channels(self, told: Mapping[str, Any]) -> int:
        """Raises ValueError: the data have no layouts."""
        layout = told.get(self.reads)
        if not layout or layout.get("size") is None:
            raise ValueError(
                "model/hint=layout needs data that know where their objects are. Use data=shapes data.layout=true, or "
                "model/hint=edges."
            )
        self.size = int(layout["size"])
        return self.size

    def draw(self, column: Tensor) -> Tensor:
        """Layouts (N, H, W), numbers of classes -> (N, classes, H, W). Raises ValueError: there is no such class."""
        largest = int(column.max())
        if largest >= self.size:
            raise ValueError(f"a layout has the class {largest}, and those of the data are 0 to {self.size - 1}.")
        return F.one_hot(column.long(), self.size).movedim(-1, 1).to(torch.float32)
