"""Images as files: grids, arrays, a PNG each."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genlab.files.atomic import prepare_folder, write_atomically, writing
from genlab.sampling.png import save_png

FOLDER = "samples"  # of a run


def captions_of(picture: Path) -> Path:
    """Where the captions of a picture of samples stand."""
    return picture.with_name(f"captions-{picture.stem}.txt")


def write_captions(captions: list[str], path: Path) -> None:
    """What samples were asked for, a line each, in the order of a grid. Raises StorageError."""
    write_atomically(path, lambda file: file.write("".join(f"{text}\n" for text in captions).encode()))


def save_grid(images: Tensor, columns: int, path: Path, smallest: int = 48) -> None:
    """Images (N, C, H, W), uint8 or uint16, as one PNG, row by row. Small ones are enlarged, pixel by pixel, to
    ``smallest``. C is 1 grey, 2 grey + alpha, 3 RGB or 4 RGBA."""
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
    """What metrics show, (C, H, W) uint8 by name, as ``samples/<name>-<of>.png`` of a run. Returns where they are.
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
