"""Edges of pictures: where the Sobel gradient is large."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """One map, 1 where a channel's Sobel gradient is above ``threshold``, else 0: a function of the picture alone."""

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
        x = F.pad(column, (1, 1, 1, 1), mode="replicate")
        across = x[..., :, 2:] - x[..., :, :-2]  # (N, C, H + 2, W)
        down = x[..., 2:, :] - x[..., :-2, :]  # (N, C, H, W + 2)
        across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
        down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
        gradient = (across.square() + down.square()).sqrt() / 8  # 4 weights of a difference of 2 at most
        return (gradient.amax(dim=1, keepdim=True) > self.threshold).to(column.dtype)
