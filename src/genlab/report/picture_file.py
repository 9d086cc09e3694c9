"""Reads untrusted sample grids: regular files, PNG only, with a bounded number of pixels."""

import io
import re
import struct
from pathlib import Path
from threading import Lock

from PIL import Image

from genlab.files import regular_file

NAME = re.compile(r"examples=(\d{12})\.(png|txt)")  # what a run draws along its training
MOST_PIXELS = 1 << 25  # of a grid: 8 x 10 samples of 512 pixels a side have 21 million
LONGEST_SIDE = 1 << 15  # pixels
LARGE = 1 << 22  # pixels; larger ones are decoded one at a time, so that threads do not add up their memory
_HEAD = struct.Struct(">8sI4sII")
_one_at_a_time = Lock()


class UnreadablePictureError(Exception):
    """The text says why, in a few words."""


def read_picture(path: Path, tallest: int | None = None) -> Image.Image:
    """RGB; scaled down to ``tallest`` pixels if it is higher. Raises UnreadablePictureError."""
    try:
        content = regular_file.read_bytes(path, root=path.parents[1], largest=regular_file.LARGEST_PICTURE)
        width, height = _size(content)
        if width * height <= LARGE:
            return _decoded(content, tallest)
        with _one_at_a_time:
            return _decoded(content, tallest)
    except UnreadablePictureError:
        raise
    except OSError as error:
        raise UnreadablePictureError(error.strerror or _short(error)) from error
    except Exception as error:  # a decoder fails on hostile bytes in many ways
        raise UnreadablePictureError(_short(error)) from error


def _decoded(content: bytes, tallest: int | None) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        _check(*image.size)  # which a second header may have changed
        found = image.convert("RGB")
    if tallest is not None and found.height > tallest:
        width = max(1, round(found.width * tallest / found.height))
        found = found.resize((width, tallest), Image.Resampling.LANCZOS)
    return found


def _size(content: bytes) -> tuple[int, int]:
    """What the header says, before any decoder looks at it."""
    if len(content) < _HEAD.size:
        raise UnreadablePictureError(f"not a PNG, {len(content)} bytes")
    signature, _, kind, width, height = _HEAD.unpack_from(content)
    if signature != b"\x89PNG\r\n\x1a\n" or kind != b"IHDR":
        raise UnreadablePictureError(f"not a PNG, {len(content):,} bytes")
    _check(width, height)
    return width, height


def _check(width: int, height: int) -> None:
    if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE:
        raise UnreadablePictureError(
            f"{width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are read, and {LONGEST_SIDE:,} a side"
        )


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
