"""The pictures of scripts/control.sh that no data set has: a shape that no run has seen, and all shapes by class.

python scripts/benchmark_control_pictures.py FOLDER [--count 50]

FOLDER/concept/ has five pictures of a cross, with captions in a .txt beside each, where the cross is called "sks".
FOLDER/train/ and FOLDER/val/ have a folder of pictures for each size, color and shape of data=shapes, and of the cross.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genlab.data import scenes as drawing
from genlab.data.scenes import BACKGROUND, COLORS, SHAPES, SIZES, Scenes
from genlab.seeding import derive_seed, uniform_by_index

WORD = "sks"
CROSS = "cross"
KINDS = (*SHAPES, CROSS)
IMAGE_SIZE = 32
LOOKS = (("large", "red"), ("small", "green"), ("large", "blue"), ("small", "yellow"), ("large", "white"))
_ARM = 0.3  # half the width of an arm, in units of the radius
_MARGIN = 0.01  # between a shape and the border of its quarter, as data=shapes has it


def classes() -> list[str]:
    """``large_red_circle``, and so on: the folders of :func:`write_classes`."""
    return [f"{size}_{color}_{kind}" for size in SIZES for color in COLORS for kind in KINDS]


def cross(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """The signed distance to the outline of a cross of two bars from its center, negative inside; in the units of x, y
    and ``radius``, half the length of a bar. Exact inside, and outside as far as the nearest edge is straight."""
    along, across = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    outside: np.ndarray = np.maximum(along - radius, across - _ARM * radius)
    return outside


def crosses(colors: np.ndarray, sizes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pictures of a cross each, antialiased on the background of data=shapes.

    ``colors`` and ``sizes``: (N,), numbers in COLORS and SIZES; ``places``: (N, 2), the center, x to the right and y
    downwards, in units of the side. -> (N, 3, S, S) uint8.
    """
    pixels = np.arange(IMAGE_SIZE) + 0.5
    radius = np.array(list(SIZES.values()))[sizes][:, None, None] * IMAGE_SIZE
    x, y = (pixels - IMAGE_SIZE * place[:, None] for place in places.T)  # (N, S) each
    covered = np.clip(0.5 - cross(x[:, None, :], y[:, :, None], radius), 0, 1)[:, None]  # (N, 1, S, S)
    paint = np.array(list(COLORS.values()))[colors][:, :, None, None] - np.array(BACKGROUND)[:, None, None]
    painted: np.ndarray = covered * paint + np.array(BACKGROUND)[:, None, None] + 0.5
    return painted.astype(np.uint8)


def places(seed: int, sizes: np.ndarray) -> np.ndarray:
    """Centers (N, 2) of shapes of these ``sizes`` (N,), each anywhere in one of the quarters."""
    u = uniform_by_index(seed, np.arange(4 * len(sizes))).reshape(-1, 4)
    freedom = 0.25 - _MARGIN - np.array(list(SIZES.values()))[sizes][:, None]
    centers: np.ndarray = 0.25 + 0.5 * (u[:, :2] >= 0.5) + (2 * u[:, 2:] - 1) * freedom
    return centers


def of_class(name: str, count: int, seed: int) -> np.ndarray:
    """``count`` pictures of one of :func:`classes`. -> (N, 3, S, S) uint8."""
    size, color, kind = name.split("_")
    sizes = np.full(count, list(SIZES).index(size))
    colors = np.full(count, list(COLORS).index(color))
    where = places(derive_seed(seed, classes().index(name)), sizes)
    if kind == CROSS:
        return crosses(colors, sizes, where)
    shapes, there = np.full(count, SHAPES.index(kind)), np.ones((count, 1), dtype=bool)
    return drawing.render(Scenes(shapes[:, None], colors[:, None], sizes[:, None], where[:, None], there), IMAGE_SIZE)


def concept() -> Iterator[tuple[np.ndarray, str]]:
    """The pictures of the new shape, (3, S, S) uint8, and their captions."""
    for number, (size, color) in enumerate(LOOKS):
        yield of_class(f"{size}_{color}_{CROSS}", len(LOOKS), seed=2)[number], f"a {size} {color} {WORD}"


def write_concept(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (pixels, caption) in enumerate(concept()):
        save(pixels, folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{caption}\n", encoding="utf-8")


def write_classes(folder: Path, count: int, seed: int) -> None:
    """``count`` pictures of each class."""
    for name in classes():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(of_class(name, count, seed)):
            save(pixels, folder / name / f"{number}.png")


def save(pixels: np.ndarray, path: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels.transpose(1, 2, 0)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=50, help="training pictures of a class; a fifth are held out")
    typed = parser.parse_args()
    write_concept(typed.folder / "concept")
    write_classes(typed.folder / "train", typed.count, seed=0)
    write_classes(typed.folder / "val", max(1, typed.count // 5), seed=1)


if __name__ == "__main__":
    main()
