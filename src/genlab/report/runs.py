"""Run folders as they lie on disk, a cluster's copy as well as one's own. Nothing is built, nothing in them changed."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genlab.errors import ConfigError
from genlab.paths import read_path
from genlab.report.measurement import (
    Measurement,
    contradict,
    differences,
    joined,
    numbers,
    read_mapping,
    read_measurement,
)
from genlab.report.trials import Sweep, read_sweep

BUDGETS = {"Examples": "examples", "Flops": "flops", "Seconds": "seconds"}  # class -> its column in metrics.csv
COSTS = ("parameters", "seconds", "examples", "flops", "peak_memory_bytes", "samples_per_second",
         "evaluations_per_sample")  # fmt: skip


@dataclass(frozen=True)
class Run:
    folder: Path
    config: dict[str, Any]
    costs: dict[str, float] | None  # by the names of COSTS; None: the run has not finished
    measurements: dict[str, Measurement]  # by protocol id; that at the end of training first
    stale: tuple[str, ...]  # evaluation files that contradict the run's own end
    hardware: str | None

    @property
    def data(self) -> str:
        """The class of its data."""
        return self.config["data"]["_target_"].rpartition(".")[2]

    @property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def grid(self) -> Path | None:
        """The newest sample grid of training."""
        return max(self.folder.glob("samples/examples=*.png"), key=lambda path: path.name, default=None)

    @property
    def budget(self) -> tuple[str, Any]:
        """Its currency, as metrics.csv calls it, and how much of it."""
        budget = self.config.get("budget")
        budget = budget if isinstance(budget, dict) else {}
        return BUDGETS.get(str(budget.get("_target_")).rpartition(".")[2], "examples"), budget.get("value")

    def state(self) -> str:
        """How far an unfinished run came, in the currency of its budget."""
        currency, value = self.budget
        used = _last(self.folder / "metrics.csv", f"progress/{currency}")
        if used is None:
            return "no step recorded"
        if not isinstance(value, int | float) or value <= 0:
            return f"{_count(used)} {currency}"
        return f"{_count(used)} of {_count(value)} {currency} ({used / value:.0%})"


def read_runs(places: Sequence[str]) -> list[Run]:
    """The runs in ``places``, each a run folder or a folder that holds some at any depth. Raises ConfigError."""
    return read_places(places)[0]


def read_places(places: Sequence[str]) -> tuple[list[Run], list[Sweep]]:
    """The runs in ``places``, and the sweeps, which may have made none yet. Raises ConfigError."""
    found: dict[Path, Path] = {}
    swept: dict[Path, Sweep] = {}
    for place in places:
        folders, sweeps = _find(read_path(place))
        if not folders and not sweeps:
            raise ConfigError(f"runs={place}: there is no run here (no config.yaml, at any depth)."
                              if read_path(place).is_dir() else f"runs={place}: there is no such folder.")  # fmt: skip
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
        for sweep in sweeps:
            swept.setdefault(sweep.folder.resolve(), sweep)
    return [read_run(folder) for folder in found.values()], list(swept.values())


def _find(place: Path) -> tuple[list[Path], list[Sweep]]:
    """Run folders below ``place``, sorted, and sweeps. What is inside of a run is none: wandb/ has a config.yaml."""
    found, sweeps = [], []
    for root, folders, files in os.walk(place):
        folders.sort()
        if "config.yaml" in files:
            found.append(Path(root))
            folders.clear()
        elif sweep := read_sweep(Path(root)):
            sweeps.append(sweep)
        folders[:] = [name for name in folders if not name.startswith(".") and name != "wandb"]
    return found, sweeps


def read_run(folder: Path) -> Run:
    """Raises ConfigError for a file that is not what a run writes."""
    config = read_mapping(folder / "config.yaml", yaml.safe_load)
    parts = [config.get(name) for name in ("model", "data")]
    if not all(isinstance(part, dict) and isinstance(part.get("_target_"), str) for part in parts):
        raise ConfigError(f"{folder}: its config.yaml is not that of a run (no model or no data in it).")
    summary = read_mapping(folder / "summary.json", json.loads) if (folder / "summary.json").exists() else None
    measurements: dict[str, Measurement] = {}
    if summary is not None and summary.get("protocol_id"):
        measurements[str(summary["protocol_id"])] = read_measurement(summary, folder / "summary.json")
    stale = []
    for path in sorted(folder.glob("evaluation-*.json")):
        report = read_mapping(path, json.loads)
        if report.get("changed"):  # the run's weights, but sampled in another way than the run itself
            continue
        later, key = read_measurement(report, path), str(report.get("protocol_id"))
        first = measurements.setdefault(key, later)
        if differences(first.protocol, later.protocol):  # the id leaves out the settings of metrics: the later choice
            measurements[key] = later
        elif contradict(first.values, later.values):
            stale.append(path.name)
        else:
            measurements[key] = joined(first, later)
    costs = None if summary is None else numbers({k: summary[k] for k in COSTS if summary.get(k) is not None},
                                                  folder / "summary.json")  # fmt: skip
    return Run(folder, config, costs, measurements, tuple(stale), _hardware(folder / "versions.json"))


def _hardware(path: Path) -> str | None:
    """What the run ran on: its GPUs, or its processor."""
    hardware = read_mapping(path, json.loads).get("hardware") if path.exists() else None
    if not isinstance(hardware, dict):
        return None
    gpus = hardware.get("gpus")
    if isinstance(gpus, list) and gpus:
        return f"{len(gpus)} x {gpus[0]}"
    return f"{hardware.get('cpu')}, {hardware.get('cores')} cores"


def _last(path: Path, column: str) -> float | None:
    """The last number in a column of a CSV that may end in half a line."""
    if not path.exists():
        return None
    last = None
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(line.replace("\0", "") for line in file if line.endswith("\n")):
            try:
                last = float(row.get(column) or "")
            except ValueError:
                continue
    return last


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < 1e9 else f"{number:.3g}"
