"""Run folders that a stranger made: nothing outside of them is read or written, nothing waits, and each is one line."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny_run
from genlab.checkpoint import read
from genlab.cli import _exit_code

CANARY = "canary: a file of the user's\n"
SAMPLE, GO_ON = ("sample", "n=2"), ("train", "budget.value=40")
SHOW = (*GO_ON, "callbacks.samples.times=1")
NEW = "examples=000000000024.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("trained")
    return tiny_run.train(*tiny_run.MLP, "budget.value=24", "callbacks.checkpoint.every_minutes=0", outputs=outputs)


@pytest.fixture
def place(tmp_path: Path, trained: Path) -> Iterator[Path]:
    """A folder with the run in ``run``, and what must stay as it is in ``outside``. What waits is ended."""
    shutil.copytree(trained, tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(CANARY)

    def waited(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == CANARY


def link(name: str, to: str = "outside/file") -> Callable[[Path], None]:
    def make(run: Path) -> None:
        _take_away(run / name)
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).symlink_to(to if to.startswith("/") else run.parent / to)

    return make


def fifo(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        _take_away(run / name)
        os.mkfifo(run / name)

    return make


def folder(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        _take_away(run / name)
        (run / name).mkdir()

    return make


def unix_socket(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        _take_away(run / name)
        here = Path.cwd()
        os.chdir(run)  # a path of a socket has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
        os.chdir(here)

    return make


def sparse(name: str) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        with (run / name).open("wb") as file:
            file.truncate(1 << 42)

    return make


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text(content) and None


def sharded(run: Path) -> None:
    """A checkpoint in pieces, one of which is elsewhere."""
    path = run / "checkpoints" / NEW
    path.unlink()
    path.mkdir()
    (path / "content.ckpt").symlink_to(run.parent / "outside" / "file")


def _take_away(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def partial(name: str) -> str:
    return f"{name}.{os.getpid()}.partial"


ESCAPES = "examples=999999999999\x1b]0;owned\x07\x1b[2J.ckpt"
HOSTILE: dict[str, tuple[Callable[[Path], None], tuple[str, ...], int]] = {
    "samples elsewhere, sampled": (link("samples", "outside"), SAMPLE, 4),
    "samples elsewhere, trained": (link("samples", "outside"), SHOW, 4),
    "samples is a file": (text("samples", ""), SAMPLE, 4),
    "checkpoints elsewhere": (link("checkpoints", "outside"), GO_ON, 4),
    "wandb elsewhere": (link("wandb", "outside"), GO_ON, 4),
    "config elsewhere": (link("config.yaml"), SAMPLE, 4),
    "config a FIFO": (fifo("config.yaml"), SAMPLE, 4),
    "config endless": (link("config.yaml", "/dev/zero"), SAMPLE, 4),
    "config of 4 TB": (sparse("config.yaml"), SAMPLE, 3),
    "overrides elsewhere": (link("overrides.yaml"), SAMPLE, 4),
    "versions a device": (link("versions.json", "/dev/random"), GO_ON, 4),
    "command.txt elsewhere": (link("command.txt"), GO_ON, 4),
    "command.txt of 4 TB": (sparse("command.txt"), GO_ON, 4),
    "summary a FIFO": (fifo("summary.json"), GO_ON, 4),
    "summary a folder": (folder("summary.json"), GO_ON, 4),
    "metrics a FIFO": (fifo("metrics.csv"), GO_ON, 4),
    "metrics a socket": (unix_socket("metrics.csv"), GO_ON, 4),
    "metrics elsewhere": (link("metrics.csv"), GO_ON, 4),
    "metrics of 4 TB": (sparse("metrics.csv"), GO_ON, 4),
    "metrics that compute": (text("metrics.csv", "step,x\n1,=1+1\n"), GO_ON, 4),
    "lock elsewhere": (link(".lock"), GO_ON, 4),
    "lock a FIFO": (fifo(".lock"), GO_ON, 4),
    "newest checkpoint a FIFO": (fifo(f"checkpoints/{NEW}"), SAMPLE, 0),
    "newest checkpoint endless": (link(f"checkpoints/{NEW}", "/dev/zero"), SAMPLE, 0),
    "newest checkpoint of 4 TB": (sparse(f"checkpoints/{NEW}"), SAMPLE, 0),
    "a shard elsewhere": (sharded, SAMPLE, 0),
    "newest endless": (link("checkpoints/newest", "/dev/zero"), SAMPLE, 0),
    "newest a FIFO": (fifo("checkpoints/newest"), SAMPLE, 0),
    "newest steers the terminal": (text("checkpoints/newest", ESCAPES), SAMPLE, 0),
    "newest leads up": (text("checkpoints/newest", "examples=../../outside/file"), SAMPLE, 0),
    "what is written lies elsewhere": (
        lambda run: [link(name)(run) for name in (
            "checkpoints/newest", ".old.1.partial", "samples/examples=000000000024.png",
            "samples/examples=000000000040.png", partial("checkpoints/.examples=000000000040.ckpt"),
            partial(".config.yaml"), partial(".metrics.csv"), ".seal", ".rank-1.error")] and link(
                "samples/.folder.2.partial", "outside")(run),
        SHOW, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_reaches_nothing_outside(kind: str, place: Path, capfd) -> None:
    make, (command, *options), code = HOSTILE[kind]
    make(place / "run")
    assert _exit_code([command, f"run={place / 'run'}", *options]) == code
    said = capfd.readouterr()
    assert "canary" not in said.out + said.err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said.out + said.err)
    lines = said.err.splitlines()
    assert all(line.startswith(("error: ", "warning: ", "training ")) for line in lines)
    assert code == 0 or len(lines) == 1
    assert code or not list((place / "run").rglob("*.partial"))


def test_a_folder_that_is_deleted_in_mid_run_is_missed(tmp_path: Path, capfd) -> None:
    for emptied, name in ((False, "deleted"), (True, "emptied")):
        folder = tmp_path / name
        loses = f"+callbacks.loses={{_target_: test_hostile_folders.Loses, folder: '{folder}', emptied: {emptied}}}"
        typed = tiny_run.command(*tiny_run.MLP, f"folder={folder}", loses, outputs=tmp_path)
        assert _exit_code(["train", *typed]) == 4
        said = capfd.readouterr()
        assert f"{folder}" in said.err.splitlines()[-1]
        assert "deleted" in said.err.splitlines()[-1]
        assert "finished" not in said.out
        assert not (folder / "config.yaml").exists()


class Loses(tiny_run.Callback):
    """Deletes the run folder, or what is in it, in the second step."""

    def __init__(self, folder: str, emptied: bool):
        self.folder, self.emptied = Path(folder), emptied

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.progress.examples == 8:
            shutil.rmtree(self.folder)
            if self.emptied:
                self.folder.mkdir()


def test_names_of_runs_do_not_steer_the_terminal(place: Path, capfd) -> None:
    run = place / "run\x1b]0;owned\x07\x1b[31m\x9b2J"
    (place / "run").rename(run)
    typed = str(run).replace("'", "\\'")
    assert _exit_code(["sample", f"run='{typed}'", "n=2"]) == 0
    assert _exit_code(["train", f"run='{typed}'", "budget.value=40"]) == 0
    said = capfd.readouterr()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said.out + said.err)


def test_newest_is_still_missed(place: Path, capfd) -> None:
    (place / "run" / "checkpoints" / NEW).unlink()
    assert read.newest(place / "run").progress.examples < 24
    assert f"{NEW} is missing" in capfd.readouterr().err


def test_thousands_of_damaged_checkpoints_are_not_all_tried(place: Path, capfd) -> None:
    for examples in range(100, 2100):
        (place / "run" / "checkpoints" / f"examples={examples:012d}.ckpt").touch()
    assert _exit_code(["sample", f"run={place / 'run'}", "n=2"]) == 3
    said = capfd.readouterr().err.splitlines()
    assert len(said) <= 102
    assert said[-1].startswith("error: ")
