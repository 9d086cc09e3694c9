"""One file to pixels: sizes, crops, colors, transparency, orientation, and what is refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data.decode import UnreadableImageError, decode
from genlab.errors import DataError


def gradient(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: red grows to the right, green downwards, blue is 7."""
    red = np.linspace(0, 255, width)[None].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return np.rint(np.stack([red, green, np.full_like(red, 7)], axis=-1)).astype(np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options: object) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def solid(mode: str, color: object) -> Image.Image:
    return Image.new(mode, (4, 4), color)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_pixels_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    decoded = decode(saved(tmp_path / f"a.{suffix}", pixels, lossless=True), None, 3)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(64, 40), (40, 64), (41, 97), (40, 40)])
def test_the_centered_square_is_kept(tmp_path: Path, width: int, height: int) -> None:
    red, green, blue = decode(saved(tmp_path / "a.png", gradient(width, height)), 20, 3).astype(float)
    side = min(width, height)
    places = (np.arange(20) + 0.5) * side / 20 - 0.5  # of the new pixels' centers in the square
    across = (places + (width - side) / 2) * 255 / (width - 1)
    down = (places + (height - side) / 2) * 255 / (height - 1)
    inner = slice(3, -3)  # away from borders, where the filter has fewer pixels
    assert np.abs(red - across)[inner, inner].max() <= 1.5
    assert np.abs(green - down[:, None])[inner, inner].max() <= 1.5
    assert (blue == 7).all()


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    decoded = decode(saved(tmp_path / "a.png", stripes), 16, 1)
    assert decoded.shape == (1, 16, 16)
    assert np.abs(decoded[:, 2:-2, 2:-2].astype(float) - 127.5).max() < 8


def test_a_large_jpeg_is_shrunk_like_its_pixels(tmp_path: Path) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(rough).resize((640, 480), Image.Resampling.BICUBIC)
    jpeg = saved(tmp_path / "a.jpg", photo, quality=95)
    png = saved(tmp_path / "a.png", Image.open(jpeg))
    difference = decode(jpeg, 32, 3).astype(float) - decode(png, 32, 3)
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() < 12


@pytest.mark.parametrize(
    ("image", "suffix", "rgb"),
    [
        (solid("L", 90), "png", (90, 90, 90)),
        (solid("1", 1), "png", (255, 255, 255)),
        (solid("RGB", (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE), "png", (10, 200, 30)),
        (solid("RGBA", (10, 200, 30, 255)), "png", (10, 200, 30)),
        (solid("RGBA", (10, 200, 30, 0)), "png", (255, 255, 255)),
        (solid("RGBA", (0, 0, 0, 51)), "webp", (204, 204, 204)),
        (solid("LA", (0, 51)), "png", (204, 204, 204)),
        (solid("CMYK", (0, 255, 255, 0)), "jpg", (254, 0, 0)),
        (solid("L", 90), "jpg", (90, 90, 90)),
    ],
)
def test_colors(tmp_path: Path, image: Image.Image, suffix: str, rgb: tuple[int, int, int]) -> None:
    path = saved(tmp_path / f"a.{suffix}", image, lossless=True)
    decoded = decode(path, None, 3)
    assert decoded.shape == (3, 4, 4)
    assert np.abs(decoded[:, 0, 0].astype(int) - rgb).max() <= 2
    gray = decode(path, None, 1)
    assert gray.shape == (1, 4, 4)
    assert abs(int(gray[0, 0, 0]) - np.dot(rgb, [0.299, 0.587, 0.114])) <= 2


def test_a_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    decoded = decode(saved(tmp_path / "a.png", image, transparency=0), None, 3)
    assert decoded[:, 0, :2].T.tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("size", [None, 4])
def test_the_orientation_of_the_camera_is_applied(tmp_path: Path, size: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    pixels = gradient(8, 4)
    decoded = decode(saved(tmp_path / "a.png", pixels, exif=exif), size, 3)
    upright = saved(tmp_path / "b.png", np.rot90(pixels, -1).copy())
    assert np.array_equal(decoded, decode(upright, size, 3))
    assert decoded.shape == ((3, 8, 4) if size is None else (3, 4, 4))


def test_16_bit_is_refused(tmp_path: Path) -> None:
    gray = saved(tmp_path / "11.png", np.zeros((4, 4), dtype=np.uint16))
    color = tmp_path / "12.png"
    color.write_bytes(png_of_16_bit_color())
    for path in (gray, color):
        with pytest.raises(DataError) as caught:
            decode(path, None, 3)
        assert str(caught.value).startswith(f"{path} is 16-bit; only 8-bit images are read")


def png_of_16_bit_color() -> bytes:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")


def encoded(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded("JPEG")[:900], "truncated JPEG, 900 bytes"),
        (encoded("PNG")[:900], "truncated PNG, 900 bytes"),
        (encoded("WEBP")[:300], f"truncated WebP, 300 of {len(encoded('WEBP'))} bytes"),
        (b"", "empty file"),
        (b"<html>not here</html>", "not a known image format, 21 bytes"),
        (encoded("BMP")[:900], "truncated BMP, 900 bytes"),
    ],
)
def test_damaged_files_say_how(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError) as caught:
        decode(path, None, 3)
    assert str(caught.value) == reason


def test_every_truncation_is_refused_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    whole = encoded("PNG")
    path.write_bytes(whole)
    pixels = decode(path, None, 3)
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        try:
            assert np.array_equal(decode(path, None, 3), pixels), length
        except UnreadableImageError:
            assert length < len(whole) - 12


def test_a_crop_is_the_centered_square_of_that_side(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (21, 17, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.png", pixels)
    assert np.array_equal(decode(path, 7, 3, crop=7), pixels[7:14, 5:12].transpose(2, 0, 1))
    square = saved(tmp_path / "b.png", pixels[4:17, 2:15].copy())
    assert np.array_equal(decode(path, 6, 3, crop=13), decode(square, 6, 3))
    with pytest.raises(UnreadableImageError, match=r"^17x21, smaller than the crop of 18x18$"):
        decode(path, 6, 3, crop=18)


def test_a_crop_counts_the_pixels_of_the_file_also_where_a_jpeg_could_be_shrunk_first(tmp_path: Path) -> None:
    pixels = np.zeros((160, 160, 3), dtype=np.uint8)
    pixels[60:100, 60:100] = 255
    decoded = decode(saved(tmp_path / "a.jpg", pixels, quality=100, subsampling=0), 10, 3, crop=40)
    assert decoded[:, 1:-1, 1:-1].min() > 240


def test_bytes_are_decoded_like_their_file(tmp_path: Path) -> None:
    content = encoded("JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    assert np.array_equal(decode(content, 16, 3), decode(tmp_path / "a.jpg", 16, 3))
    with pytest.raises(UnreadableImageError, match=r"^truncated JPEG, 900 bytes$"):
        decode(content[:900], 16, 3)
    with pytest.raises(DataError, match=r"^row 3 is 16-bit; only 8-bit"):
        decode(png_of_16_bit_color(), 16, 3, name="row 3")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, kind in (("fifo.png", "a FIFO"), ("zero.png", "a device")):
        with pytest.raises(UnreadableImageError, match=f"{kind}, not a file"):
            decode(tmp_path / name, 8, 3)
