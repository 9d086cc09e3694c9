"""Pictures of the user's, read as a model sees them, and a model's as programs show them."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor

from genlab.data.decode import Bits, Channels, UnreadableImageError, decode
from genlab.errors import DataError


def read_picture(path: Path, shape: Sequence[int], bits: int, option: str) -> Tensor:
    """The largest centered part of a picture that has a model's proportions, resized to its ``shape`` (C, H, W), uint8,
    or uint16 of 16 ``bits``; in gray or colors as the model's are. Raises DataError: ``option``=``path`` is not a
    picture."""
    channels, height, width = shape
    try:
        pixels = decode(path, (height, width), cast(Channels, channels), bits=cast(Bits, bits))
    except UnreadableImageError as error:
        raise DataError(f"{option}={path} is not a picture that can be read: {error}.") from error
    return torch.tensor(pixels)  # a copy: pixels that Pillow gives are not writable


def on_white(picture: Tensor) -> Image.Image:
    """(C, H, W) uint8 -> RGB, on white where it is transparent."""
    pixels = picture.permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
