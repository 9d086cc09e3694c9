"""Writes PNG files with 8 or 16 bits a channel; with 16, Pillow can only write gray."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from genlab.files.atomic import write_atomically

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: gray, gray + alpha, RGB, RGBA


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Write ``pixels`` (H, W, C), uint8 or uint16: gray, gray + alpha, RGB or RGBA. Raises StorageError."""
    write_atomically(path, lambda file: _write(pixels, file))


def _write(pixels: np.ndarray, file: BinaryIO) -> None:
    height, width, channels = pixels.shape
    if pixels.dtype == np.uint8:
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG")
        return
    assert pixels.dtype == np.uint16
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # each row begins with its filter
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(unfiltered.tobytes())), (b"IEND", b"")]
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, content in chunks:
        file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
