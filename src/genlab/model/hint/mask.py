"""The foreground of pictures on a plain background."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """One map, 1 where a channel differs by more than ``threshold`` from the median of the picture's border, else 0."""

    threshold: float = 0.1

    reads: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        """Raises ValueError: a threshold outside [0, 1)."""
        if not 0 <= self.threshold < 1:
            raise ValueError(f"model.hint.threshold={self.threshold} must be at least 0 and below 1.")

    def channels(self, told: Mapping[str, Any]) -> int:
        return 1

    def draw(self, column: Tensor) -> Tensor:
        """Pictures (N, C, H, W) on [-1, 1] -> (N, 1, H, W)."""
        sides = [column[:, :, 0], column[:, :, -1], column[:, :, :, 0], column[:, :, :, -1]]
        background = torch.cat(sides, dim=2).median(dim=2).values[:, :, None, None]  # (N, C, 1, 1)
        difference = (column - background).abs().amax(dim=1, keepdim=True) / 2
        return (difference > self.threshold).to(column.dtype)
