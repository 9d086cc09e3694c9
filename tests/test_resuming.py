"""What a run that goes on may change: what its training depends on only where that is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.data import image
from genlab.data.array import Array
from genlab.errors import CheckpointError, ConfigError
from genlab.run.resume import check_same_data
from tiny_run import MLP, SignalAt, only_run, resume, train


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(Interrupted):
        train(*MLP, "model/schedule=constant", SignalAt.override(48), outputs=tmp_path)
    return only_run(tmp_path)


def group(run: Path) -> dict[str, Any]:
    return read.newest(run).content["optimizer_states"][0]["param_groups"][0]


def test_a_change_that_was_not_allowed_is_refused_and_named(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = sorted(stopped.rglob("*"))
    said = (r"was trained with other settings: data\.batch_size 8 -> 4, model\.optimizer\.lr 0\.002 -> 1e-05\. Leave "
            r"them as they were, start a new run, or continue with them: allow_changes=true\.")  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        resume(stopped, "model.optimizer.lr=1e-5", "data.batch_size=4", "budget.value=200")
    assert capsys.readouterr().out == ""
    assert sorted(stopped.rglob("*")) == before


def test_a_change_that_is_allowed_is_said_and_made(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = read.newest(stopped).state
    steps = read.newest(stopped).content["optimizer_states"][0]["state"][0]["step"]
    resume(stopped, "model.optimizer.lr=1e-30", "model.optimizer.weight_decay=0", allow_changes=True)
    assert "changed:    model.optimizer.lr 0.002 -> 1e-30\n" in capsys.readouterr().out
    after = read.newest(stopped)
    assert after.progress.examples == 104
    assert all(torch.equal(after.state[name], weights[name]) for name in weights)  # at that rate nothing moves
    assert group(stopped)["lr"] == group(stopped)["initial_lr"] == 1e-30
    assert after.content["optimizer_states"][0]["state"][0]["step"] == steps + 6  # the moments went on


def test_another_optimizer_starts_without_a_history(stopped: Path) -> None:
    typed = ("model.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.01, momentum: 0.9}",)
    with pytest.raises(ConfigError, match=r"model\.optimizer\._target_ torch\.optim\.AdamW -> torch\.optim\.SGD"):
        resume(stopped, *typed)
    resume(stopped, *typed, allow_changes=True)
    assert group(stopped)["momentum"] == 0.9
    assert set(read.newest(stopped).content["optimizer_states"][0]["state"][0]) == {"momentum_buffer"}


def test_what_training_does_not_depend_on_may_change(stopped: Path) -> None:
    resume(stopped, "budget.value=120", "evaluation.num_samples=3", "callbacks.samples.times=1",
           "trainer.log_every_n_steps=2", "data.num_workers=1", "metrics=[fid]")  # fmt: skip
    assert read.newest(stopped).progress.examples == 120


def test_the_moving_average_is_a_part_of_the_model(stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.ema\.half_life 500000 -> 10"):
        resume(stopped, "callbacks.ema.half_life=10")


# --- the data ---------------------------------------------------------------------------------------------------------


def write_images(folder: Path, seed: int, count: int = 60, label: int = 0) -> tuple[str, ...]:
    """Random images of 8 x 8, of two classes; ``label`` is that of the first."""
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 8, 8)).astype(np.uint8)
    np.save(folder / "data.npy", drawn)
    np.save(folder / "labels.npy", np.array([label, *(i % 2 for i in range(1, count))]))
    return ("data=array", f"data.path={folder / 'data.npy'}", f"data.label_path={folder / 'labels.npy'}",
            f"data.cache_dir={folder / 'cache'}")  # fmt: skip


def test_other_images_under_the_same_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = write_images(tmp_path, seed=1)
    with pytest.raises(Interrupted):
        train(*MLP, *given, SignalAt.override(48), outputs=tmp_path / "runs")
    run = only_run(tmp_path / "runs")
    kept = read.newest(run).data
    assert kept["shape"] == "40x1x8x8"
    write_images(tmp_path, seed=1)  # a file of another time
    paths = [str(tmp_path / name) for name in ("data.npy", "labels.npy", "cache")]
    assert Array(paths[0], label_path=paths[1], cache_dir=paths[2], limit=40).fingerprint == kept

    for other, said in (
        ({"seed": 2}, "other pixels"),
        ({"seed": 1, "label": 1}, "other labels"),
        ({"seed": 2, "count": 30}, r"other shape 40x1x8x8 -> \d+x1x8x8, pixels, labels"),
    ):
        write_images(tmp_path, **other)
        remedy = r"Put those back, start a new run, or continue with these: allow_changes=true\.$"
        found = rf"^the training data are not those that {run} was trained on: {said}\. {remedy}"
        with pytest.raises(CheckpointError, match=found):
            resume(run)
    with pytest.raises(ConfigError, match=r"model\.optimizer\.lr"):  # what was typed is named first
        resume(run, "model.optimizer.lr=1e-5")

    write_images(tmp_path, seed=2)
    last, data = read.newest(run), Array(paths[0], label_path=paths[1], cache_dir=paths[2], limit=40)
    assert check_same_data(last, data, run, allow=True) == ["pixels"]
    earlier = {key: value for key, value in last.content.items() if key != "data"}  # as it was before there were any
    assert check_same_data(replace(last, content=earlier), data, run, allow=False) == []
    capsys.readouterr()
    resume(run, allow_changes=True)
    assert "changed:    data (other pixels)\n" in capsys.readouterr().out
    now = read.newest(run)
    assert now.progress.examples == 104
    assert {part for part in kept if kept[part] != now.data[part]} == {"pixels"}


def test_of_many_images_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a size all; above, evenly spaced ones, the first and the last among them."""
    images = np.random.default_rng(0).integers(0, 256, (101, 1, 4, 4)).astype(np.uint8)

    def seen() -> list[int]:
        before, found = image._hash_of_pixels(images), []
        for row in range(101):
            images[row, 0, 3, 3] ^= 1
            found += [row] * (image._hash_of_pixels(images) != before)
            images[row, 0, 3, 3] ^= 1
        return found

    assert image._hash_of_pixels(images) == image.content_hash(images)
    assert seen() == list(range(101))
    monkeypatch.setattr(image, "_HASHED_WHOLE", images.nbytes - 1)
    monkeypatch.setattr(image, "_HASHED_ROWS", 11)
    assert seen() == list(range(0, 101, 10))
