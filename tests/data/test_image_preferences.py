"""Preferences between pictures: which files are read, what is left out, and what a batch has."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genlab.data.image_preferences import ImagePreferences
from genlab.errors import ConfigError, DataError


def pictures(folder: Path, count: int = 8) -> None:
    """Picture i is of gray level 10 i."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(folder / f"{i}.png")


def pair(chosen: int, rejected: int, **more: Any) -> dict[str, Any]:
    return {"prompt": "", "chosen": f"drawn/{chosen}.png", "rejected": f"drawn/{rejected}.png", **more}


def data(folder: Path, rows: list[Any], **options: Any) -> ImagePreferences:
    if not (folder / "drawn").exists():
        pictures(folder / "drawn")
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"channels": 1, "cache_dir": str(folder / "cache"), "val_fraction": 0.3, **options}
    return ImagePreferences(str(path), **given)


ROWS = [pair(i, j) for i in range(4) for j in range(4, 8)]


def levels(images: torch.Tensor) -> list[int]:
    return ((images[:, 0, 0, 0] + 1) * 127.5 / 10).round().int().tolist()


def test_a_batch_has_both_pictures(tmp_path: Path) -> None:
    """Of one pair in one row, in [-1, 1]; each pair is on one side, whatever the order of the lines."""
    found = data(tmp_path, ROWS)
    seen = []
    for split in ("train", "val"):
        dataset = found.dataset(split)
        batch = found.on_after_batch_transfer(dataset[[(0, i) for i in range(len(dataset))]], 0)
        assert batch["image"].shape == batch["rejected"].shape == (len(dataset), 1, 4, 4)
        assert not batch["tie"].any()
        seen.append({*zip(levels(batch["image"]), levels(batch["rejected"]), strict=True)})
    assert len(seen[0]) > len(seen[1]) > 0
    assert seen[0] | seen[1] == {(i, j) for i in range(4) for j in range(4, 8)}
    again = data(tmp_path, ROWS[::-1])
    assert {(p.chosen, p.rejected) for p in again._pairs["val"]} == {
        (p.chosen, p.rejected) for p in found._pairs["val"]
    }
    assert found.spec.shape == (1, 4, 4)
    assert not found.spec.condition


def test_what_is_no_preference_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*ROWS, pair(1, 1), pair(2, 3, tie=True), pair(3, 2, tie=True)]
    with caplog.at_level(logging.WARNING):
        found = data(tmp_path, rows)._pairs
    assert sum(map(len, found.values())) == len(ROWS)
    assert "1 of the 19 pairs of pictures have the same picture twice; the first is" in caplog.text
    assert "2 of the 19 pairs of pictures have no better picture (data.ties=half" in caplog.text
    half = data(tmp_path, rows, ties="half")
    assert sum(map(len, half._pairs.values())) == len(ROWS) + 2
    ties = [half.dataset(split).ties.sum() for split in ("train", "val")]  # type: ignore[attr-defined]
    assert sum(ties) == 2


def test_a_change_of_what_was_rejected_changes_the_fingerprint(tmp_path: Path) -> None:
    first = data(tmp_path, ROWS, val_fraction=0.01).fingerprint
    other = data(tmp_path, [pair(i, i + 4) for i in range(4) for _ in range(4)], val_fraction=0.01).fingerprint
    assert first != other


def test_labels_are_conditions(tmp_path: Path) -> None:
    found = data(tmp_path, [{**row, "label": i % 3} for i, row in enumerate(ROWS)], num_classes=3)
    assert found.spec.label is not None
    assert found.spec.label.size == 3
    assert found.dataset("train")[[(0, 0)]]["label"].shape == (1,)


def test_absolute_names_may_lie_below_another_root(tmp_path: Path) -> None:
    """As the export of feedback has them."""
    pictures(tmp_path / "elsewhere/pictures-0")
    names = [str((tmp_path / f"elsewhere/pictures-0/{i}.png").resolve()) for i in range(8)]
    rows = [{"chosen": names[i], "rejected": names[i + 4]} for i in range(4)]
    assert len(data(tmp_path, rows, root=str(tmp_path / "elsewhere"))._pairs["train"]) == 3
    with pytest.raises(DataError, match=r"is no picture below \S+\. Name the folder of all pictures: data\.root="):
        data(tmp_path, rows, root=str(tmp_path / "drawn"))._pairs  # noqa: B018


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "drawn/1.png"}, r"pairs\.jsonl, line 17: there is no rejected picture"),
        (["drawn/1.png", "drawn/2.png"], r"there is no chosen picture"),
        (pair(1, 2, tie="no"), r"tie is 'no', and not true or false"),
        (
            {"chosen": "drawn/1.png", "rejected": "../../etc/passwd"},
            r"rejected is \S+passwd, which is no picture below",
        ),
        ({"chosen": "drawn/1.png", "rejected": "drawn/link.png"}, r"rejected is drawn/link\.png, which is no picture"),
        ({"chosen": "drawn/1.png", "rejected": "drawn/9.png"}, r"rejected is drawn/9\.png, which is no picture below"),
        (pair(1, 2, label=7), r"label is 7, and not a class from 0 to 2"),
        (pair(1, 2), r"label is None, and not a class from 0 to 2"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_by_its_line(row: Any, message: str, tmp_path: Path) -> None:
    """Also one that would read a file outside, by its name or through a link."""
    pictures(tmp_path / "drawn")
    Image.new("L", (4, 4)).save(tmp_path.parent / "outside.png")
    os.symlink(tmp_path.parent / "outside.png", tmp_path / "drawn/link.png")
    options = {"num_classes": 3} if "label" in message else {}
    rows = [{**one, "label": 0} for one in ROWS] + [row]
    with pytest.raises(DataError, match=message):
        data(tmp_path, rows, **options).table("train")


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "has 0 pairs of different pictures"), ([pair(1, 2)], "has 1 pairs"), ([pair(1, 1)] * 3, "has 0 pairs")],
)
def test_too_few_pairs_are_refused(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        data(tmp_path, rows).table("train")


@pytest.mark.parametrize("options", [{"ties": "all"}, {"val_fraction": 1.0}, {"num_classes": 0}])
def test_settings_out_of_range_are_refused(options: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{next(iter(options))}"):
        data(tmp_path, ROWS, **options)
