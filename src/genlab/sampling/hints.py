"""Hints of controlled models: from the user's pictures, and from held-out ones for grids and evaluations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genlab.data.image import ImageTable, to_float
from genlab.errors import ConfigError, DataError
from genlab.files.paths import read_path
from genlab.model.base import Condition, GenerativeModel
from genlab.model.condition_hint import HINT, Hint
from genlab.sampling.picture_file import read_picture


def read_hints(model: GenerativeModel, names: Sequence[str], bits: int) -> Tensor:
    """The hints (M, K, H, W) of pictures in files. Raises DataError: a file is not a picture, or not a layout;
    ConfigError: it has classes that the model does not know."""
    kind = model.conditions.kinds[HINT]
    assert isinstance(kind, Hint)
    if kind.source.reads == "image":
        shape: Sequence[int] = model.shape  # type: ignore[assignment]
        pictures = torch.stack([read_picture(read_path(name), shape, bits, HINT) for name in names])
        return kind.of({"image": to_float(pictures)})
    try:
        return kind.of({kind.source.reads: torch.stack([_layout(name, kind.shape) for name in names])})
    except ValueError as error:
        raise ConfigError(f"{HINT}={names[0]}: {error} Its pixels are numbers of classes.") from error


def _layout(name: str, shape: Sequence[int]) -> Tensor:
    """A gray picture whose levels are classes, (H, W)."""
    try:
        with Image.open(read_path(name)) as picture:
            mode, pixels = picture.mode, np.array(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{HINT}={name} is not a picture that can be read: {error}.") from error
    if mode not in ("L", "P") or pixels.shape != tuple(shape[1:]):
        raise DataError(
            f"{HINT}={name}: a layout is a gray picture of {shape[2]}x{shape[1]} pixels whose levels are numbers of "
            f"classes, and this one is {pixels.shape[1]}x{pixels.shape[0]} of mode {mode}. Save one of mode L."
        )
    return torch.from_numpy(pixels)


def conditions_at(table: ImageTable, rows: np.ndarray) -> dict[str, Tensor]:
    """What a batch of the rows (N,) of a split holds."""
    images = to_float(torch.from_numpy(table.images[rows]))
    return {**table.told(rows), "image": images, "index": torch.from_numpy(rows)}


def held_out_hints(model: GenerativeModel, data: Any, indices: Sequence[int]) -> Condition | None:
    """The conditions of held-out images in turn, for a grid of a controlled model; None: it is not one."""
    if HINT not in model.conditions.kinds:
        return None
    table = data.table("val")
    return model.conditions.of(conditions_at(table, np.array(indices) % len(table)))


def shown_hints(condition: Condition) -> Tensor:
    """The hints (N, K, H, W) of a condition as gray pictures (N, 1, H, W) uint8: of several maps each has a gray of
    its own, from black for the first to white."""
    hints = condition[HINT]
    maps = hints.shape[1]
    grays = torch.linspace(0, 255, maps) if maps > 1 else torch.tensor([255.0])
    return (hints.cpu() * grays.view(1, -1, 1, 1)).sum(dim=1, keepdim=True).round().to(torch.uint8)
