"""The protocol of distances between images."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class ImageDistance(Protocol):
    """A distance that grows as the square of a small difference. ``name`` goes into the names of numbers."""

    name: str

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of paired images (N, C, H, W) on [-1, 1], C of 1 or 3, not quantized. -> (N,) float32."""
        ...

    def settings(self) -> dict[str, int | float | str]:
        """What it depends on beside the images: part of the recorded protocol."""
        ...
