"""Rewards of pictures: the size of their file, their brightness."""

import io
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from genlab.errors import ConfigError
from genlab.model.base import Condition


class JpegSize:
    """The size of a picture's JPEG file, in kilobytes of 1000 bytes. With a negative weight, pictures that compress
    well are better (Black et al. 2023, section 5)."""

    reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, weight: float = 1.0, quality: int = 95):  # quality: of the JPEG, 1 to 100
        """Raises ValueError: there is no such quality."""
        if not 1 <= quality <= 100:
            raise ValueError(f"quality={quality} is outside 1 to 100. Use quality=95.")
        self.weight, self.quality = weight, quality

    def check(self, data: Any) -> None:
        """Raises ConfigError: the pictures are neither gray nor in colour."""
        channels = data.spec.shape[0]
        if channels not in (1, 3):
            raise ConfigError(
                f"model.rewards: the pictures have {channels} channels, and a JPEG file has 1 or 3. Choose another "
                "reward: model/rewards=[brightness]."
            )

    def score(self, images: Tensor, condition: Condition | None) -> Tensor:
        """(N,)."""
        pixels = ((images.cpu() + 1) * 127.5).round().to(torch.uint8)
        return torch.tensor([self._kilobytes(picture) for picture in pixels])

    def _kilobytes(self, pixels: Tensor) -> float:
        """``pixels``: (C, H, W) uint8."""
        shown = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(shown.numpy()).save(file, format="JPEG", quality=self.quality)
        return len(file.getvalue()) / 1000


class Brightness:
    """The mean of a picture's pixels, in [-1, 1]. With a negative weight, dark pictures are better."""

    reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def check(self, data: Any) -> None:
        """Fits all pictures."""

    def score(self, images: Tensor, condition: Condition | None) -> Tensor:
        """(N,), in [-1, 1]."""
        return images.flatten(1).mean(dim=1)
