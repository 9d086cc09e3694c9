"""One image file to one row of a table."""

import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFile, ImageOps

from genlab.errors import DataError
from genlab.regular_file import kind_of

Channels = Literal[1, 3]
DECODER = f"3 Pillow {Image.__version__}"  # part of what a cache is keyed by; raise the number when pixels change

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
_BITS_PER_SAMPLE = 258  # a tag of TIFF


class UnreadableImageError(Exception):
    """A damaged file; the text says in what way."""


def decode(
    source: Path | bytes, image_size: int | None, channels: Channels, crop: int | None = None, name: str = ""
) -> np.ndarray:
    """The pixels of a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file, (C, H, W) uint8; of several frames the first.

    The orientation that a camera wrote beside the pixels is applied. Transparency is laid on white: what lies under
    it is arbitrary, and pictures with it are drawn for a white page. Colours become grey by ITU-R 601. With
    ``image_size`` S the centred square of the picture is brought to S x S with a Lanczos filter, widened by the scale
    when shrinking (antialiased). A JPEG at least four times that large is first shrunk in the frequency domain, never
    to less than twice S: several times quicker, and not visible after the filter.

    Args:
        source: the file, or what is in it
        image_size: side of the result; None keeps the size, whatever it is
        channels: 3 for RGB, 1 for grey
        crop: side of the centred square that is kept, in pixels of the file; None: the largest there is
        name: of the file in messages; "": the path

    Raises:
        UnreadableImageError: the file is damaged, empty, of another format or smaller than the crop.
        DataError: the file is fine, but has more than 8 bits a channel or a pixel format without a meaning here.
    """
    if isinstance(source, Path) and (kind := kind_of(source, follow=True)) is not None:
        raise UnreadableImageError(f"{kind}, not a file")  # a FIFO would be waited for
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            assert isinstance(image, ImageFile.ImageFile)
            _check_format(image, name or str(source))
            if image_size is not None and crop is None:
                image.draft(None, (2 * image_size, 2 * image_size))  # type: ignore[arg-type]  # keeps the mode
            ImageOps.exif_transpose(image, in_place=True)
            upright = _flatten(image, "RGB" if channels == 3 else "L")
    except DataError:
        raise
    except Exception as error:  # a decoder fails on hostile bytes in many ways
        raise UnreadableImageError(_reason(source, error)) from error
    if crop is not None:
        upright = _cropped(upright, crop)
    pixels = np.asarray(upright if image_size is None else _square(upright, image_size))  # (H, W) or (H, W, 3)
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))  # (C, H, W)


def _check_format(image: ImageFile.ImageFile, name: str) -> None:
    if image.mode.startswith("I") or _is_wide(image):
        raise DataError(f"{name} is 16-bit; only 8-bit images are supported.")
    if image.mode not in _OPAQUE + _ALPHA:
        raise DataError(f"{name} has the pixel format '{image.mode}'; convert it to RGB or grey.")


def _is_wide(image: ImageFile.ImageFile) -> bool:
    """Whether colours have more than 8 bits a channel, which Pillow takes away without a word."""
    told: Any = image.tile[0][3] if image.tile else ""
    if image.format == "PPM":  # the largest value stands last
        return isinstance(told, tuple) and isinstance(told[-1], int) and told[-1] > 255
    if image.format == "TIFF" and max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8:  # type: ignore[attr-defined]
        return True
    return image.format == "PNG" and ";16" in str(told)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """To ``mode``, "RGB" or "L", with transparency laid on white."""
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _cropped(image: Image.Image, side: int) -> Image.Image:
    """The centred square of that side; half a pixel is rounded as torchvision's CenterCrop does."""
    width, height = image.size
    if side > min(width, height):
        raise UnreadableImageError(f"{width}x{height}, smaller than the crop of {side}x{side}")
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _square(image: Image.Image, size: int) -> Image.Image:
    """The centred square at ``size``. One resampling of a box: the shorter side decides, the longer is cropped."""
    width, height = image.size
    if width == height == size:
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


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
        return f"not an image of a format that is read, {size} bytes"
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than any picture has"
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
    """The first 12 bytes, and how many there are."""
    if isinstance(source, bytes):
        return source[:12], len(source)
    with open(source, "rb") as file:
        return file.read(12), os.fstat(file.fileno()).st_size
