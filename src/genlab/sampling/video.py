"""Moving pictures: GIF files by Pillow, MP4 files by PyAV."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, write_atomically
from genlab.files.paths import read_path
from genlab.sampling.picture_file import on_white

SUFFIXES = (".gif", ".mp4")
FPS = 30  # pictures a second, where nothing is asked for
_SMALLEST = 128  # pixels of the shorter side
_MOST_OF_GIF = 50  # pictures a second: programs show quicker ones slowly
_QUALITY = "18"  # the CRF of H.264, at which losses are hardly seen


def is_video(out: str | None) -> bool:
    return out is not None and Path(out).suffix.lower() in SUFFIXES


def check_video(path: Path, fps: int) -> None:
    """Raises ConfigError: the format does not have so many pictures a second, or a package is missing."""
    if path.suffix.lower() == ".gif" and fps > _MOST_OF_GIF:
        raise ConfigError(f"fps={fps}: a .gif shows at most {_MOST_OF_GIF} pictures a second. Use fps={_MOST_OF_GIF}.")
    if path.suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"{path.name} needs a package: pip install 'genlab[video]'. A .gif needs none."
            ) from error


def video_destination(out: str) -> Path:
    """The path for a moving picture. Raises ConfigError: it is neither a .gif nor a .mp4; StorageError: it cannot be
    written."""
    path = read_path(out)
    if not is_video(out):
        raise ConfigError(
            f"out={out}: a walk goes into a .gif or a .mp4. Use out={path.with_suffix('.gif')}, or leave frames= out."
        )
    prepare_file(path)
    return path


def write_video(pictures: Iterable[Tensor], path: Path, fps: int) -> None:
    """Write pictures (C, H, W) uint8, of which there is at least one, as a .gif that begins anew at its end, or a .mp4
    (H.264). Small ones are enlarged by a whole factor, so that the shorter side has 128 pixels or more; what is
    transparent is on white. A .gif has 256 colors for each picture, chosen for it, and shows equal pictures that follow
    each other as one that stays.

    Raises StorageError: it cannot be written; what was there before is untouched.
    """
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    write_atomically(path, lambda file: write(iter(pictures), file, fps))


def _write_gif(pictures: Iterator[Tensor], file: BinaryIO, fps: int) -> None:
    frames = [enlarged(_with_palette(picture)) for picture in pictures]
    ends = [round(100 * i / fps) for i in range(len(frames) + 1)]  # in its hundredths of a second
    durations = [10 * (end - start) for start, end in pairwise(ends)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _write_mp4(pictures: Iterator[Tensor], file: BinaryIO, fps: int) -> None:
    import av

    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": _QUALITY})
        for i, picture in enumerate(pictures):
            pixels = np.asarray(enlarged(on_white(picture)))  # (H, W, 3)
            pixels = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")
            if i == 0:
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))


def _with_palette(picture: Tensor) -> Image.Image:
    """(C, H, W) uint8 -> gray, or at most 256 colors."""
    image = on_white(picture)
    return image.convert("L") if len(picture) <= 2 else image.quantize(256, Image.Quantize.MEDIANCUT)


def enlarged(image: Image.Image) -> Image.Image:
    """Pixel by pixel, by the least whole factor that makes the shorter side 128 or more."""
    factor = -(-_SMALLEST // min(image.size))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
