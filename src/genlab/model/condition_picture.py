"""The condition of models that write about a picture: the picture itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genlab.model.condition_kind import Device
from genlab.seeding import RandomStream

KEY = "image"  # in batches and conditions


@dataclass(frozen=True)
class Picture:
    """A picture (N, C, H, W) on [-1, 1]; one of NaN is empty.

    It is not among the conditions that data provide for models of pictures (``KINDS``): a family that takes it makes
    it. A saved run has no pictures, so that defaults are empty.
    """

    shape: Sequence[int]  # (C, H, W)

    option: ClassVar[str] = "image"
    size: ClassVar[int] = 0
    num_tokens: ClassVar[int] = 0
    length: ClassVar[int] = 0

    def nothing(self, rows: int, device: Device = "cpu") -> Tensor:
        return torch.full((rows, *self.shape), torch.nan, device=device)

    def is_nothing(self, value: Tensor) -> Tensor:
        return value.flatten(1).isnan().any(dim=1)

    def any(self, stream: RandomStream) -> Tensor:
        return self.nothing(len(stream), stream.device)

    def in_turn(self, indices: Sequence[int]) -> Tensor:
        return self.nothing(len(indices))

    def example(self, indices: Sequence[int]) -> Tensor:
        return self.nothing(len(indices))

    def check(self, value: Tensor) -> None:
        if tuple(value.shape[1:]) != tuple(self.shape):
            raise ValueError(
                f"pictures of shape {tuple(value.shape[1:])}: the model was trained on {tuple(self.shape)}. "
                "Resize them to that."
            )

    def read(self, typed: str | int) -> Tensor:
        raise ValueError("pictures are read from files by the commands.")

    def words(self, value: Tensor) -> list[str]:
        return [""] * len(value)

    def tokens(self, value: Tensor) -> Tensor:
        return value.new_zeros((len(value), 0), dtype=torch.long)
