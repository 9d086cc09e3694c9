"""Image samples: conditioned on labels or captions, written as grids, arrays, or a PNG each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genlab.data.image import to_pixels
from genlab.errors import ConfigError
from genlab.files.atomic import prepare_file, prepare_folder, write_atomically, writing
from genlab.files.paths import read_path
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_hint import HINT
from genlab.sampling.asked import read_typed
from genlab.sampling.draw import asked_of
from genlab.sampling.examples import Examples
from genlab.sampling.form import Typed
from genlab.sampling.hints import read_hints
from genlab.sampling.png import save_png

FOLDER = "samples"  # of a run


class Pictures:
    """Images of ``bits`` a channel, 8 or 16."""

    key: ClassVar[str] = "image"
    count: ClassVar[int] = 64
    suffix: ClassVar[str] = ".png"

    def __init__(self, bits: int = 8):
        self.bits = bits

    def content(self, samples: Tensor) -> Tensor:
        """float [-1, 1] (N, C, H, W) -> uint8, or uint16, rounded and clamped."""
        return to_pixels(samples, self.bits).cpu()

    def read(self, model: GenerativeModel, typed: Typed, run: Path) -> Condition:
        hints, others = typed.get(HINT), {name: values for name, values in typed.items() if name != HINT}
        if HINT not in model.conditions.kinds:
            return read_typed(model, typed, run)
        found = read_typed(model, others, run)
        return found if hints is None else {**found, HINT: read_hints(model, [str(name) for name in hints], self.bits)}

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        return asked_of(model, indices, typed)

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        captions = model.conditions.words(self.asked(model, indices, typed))
        return {"caption": captions} if captions else {}

    def shown(self, examples: Examples, last: bool) -> str:
        return ""

    def destination(self, out: str) -> Path:
        return picture_destination(out)

    def columns(self, model: GenerativeModel, n: int, typed: Condition) -> int:
        """In a grid of several labels, each has a column."""
        square, labels = max(1, round(n**0.5)), model.conditions.label_of(typed) if typed else None
        asked = len(labels) if labels is not None else model.num_classes if model.conditions.is_label_alone else None
        in_columns = asked == 10 if labels is None else 1 < len(labels) <= 20
        return asked or square if in_columns else square

    def write(self, examples: Examples, path: Path, columns: int) -> list[Path]:
        """A grid with ``captions-<name>.txt`` beside it where there are captions, an array, or a PNG each."""
        write_images(examples[self.key], path, columns)
        captions = examples.columns.get("caption")
        if captions is None or path.suffix.lower() != ".png":
            return [path]
        write_captions([str(caption) for caption in captions], captions_of(path))
        return [path, captions_of(path)]


class WithWanted(Pictures):
    """Images that are wanted to have a condition which their model does not take: a judge looks at it."""

    def __init__(self, bits: int, key: str, wanted: Tensor):
        """``wanted``: rows, of samples in turn."""
        super().__init__(bits)
        self.wanted_key, self.wanted = key, wanted

    def asked(self, model: GenerativeModel, indices: range, typed: Condition) -> Condition | None:
        rows = self.wanted[torch.tensor(indices) % len(self.wanted)]
        return {**(super().asked(model, indices, typed) or {}), self.wanted_key: rows}

    def words(self, model: GenerativeModel, indices: range, typed: Condition) -> dict[str, Sequence[str]]:
        captions = model.conditions.words(asked_of(model, indices, typed))
        return {"caption": captions} if captions else {}


def captions_of(picture: Path) -> Path:
    """The file with the captions of a picture of samples."""
    return picture.with_name(f"captions-{picture.stem}.txt")


def write_captions(captions: list[str], path: Path) -> None:
    """Write the captions of samples, a line each, in the order of a grid. Raises StorageError."""
    write_atomically(path, lambda file: file.write("".join(f"{text}\n" for text in captions).encode()))


def save_grid(images: Tensor, columns: int, path: Path, smallest: int = 48) -> None:
    """Images (N, C, H, W), uint8 or uint16, as one PNG, row by row. Small ones are enlarged, pixel by pixel, to
    ``smallest``. C is 1 gray, 2 gray + alpha, 3 RGB or 4 RGBA."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    kind = np.uint8 if images.dtype == torch.uint8 else np.uint16
    white = np.iinfo(kind).max
    tiles = np.full((rows * columns, channels, height + 1, width + 1), white, dtype=kind)  # a line between tiles
    tiles[:count, :, :-1, :-1] = images.numpy()
    grid = tiles.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    scale = -(-smallest // width)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(grid.repeat(scale, axis=0).repeat(scale, axis=1), path)


def save_pictures(pictures: Mapping[str, Tensor], run: Path, of: str) -> list[Path]:
    """Write pictures of metrics, (C, H, W) uint8 by name, as ``samples/<name>-<of>.png`` of a run. Returns their paths.
    Raises StorageError."""
    if pictures:
        prepare_folder(run / FOLDER, run)
    paths = [run / FOLDER / f"{name}-{of}.png" for name in pictures]
    for picture, path in zip(pictures.values(), paths, strict=True):
        save_grid(picture[None], 1, path, smallest=1)
    return paths


def write_images(images: Tensor, path: Path, columns: int) -> None:
    """Images (N, C, H, W), uint8 or uint16, as a grid (``.png``), an array ``images`` (N, H, W, C) (``.npz``), or
    one PNG each in a folder that is there. Raises StorageError."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    if path.is_dir():
        with writing(path):
            for i, picture in enumerate(pixels):
                save_png(picture, path / f"{i:06d}.png")
    elif path.suffix.lower() == ".npz":
        write_atomically(path, lambda file: np.savez(file, images=pixels))
    else:
        with writing(path.parent):
            save_grid(images, columns, path)


def picture_destination(out: str) -> Path:
    """The path for images: a .png, a .npz, or an empty or new folder.

    Raises:
        ConfigError: ``out`` is none of these.
        StorageError: it cannot be written.
    """
    path = read_path(out)
    suffix = path.suffix.lower()
    if not (out.endswith("/") or path.is_dir()):
        if suffix in (".png", ".npz"):
            prepare_file(path)
            return path
        if suffix:
            raise ConfigError(
                f"out={out}: images go into a .png (a grid), a .npz (an array) or a folder (a PNG each). "
                f"Use out={path.with_suffix('.png')}, or out={out}/ for a folder."
            )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        held = len(list(path.iterdir()))
    if held:
        raise ConfigError(
            f"out={out}: the folder holds {held} file{'s' * (held > 1)} already, which would lie among "
            "the samples. Name a new folder, or empty that one."
        )
    return path
