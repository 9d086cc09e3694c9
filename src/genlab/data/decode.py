"""Decodes an image file to an array."""

import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps

from genlab.errors import ConfigError, DataError
from genlab.files.regular_file import kind_of

Channels = Literal[1, 2, 3, 4]  # gray, gray + alpha, RGB, RGBA
Bits = Literal[8, 16]  # of a channel of a pixel
Size = int | tuple[int, int]  # of a picture: the side of a square, or (height, width)
DECODER = f"3 Pillow {Image.__version__}"  # part of cache keys; raise the number when pixels change

SUFFIXES = {  # of the formats that are read, by Pillow's names for these
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
_FORMATS = tuple(SUFFIXES)
_OPAQUE = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA = ("LA", "RGBA")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by channels
_WIDE_GRAY = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_BITS_PER_SAMPLE = 258  # a tag of TIFF


class UnreadableImageError(Exception):
    """A damaged file; the text says how."""


class SixteenBits(DataError):
    """A gray image of 16 bits where 8 are expected."""


def decode(
    source: Path | bytes,
    image_size: Size | None,
    channels: Channels,
    crop: int | None = None,
    name: str = "",
    bits: Bits = 8,
) -> np.ndarray:
    """The pixels of a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file, (C, H, W) uint8; of several frames the first.

    The EXIF orientation is applied. Transparent images are composited on white, unless the
    channels include alpha: colors of transparent pixels are arbitrary, and such images are made for white pages.
    Colors become gray by ITU-R 601. With ``image_size`` S, or (H, W), the largest centered part of the picture of that
    shape is resized with an antialiased Lanczos filter; colors
    are weighted by their alpha. With 16 ``bits`` the result is uint16: gray pictures keep 16 bits, those of 8 bits are
    spread over the whole range (257 v). A JPEG at least four times that large is first shrunk in the frequency domain,
    never to less than twice S: several times quicker, and not visible after the filter.

    Args:
        source: the file, or its content
        image_size: side of the result, or its height and width; None keeps the size, whatever it is
        channels: 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGBA
        crop: side of the centered square that is kept, in pixels of the file; None: the largest there is
        name: of the file in messages; "": the path
        bits: 16: keep what is finer than 8 bits a channel

    Raises:
        UnreadableImageError: the file is damaged, empty, of another format or smaller than the crop.
        DataError: the file is fine, but has more bits a channel than asked for, or a pixel format without a meaning
            here.
    """
    if isinstance(source, Path) and (kind := kind_of(source, follow=True)) is not None:
        raise UnreadableImageError(f"{kind}, not a file")  # reading a FIFO would block
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            assert isinstance(image, ImageFile.ImageFile)
            is_wide = _check_format(image, name or str(source), channels, bits)
            if image_size is not None and crop is None:
                side = image_size if isinstance(image_size, int) else max(image_size)
                image.draft(None, (2 * side, 2 * side))  # type: ignore[arg-type]  # keeps the mode
            ImageOps.exif_transpose(image, in_place=True)
            upright = Image.fromarray(np.asarray(image, np.float32)) if is_wide else _flatten(image, _MODES[channels])
    except DataError:
        raise
    except Exception as error:  # a decoder fails on hostile bytes in many ways
        raise UnreadableImageError(_reason(source, error)) from error
    if crop is not None:
        upright = _cropped(upright, crop)
    pixels = np.asarray(upright if image_size is None else resized(upright, image_size))  # (H, W) or (H, W, C)
    if is_wide:
        pixels = np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)
    elif bits == 16:
        pixels = pixels.astype(np.uint16) * 257
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))  # (C, H, W)


def _check_format(image: ImageFile.ImageFile, name: str, channels: Channels, bits: Bits) -> bool:
    """Whether there are 16 bits a channel to keep. Raises DataError for a format that cannot be converted as
    requested."""
    if image.mode.startswith("I") or _is_wide(image):
        readable = image.mode in _WIDE_GRAY and not (image.mode == "I" and image.format == "TIFF")  # TIFF "I" has 32
        if not readable:
            raise DataError(
                f"{name} is 16-bit; only 8-bit images are read, and gray ones of 16 bits. Convert it, or put the "
                "pictures into a .npy: data=array."
            )
        if bits == 8:
            raise SixteenBits(f"{name} is 16-bit; only 8-bit images are read unless asked for.")
        if channels != 1:
            raise DataError(f"{name} is gray with 16 bits, and data.channels={channels}. Set data.channels=1.")
        return True
    if image.mode not in _OPAQUE + _ALPHA:
        raise DataError(f"{name} has the pixel format '{image.mode}'; convert it to RGB or gray.")
    return False


def _is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether colors have more than 8 bits a channel, which Pillow silently drops."""
    told: Any = image.tile[0][3] if image.tile else ""
    if image.format == "PPM":  # the largest value is last
        return isinstance(told, tuple) and isinstance(told[-1], int) and told[-1] > 255
    if image.format == "TIFF" and max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8:  # type: ignore[attr-defined]
        return True
    return image.format == "PNG" and ";16" in str(told)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Convert to ``mode``; if that has no alpha, composite on white."""
    if mode in _ALPHA:
        return image.convert("RGBA").convert(mode)
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _cropped(image: Image.Image, side: int) -> Image.Image:
    """The centered square of that side; half a pixel is rounded as torchvision's CenterCrop does."""
    width, height = image.size
    if side > min(width, height):
        raise UnreadableImageError(f"{width}x{height}, smaller than the crop of {side}x{side}")
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def resized(image: Image.Image, size: Size) -> Image.Image:
    """The largest centered part of the shape of ``size``, at that size. One resampling of a box, Lanczos."""
    width, height = image.size
    new_height, new_width = (size, size) if isinstance(size, int) else size
    if (width, height) == (new_width, new_height):
        return image
    kept_width: float
    kept_height: float
    if width * new_height <= height * new_width:  # in whole numbers, so that squares are exact
        kept_width, kept_height = float(width), width * new_height / new_width
    else:
        kept_width, kept_height = height * new_width / new_height, float(height)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    box = (left, top, min(width, left + kept_width), min(height, top + kept_height))
    return image.resize((new_width, new_height), Image.Resampling.LANCZOS, box=box)


def checked_size(size: Size | None) -> Size | None:
    """``data.image_size``, a list of two as (height, width). Raises ConfigError if it is not a size."""
    sides = [] if size is None else [size] if isinstance(size, int) else list(size)
    if any(side < 1 for side in sides):
        raise ConfigError(
            "data.image_size must be a whole number >= 1, [height,width] or null, "
            f"got {size if isinstance(size, int) else list(sides)}."
        )
    if size is None or isinstance(size, int):
        return size
    height, width = size
    return height, width


def _reason(source: Path | bytes, error: Exception) -> str:
    """What is wrong with the file, in a few words."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    head, size = _head(source)
    if size == 0:
        return "empty file"
    if head[:4] == b"RIFF" and (whole := int.from_bytes(head[4:8], "little") + 8) > size:
        return f"truncated WebP, {size} of {whole} bytes"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not a known image format, {size} bytes"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    kinds = {
        b"\xff\xd8": "JPEG",
        b"\x89P": "PNG",
        b"RI": "WebP",
        b"GI": "GIF",
        b"BM": "BMP",
        b"II": "TIFF",
        b"MM": "TIFF",
    }
    name = kinds.get(head[:2], "image")
    return f"truncated {name}, {size} bytes" if "truncated" in str(error).lower() else f"damaged {name}, {size} bytes"


def _head(source: Path | bytes) -> tuple[bytes, int]:
    """The first 12 bytes, and the size."""
    if isinstance(source, bytes):
        return source[:12], len(source)
    with open(source, "rb") as file:
        return file.read(12), os.fstat(file.fileno()).st_size
