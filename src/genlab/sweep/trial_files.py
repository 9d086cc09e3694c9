"""Reads a trial's folder, while it runs and afterwards. Only make_ready() and forget() change anything."""

import csv
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genlab.errors import StorageError
from genlab.files.atomic import writing
from genlab.files.lock import LOCK
from genlab.files.regular_file import LARGEST_TABLE, is_regular, open_regular, read_text
from genlab.sweep.metric import Metric

LOG = "trial.log"
MADE = ".trial"  # in every folder that a sweep has made; nothing is deleted where it is not
_TAIL = 64_000  # bytes at the end of a log that are searched for the last line


def is_finished(folder: Path) -> bool:
    return (folder / "summary.json").is_file()


def saved(folder: Path) -> set[str]:
    """The names of its checkpoints."""
    return {path.name for path in (folder / "checkpoints").glob("examples=*.ckpt")}


def can_go_on(folder: Path) -> bool:
    return bool(saved(folder)) and (folder / "config.yaml").exists()


def make_ready(folder: Path) -> bool:
    """Prepare a folder for an attempt: keep a saved state, or empty it except for the log. -> whether there is a
    state to continue from.

    Raises StorageError for one that no sweep has made, unless it needs not be emptied.
    """
    if not os.path.lexists(folder):
        with writing(folder):
            folder.mkdir(parents=True)
            (folder / MADE).touch()
    check_is_own(folder)
    if can_go_on(folder):
        return True
    others = [path for path in folder.iterdir() if path.name not in (LOG, LOCK, MADE)]
    if others and not _is_made_by_a_sweep(folder):
        raise StorageError(
            f"{folder} was not made by a sweep (it has no {MADE}), so it is not emptied for a trial. "
            "Move it away, and repeat the command."
        )
    (folder / MADE).touch()
    for path in others:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return False


def check_is_own(folder: Path) -> None:
    """Raises StorageError if a trial's folder, or a file written there before the trial starts, is a link or of the
    wrong kind."""
    if os.path.lexists(folder) and not stat.S_ISDIR(folder.lstat().st_mode):
        raise StorageError(f"{folder} is not a folder of this sweep but a link or a file. Move it away.")
    for path in (folder / name for name in (LOG, LOCK, MADE)):
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path} is not a file. Move {folder} away.")


def _is_made_by_a_sweep(folder: Path) -> bool:
    return os.path.lexists(folder / MADE) and stat.S_ISREG((folder / MADE).lstat().st_mode)


def forget(folder: Path) -> None:
    """Remove the folder of a trial that has no run."""
    if not folder.is_symlink() and _is_made_by_a_sweep(folder) and not (folder / "config.yaml").exists():
        shutil.rmtree(folder)


def signs_of_life(folder: Path) -> tuple[tuple[int, int], ...]:
    """A value that changes whenever the trial has written something."""
    return tuple(_stamp(folder / name) for name in (LOG, "metrics.csv", "checkpoints", "samples"))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def last_words(folder: Path, since: int, *, error: bool = True) -> str:
    """The last line of the log that is an error, else the last line; of what was printed after byte ``since``."""
    path = folder / LOG
    if not is_regular(path):
        return ""
    with open_regular(path, largest=LARGEST_TABLE) as file:
        end = file.seek(0, 2)
        file.seek(max(since, end - _TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error: ", "rank ")) and "error: " in line]
    return (errors or lines or [""])[-1] if error else (lines or [""])[-1]


def final_value(folder: Path, metric: Metric) -> float | None:
    """The value of a finished trial; None: it was not measured, or is not a number."""
    try:
        summary = json.loads(read_text(folder / "summary.json"))
        value = metric.pick(summary.get("metrics", {}))
    except (OSError, ValueError):
        value = None
    if value is None:
        curve = Curve(folder / "metrics.csv", metric)
        curve.read()
        value = curve.values[-1] if curve.values else None
    return value if value is not None and math.isfinite(value) else None


class Curve:
    """Reads a growing metrics.csv: values of the metric, and the run's progress."""

    def __init__(self, path: Path, metric: Metric | None):
        self.path, self.metric = path, metric
        self._start_over(None)

    def _start_over(self, inode: int | None) -> None:
        self._inode, self._offset = inode, 0
        self._header: list[str] = []
        self.values: list[float] = []  # of the metric, one an evaluation
        self.progress: dict[str, float] = {}  # examples, flops and seconds so far

    def read(self) -> None:
        """Read new lines; all of them if the file was rewritten, e.g. with another column."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return
        if not stat.S_ISREG(found.st_mode):
            return
        if found.st_ino != self._inode or found.st_size < self._offset:
            self._start_over(found.st_ino)
        with open_regular(self.path, largest=LARGEST_TABLE) as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for row in self._rows(whole.decode(errors="replace")):
            self._take(row)

    def _rows(self, text: str) -> Iterator[dict[str, str]]:
        for cells in csv.reader(text.replace("\0", "").splitlines()):
            if not self._header:
                self._header = cells
            elif len(cells) == len(self._header):
                yield dict(zip(self._header, cells, strict=True))

    def _take(self, row: dict[str, Any]) -> None:
        numbers = {name: number for name, cell in row.items() if (number := _number(cell)) is not None}
        for name, number in numbers.items():
            if name.startswith("progress/"):
                self.progress[name.removeprefix("progress/")] = number
        measured = {name: number for name, number in numbers.items() if name.startswith("val/")}
        if self.metric is not None and (value := self.metric.pick(measured)) is not None:
            self.values.append(value)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
