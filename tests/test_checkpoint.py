"""Checkpoints: whole or not there, and never run."""

import math
import os
import pickle
import random
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from genlab.checkpoint import read
from genlab.checkpoint.read import load, saved
from genlab.checkpoint.write import AtomicCheckpointIO, expected_bytes
from genlab.errors import CheckpointError, NumericsError, StorageError
from genlab.files.atomic import remove_partial_files, write_atomically
from genlab.run import run_folder
from genlab.run.load import load_run
from tiny_run import popen, same, train

STATE = {"state_dict": {"w": torch.arange(3000.0)}, "epoch": 3, "name": "x", "rates": [0.1, None]}


def save(state: Any, path: Path) -> Path:
    AtomicCheckpointIO().save_checkpoint(state, path)
    return path


def test_round_trip(tmp_path: Path) -> None:
    assert same(load(save(STATE, tmp_path / "a" / "b.ckpt")), STATE)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = save(STATE, tmp_path / "a.ckpt")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert same(load(path), STATE)
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize("room", range(0, 16000, 1500))
def test_a_full_disk_is_one_line(room: int, tmp_path: Path) -> None:
    class FullDisk:
        def __init__(self, file: Any):
            self.file, self.room = file, room

        def write(self, content: bytes) -> int:
            self.room -= len(content)
            if self.room < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(content)

        def flush(self) -> None:
            self.file.flush()

    path = save(STATE, tmp_path / "a.ckpt")
    if room >= path.stat().st_size:
        return
    with pytest.raises(StorageError, match=r"cannot write to .* \(no space left on device\)") as caught:
        write_atomically(path, lambda file: torch.save(STATE, FullDisk(file)))
    assert caught.value.exit_code == 4
    assert same(load(path), STATE)
    assert os.listdir(tmp_path) == ["a.ckpt"]


@pytest.mark.parametrize("part", ["state_dict", "ema", "optimizer_states"])
def test_what_is_not_finite_is_not_saved(part: str, tmp_path: Path) -> None:
    content = {"progress": {"examples": 1200}, "state_dict": {"w": torch.ones(3), "n": torch.tensor(3)}, "ema": {},
               "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}]}  # fmt: skip
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    bad = torch.tensor([1.0, math.inf])
    content[part] = [{"state": {0: {"exp_avg_sq": bad}}}] if part == "optimizer_states" else {"w": bad}
    with pytest.raises(NumericsError, match=f"{part} is not finite after 1,200 examples, so it was not saved"):
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / "b.ckpt")
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_room_is_asked_for_before_the_start_and_before_each_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three states of about 16 bytes a weight before the start, one before a save."""
    free: list[int] = []

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free.pop(0) if len(free) > 1 else free[0])

    monkeypatch.setattr("shutil.disk_usage", usage)
    said = r"has 0\.0 MB free; this run's checkpoints need about (\d+\.\d) MB\. Make room, or"
    wanted = []
    for answers in ([10_000], [10**9, 10_000]):
        free[:] = answers
        with pytest.raises(StorageError, match=said) as caught:
            train("model/network=mlp", "model.network.width=300", outputs=tmp_path / "outputs")
        wanted.append(float(re.search(said, str(caught.value))[1]))  # type: ignore[index]
        assert (tmp_path / "outputs").exists() == (len(wanted) == 2)
    assert wanted[0] == pytest.approx(3 * wanted[1], abs=0.2)
    assert caught.value.exit_code == 4
    assert not list(tmp_path.rglob("*.ckpt*"))


def test_a_checkpoint_is_about_as_large_as_expected(tmp_path: Path) -> None:
    run = train("model/network=mlp", "model.network.width=300", outputs=tmp_path)
    model, _ = load_run(DictConfig(run_folder.read_config(run)), run)
    assert saved(run)[0].stat().st_size == pytest.approx(expected_bytes(model), rel=0.1)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.ckpt", lambda file: file.write(b""))


_WRITER = """
import itertools, os, sys
import genlab, torch
from contextlib import suppress
from pathlib import Path
from genlab.checkpoint.read import file_name, saved
from genlab.checkpoint.write import AtomicCheckpointIO
from genlab.files.atomic import remove_partial_files
run = Path(sys.argv[1])
print("ready", flush=True)
for word in sys.stdin:  # a life after each word, until it is killed
    if os.fork() == 0:
        remove_partial_files(run)
        first = int(saved(run)[0].stem.split("=")[1]) if saved(run) else 0
        print(os.getpid(), flush=True)
        for number in itertools.count(first + 1):
            state = {"w": torch.full((1_000_000,), float(number))}
            AtomicCheckpointIO().save_checkpoint(state, run / "checkpoints" / file_name(number))
            for old in saved(run)[2:]:
                old.unlink()
    os.wait()
"""


@pytest.mark.matrix  # a process that starts anew, and twenty copies of it
def test_kills_cost_nothing(tmp_path: Path) -> None:
    """20 SIGKILLs in the middle of writing: the newest checkpoint always loads, and no rubbish piles up."""
    process = popen([sys.executable, "-c", _WRITER, str(tmp_path)])
    assert process.stdin is not None
    assert process.stdout is not None
    chance = random.Random(0)
    process.stdout.readline()
    interrupted = 0
    for _ in range(20):
        process.stdin.write("again\n")
        process.stdin.flush()
        writer = int(process.stdout.readline())
        while not read.saved(tmp_path):
            pass
        signal.sigtimedwait([], chance.uniform(0.005, 0.03))
        os.kill(writer, signal.SIGKILL)
        interrupted += bool(list(tmp_path.rglob("*.partial")))
        newest = read.saved(tmp_path)[0]
        assert load(newest)["w"][0] == int(newest.stem.split("=")[1])
        assert len(list(tmp_path.rglob("*.partial"))) <= 1
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert interrupted, "the kills came at the wrong time: this test has shown nothing"
    remove_partial_files(tmp_path)
    assert not list(tmp_path.rglob(".*"))


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    content = save(STATE, tmp_path / "good.ckpt").read_bytes()
    chance = random.Random(0)
    path = tmp_path / "damaged.ckpt"
    for length in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=rf"damaged.ckpt is damaged \({length} bytes\)"):
            load(path)
    harmless = 0
    for _ in range(100):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with suppress(CheckpointError):
            assert same(load(path), STATE)  # padding
            harmless += 1
    assert harmless < 40


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load(tmp_path / "a.ckpt")


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, "evil.ckpt")
    with pytest.raises(CheckpointError) as caught:
        load(Path("evil.ckpt"))
    assert str(caught.value) == "evil.ckpt contains code (global 'posix.system'); genlab loads weights only."
    assert caught.value.exit_code == 3
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        Path("evil.ckpt").write_bytes(pickle.dumps(Hostile(), protocol))
        with pytest.raises(CheckpointError):
            load(Path("evil.ckpt"))
    assert not Path("executed").exists()


def test_anything_but_plain_values_is_refused(tmp_path: Path) -> None:
    torch.save({"path": tmp_path}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"contains code \(global 'pathlib"):
        load(tmp_path / "a.ckpt")
