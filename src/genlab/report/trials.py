"""Reads a sweep's ``trials.json``: the overrides and the result of each trial."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from genlab.errors import ConfigError
from genlab.report.reading import read_ledger

LEDGER = "trials.json"
STATES = ("waiting", "running", "finished", "pruned", "failed", "illegal", "stopped")


@dataclass(frozen=True)
class Trial:
    number: int
    folder: Path | None  # of its run, which need not be there
    overrides: tuple[str, ...]
    state: str  # one of STATES
    said: str  # in one line; "": nothing
    seconds: float | None
    value: float | None  # of the sweep's metric


@dataclass(frozen=True)
class Sweep:
    folder: Path
    command: str
    metric: str | None
    direction: Literal["lower", "higher"] | None
    trials: tuple[Trial, ...]

    @cached_property
    def varied(self) -> list[str]:
        """The names of the overrides that not all trials share."""
        settings = [given(trial) for trial in self.trials]
        names = dict.fromkeys(name for own in settings for name in own)
        return [name for name in names if len({own.get(name) for own in settings}) > 1]


def given(trial: Trial) -> dict[str, str]:
    """A trial's overrides by name."""
    return {name: value for name, _, value in (override.partition("=") for override in trial.overrides)}


def read_sweep(folder: Path) -> Sweep | None:
    """The sweep whose folder this is, if it is one's. Raises ConfigError for a ledger that is damaged."""
    path = folder / LEDGER
    if not os.path.lexists(path):
        return None
    content = read_ledger(path)
    trials, direction = content.get("trials"), content.get("direction")
    if not isinstance(trials, list) or direction not in ("lower", "higher", None):
        raise ConfigError(f"{path}: not what a sweep writes (no trials, or an unknown direction).")
    metric = content.get("metric")
    read = tuple(_trial(entry, folder, path) for entry in trials)
    return Sweep(folder, str(content.get("command", "")), None if metric is None else str(metric), direction, read)


def _trial(entry: Any, folder: Path, path: Path) -> Trial:
    """Raises ConfigError for an entry that no sweep writes; a name that leads out of the sweep's folder is one."""
    if not isinstance(entry, dict) or entry.get("state") not in STATES or not isinstance(entry.get("number"), int):
        raise ConfigError(f"{path}: not what a sweep writes (a trial without a number or a state).")
    overrides, name = entry.get("overrides"), entry.get("folder")
    if not isinstance(overrides, list) or (name is not None and not _is_name(name)):
        raise ConfigError(f"{path}: not what a sweep writes (trial {entry['number']} has no overrides, or no folder).")
    return Trial(
        number=entry["number"],
        folder=folder / name if name else None,
        overrides=tuple(map(str, overrides)),
        state=entry["state"],
        said=" ".join(str(entry.get("said") or "").split()),
        seconds=_number(entry.get("seconds")),
        value=_number(entry.get("value")),
    )


def _is_name(name: Any) -> bool:
    """Whether it is that of a folder right below the sweep's."""
    return isinstance(name, str) and Path(name).name == name != ".." and len(name) < 256 and "\0" not in name


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def known(sweeps: Sequence[Sweep]) -> dict[Path, Trial]:
    """The trials that have a folder on disk, by where it is."""
    return {
        trial.folder.resolve(): trial
        for sweep in sweeps
        for trial in sweep.trials
        if trial.folder is not None and trial.folder.is_dir()
    }
