"""Pictures to edit and their masks, as a model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.decode import Bits, Channels, UnreadableImageError, decode
from genlab.errors import ConfigError, DataError
from genlab.sampling.picture_file import read_picture

_WHITE = 128  # and above, of 255: to be replaced


@dataclass(frozen=True)
class Picture:
    """A picture as a model sees it."""

    pixels: Tensor  # (C, H, W) uint8, or uint16
    size: tuple[int, int]  # of the file: (height, width)
    path: Path

    @property
    def changed(self) -> str:
        """How it differs from its file, in a sentence; "" if it does not."""
        height, width = self.pixels.shape[1:]
        if self.size == (height, width):
            return ""
        top, left, bottom, right = kept_box(self.size, (height, width))
        kept = f"{round(right - left)}x{round(bottom - top)}"
        file = f"{self.size[1]}x{self.size[0]}"
        part = "it is" if kept == file else f"its centered {kept} are"
        return f"{self.path} is {file}: {part} resized to {width}x{height}."


def read(path: Path, shape: Sequence[int], bits: int, option: str = "image") -> Picture:
    """The largest centered part of a picture that has the proportions of ``shape`` (C, H, W), resized to it; in gray or
    colors as the shape says. Raises DataError: ``option``=``path`` is not a picture."""
    return Picture(read_picture(path, shape, bits, option), size_of(path, shape[0], bits, option), path)


def size_of(path: Path, channels: int, bits: int, option: str) -> tuple[int, int]:
    """Height and width of a picture, as it is seen. Raises DataError."""
    pixels = _decoded(path, channels, bits, option)
    return pixels.shape[1], pixels.shape[2]


def _decoded(path: Path, channels: int, bits: int, option: str) -> Tensor:
    try:
        return torch.tensor(decode(path, None, cast(Channels, channels), bits=cast(Bits, bits)))
    except UnreadableImageError as error:
        raise DataError(f"{option}={path} is not a picture that can be read: {error}.") from error


def read_mask(path: Path, size: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """What is to be replaced, white in a picture: (1, H, W) bool, of a model's ``shape`` (C, H, W).

    The mask has the ``size`` (height, width) of the picture's file, and is then cropped and shrunk with it: a pixel of
    which any part is white is replaced. Or it has the size of the model's pictures.

    Raises:
        DataError: it cannot be read.
        ConfigError: it has another size.
    """
    white = _decoded(path, 1, 8, "mask")[0] >= _WHITE  # (h, w)
    height, width = white.shape
    if (height, width) == tuple(shape[1:]):
        return white[None]
    if (height, width) != size:
        fitting = f"{size[1]}x{size[0]}"
        fitting += "" if size == tuple(shape[1:]) else f", or of {shape[2]}x{shape[1]}, as the model sees it"
        raise ConfigError(
            f"mask={path} is {width}x{height}, and the picture is {size[1]}x{size[0]}. Name a mask of {fitting}; or "
            f"in place of it a rectangle of the picture: box=[0,0,{-(-size[1] // 2)},{size[0]}]"
        )
    return seen(white, shape)


def box_mask(box: Sequence[int], size: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """The same of a rectangle [x0, y0, x1, y1] in pixels of a picture of ``size``, without column x1 and row y1. Raises
    ConfigError: it is not inside."""
    x0, y0, x1, y1 = box
    height, width = size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ConfigError(
            f"box={_list(box)} is not a rectangle [x0,y0,x1,y1] of the picture, which is {width}x{height}. Use "
            f"box=[0,0,{width},{height}] for all of it."
        )
    white = torch.zeros(size, dtype=torch.bool)
    white[y0:y1, x0:x1] = True
    return seen(white, shape)


def seen(white: Tensor, shape: Sequence[int]) -> Tensor:
    """Places (h, w) of a picture -> those of it as a model sees it, (1, H, W): all that have a part of one."""
    size = (shape[1], shape[2])
    top, left, bottom, right = kept_box((white.shape[0], white.shape[1]), size)
    kept = white[int(top) : -int(-bottom // 1), int(left) : -int(-right // 1)]
    return F.adaptive_max_pool2d(kept[None].float(), size) > 0


def kept_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of the largest centered part of a picture of ``size`` (height, width) that has the
    proportions of ``target``, in pixels."""
    (height, width), (new_height, new_width) = size, target
    kept_height = min(float(height), width * new_height / new_width)
    kept_width = min(float(width), height * new_width / new_height)
    top, left = (height - kept_height) / 2, (width - kept_width) / 2
    return top, left, top + kept_height, left + kept_width


def extended(path: Path, extend: Sequence[int], shape: Sequence[int], bits: int) -> tuple[Picture, Tensor]:
    """A picture in the frame of a model, whose ``shape`` (C, H, W) is fixed: shrunk to leave ``extend`` = [left, top,
    right, bottom] pixels of the frame free, which are the mask, (1, H, W) bool. Raises ConfigError: nothing is left for
    the picture; DataError: it cannot be read."""
    left, top, right, bottom = extend
    channels, height, width = shape
    inner = (channels, height - top - bottom, width - left - right)
    if min(extend) < 0 or min(inner) < 1:
        raise ConfigError(
            f"extend={_list(extend)} leaves nothing of the model's {width}x{height} for the picture, or is negative. "
            f"Use less, such as extend=[{width // 4},0,{width // 4},0]: pixels at the left, the top, the right and "
            "the bottom."
        )
    picture = read(path, inner, bits)
    white = torch.ones(1, height, width, dtype=torch.bool)
    white[:, top : height - bottom, left : width - right] = False
    frame = picture.pixels.new_zeros(tuple(shape))
    frame[:, top : height - bottom, left : width - right] = picture.pixels
    return Picture(frame, picture.size, path), white


def _list(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"
