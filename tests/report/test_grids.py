"""The picture of all runs' samples: where the tiles lie, that the newest grid is taken, that captions are there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import make_run

from genlab.report.grids import GAP, HEIGHTS, side_by_side
from genlab.report.runs import read_run

COLORS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (200, 0, 200), (0, 200, 200), (160, 160, 0)]


def grid(folder: Path, i: int, size: tuple[int, int] = (300, 300)) -> Path:
    path = folder / f"{i}.png"
    Image.new("RGB", size, COLORS[i]).save(path)
    return path


def boxes(picture: Path, count: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of each color's tile."""
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    found = []
    for color in COLORS[:count]:
        y, x = np.nonzero((pixels == color).all(axis=-1))
        found.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    return found


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 2), (4, 4), (5, 3), (6, 3)])
def test_tiles_wrap_evenly(tmp_path: Path, count: int, across: int) -> None:
    side_by_side([(f"run {i}", "fid 1.0", grid(tmp_path, i)) for i in range(count)], tmp_path / "out.png")
    found = boxes(tmp_path / "out.png", count)
    rows = sorted({top for _, top, _, _ in found})
    assert len(rows) == -(-count // across)
    for i, (left, top, right, bottom) in enumerate(found):
        assert (right - left, bottom - top) == (300, 300)
        assert left == GAP + (i % across) * (300 + GAP)
        assert top == rows[i // across]


def test_tiles_have_one_height_and_their_own_shape(tmp_path: Path) -> None:
    sizes = [(300, 300), (600, 150), (100, 200)]
    side_by_side([("run", "", grid(tmp_path, i, size)) for i, size in enumerate(sizes)], tmp_path / "out.png")
    found = boxes(tmp_path / "out.png", 3)
    assert [(right - left, bottom - top) for left, top, right, bottom in found] == [(300, 300), (1200, 300), (150, 300)]
    assert found[0][2] < found[1][0]
    assert found[1][2] < found[2][0]


@pytest.mark.parametrize(("height", "shown"), [(30, HEIGHTS[0]), (2000, HEIGHTS[1])])
def test_tiny_grids_are_enlarged_and_huge_ones_shrunk(tmp_path: Path, height: int, shown: int) -> None:
    side_by_side([("run", "", grid(tmp_path, 0, (height, height)))], tmp_path / "out.png")
    ((_, top, _, bottom),) = boxes(tmp_path / "out.png", 1)
    assert bottom - top == shown


def test_captions_stand_above_their_tile_and_keep_its_width(tmp_path: Path) -> None:
    names = ["a name that is far too long for one line above a tile and must wrap", "x" * 100]
    side_by_side([(name, "fid 1.0", grid(tmp_path, i)) for i, name in enumerate(names)], tmp_path / "out.png")
    ink = np.asarray(Image.open(tmp_path / "out.png").convert("L")) < 128
    for left, top, right, _ in boxes(tmp_path / "out.png", 2):
        lines = ink[:top, left:right].any(axis=1)
        assert np.count_nonzero(np.diff(lines.astype(int)) == 1) >= 3  # two lines of the name or more, and the metric
    (_, top, right, _), (left, _, _, _) = boxes(tmp_path / "out.png", 2)
    assert not ink[:top, right + 1 : left].any()


def test_a_run_without_a_grid_keeps_its_place(tmp_path: Path) -> None:
    tiles = [("none", "fid 1.0", None), ("run", "fid 2.0", grid(tmp_path, 0))]
    side_by_side(tiles, tmp_path / "out.png")
    assert boxes(tmp_path / "out.png", 1)[0][0] == GAP + 240 + GAP


def test_the_newest_grid_of_training_is_taken(tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path / "a")).grid == tmp_path / "a" / "samples" / "examples=000000064000.png"
    assert read_run(make_run(tmp_path / "b", color=None)).grid is None
