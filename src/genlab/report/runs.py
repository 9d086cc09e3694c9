"""Reads run folders, without building or changing anything."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from genlab.config.renamed import with_current_names
from genlab.config.renamed_options import modern
from genlab.errors import ConfigError
from genlab.files.paths import read_path
from genlab.progress import progress
from genlab.redaction import one_line
from genlab.report.logged import Logged, read_logged
from genlab.report.measurement import Measurement, contradict, differences, joined, numbers, read_measurement
from genlab.report.picture_file import NAME
from genlab.report.reading import read_json, read_texts, read_yaml
from genlab.report.trials import LEDGER, Sweep, read_sweep

BUDGETS = {"Examples": "examples", "Flops": "flops", "Seconds": "seconds"}  # class -> its column in metrics.csv
COSTS = ("parameters", "seconds", "examples", "flops", "peak_memory_bytes", "samples_per_second",
         "evaluations_per_sample")  # fmt: skip
MOST_EVALUATIONS = 1_000  # of a run
LONGEST = 200  # characters of the name of what it ran on
Read = TypeVar("Read")


@dataclass(frozen=True)
class Run:
    folder: Path
    config: dict[str, Any]
    costs: dict[str, float] | None  # by the names of COSTS; None: the run has not finished
    measurements: dict[str, Measurement]  # by protocol id; that at the end of training first
    stale: tuple[str, ...]  # evaluation files that contradict the run's own end
    hardware: str | None
    typed: frozenset[str] | None = None  # paths of the settings that were typed for it; None: nobody knows
    pretraining: dict[str, float] | None = None  # examples and FLOPs of what it began with; None: unknown, or random
    num_train: int | None = None  # training examples that there are; None: unknown

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
        grids = (path for path in self.folder.glob("samples/examples=*.png") if NAME.fullmatch(path.name))
        return max(grids, key=lambda path: path.name, default=None)

    @cached_property
    def logged(self) -> Logged:
        """What it logged, read once."""
        return read_logged(self.folder)

    @property
    def budget(self) -> tuple[str, Any]:
        """Its currency, as metrics.csv calls it, and how much of it."""
        budget = self.config.get("budget")
        budget = budget if isinstance(budget, dict) else {}
        return BUDGETS.get(str(budget.get("_target_")).rpartition(".")[2], "examples"), budget.get("value")

    def state(self) -> str:
        """How far an unfinished run came, in the currency of its budget."""
        currency, value = self.budget
        used = self.logged.latest.get(currency)
        if used is None:
            return "no step recorded"
        if not isinstance(value, int | float) or value <= 0:
            return f"{_count(used)} {currency}"
        return f"{_count(used)} of {_count(value)} {currency} ({used / value:.0%})"


@dataclass(frozen=True)
class Found:
    """What is in some folders. ``left_out``: a line for each run and sweep that cannot be read, which names it."""

    runs: list[Run] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)  # which may have made no run yet
    left_out: list[str] = field(default_factory=list)


def read_runs(places: Sequence[str]) -> list[Run]:
    """The runs in ``places``, each a run folder or a folder with runs at any depth. Raises ConfigError, also if
    one of them cannot be read."""
    found = read_places(places)
    if found.left_out:
        raise ConfigError(found.left_out[0])
    return found.runs


def read_places(places: Sequence[str]) -> Found:
    """What can be read in ``places``, each once; what cannot is left out. Raises ConfigError if there is nothing."""
    found = Found()
    seen: set[Path] = set()
    for place in places:
        folders, swept = _find(read_path(place))
        if not folders and not swept:
            raise ConfigError(
                f"runs={place}: there is no run here (no config.yaml, at any depth)."
                if read_path(place).is_dir()
                else f"runs={place}: there is no such folder."
            )
        with progress(f"reading {len(folders):,} runs in {place}", len(folders)) as advance:
            for folder in folders:
                if (real := folder.resolve()) not in seen:
                    seen.add(real)
                    found.runs.extend(_attempt(read_run, folder, found.left_out))
                advance(1)
        for folder in swept:
            if (real := folder.resolve() / LEDGER) not in seen:
                seen.add(real)
                found.sweeps.extend(sweep for sweep in _attempt(read_sweep, folder, found.left_out) if sweep)
    if not found.runs and not found.sweeps:
        raise ConfigError(found.left_out[0])
    return found


def _attempt(read: Callable[[Path], Read], folder: Path, left_out: list[str]) -> list[Read]:
    """What ``read`` gives, alone in a list; none if it raises. Untrusted files fail in many ways, and
    one of them must not stop the comparison of the rest: any error is reported for this folder."""
    try:
        return [read(folder)]
    except ConfigError as error:
        left_out.append(str(error))
    except Exception as error:
        said = one_line(error) or type(error).__name__
        left_out.append(f"{folder}: not what genlab writes ({type(error).__name__}: {said[:200]}).")
    return []


def _find(place: Path) -> tuple[list[Path], list[Path]]:
    """Run folders below ``place``, sorted, and those with a ledger. What is inside of a run is none: wandb/ has a
    config.yaml."""
    found, swept = [], []
    for root, folders, files in os.walk(place):
        folders.sort()
        if "config.yaml" in files:
            found.append(Path(root))
            folders.clear()
        elif LEDGER in files:
            swept.append(Path(root))
        folders[:] = [name for name in folders if not name.startswith(".") and name != "wandb"]
    return found, swept


def read_run(folder: Path) -> Run:
    """Raises ConfigError for a file that is not what a run writes."""
    config = with_current_names(read_yaml(folder / "config.yaml"))
    parts = [config.get(name) for name in ("model", "data")]
    if not all(isinstance(part, dict) and isinstance(part.get("_target_"), str) for part in parts):
        raise ConfigError(f"{folder}: its config.yaml is not a run's (it lacks the model or the data).")
    summary = read_json(folder / "summary.json") if os.path.lexists(folder / "summary.json") else None
    measurements: dict[str, Measurement] = {}
    if summary is not None and summary.get("protocol_id"):
        measurements[str(summary["protocol_id"])] = read_measurement(summary, folder / "summary.json")
    stale = []
    for path in sorted(folder.glob("evaluation-*.json"))[:MOST_EVALUATIONS]:
        report = read_json(path)
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
    costs = (
        None
        if summary is None
        else numbers({k: summary[k] for k in COSTS if summary.get(k) is not None}, folder / "summary.json")
    )
    return Run(
        folder,
        _as_told(modern(config)),
        costs,
        measurements,
        tuple(stale),
        _hardware(folder / "versions.json"),
        _typed(folder / "overrides.yaml"),
        _pretraining(config.get("start"), folder / "config.yaml"),
        _num_train(summary),
    )


def _pretraining(start: Any, path: Path) -> dict[str, float] | None:
    if not isinstance(start, dict) or any(start.get(name) is None for name in ("examples", "flops")):
        return None
    return numbers({name: start[name] for name in ("examples", "flops")}, path)


def _num_train(summary: dict[str, Any] | None) -> int | None:
    found = (summary or {}).get("num_train")
    return found if type(found) is int and found > 0 else None


def _as_told(config: dict[str, Any]) -> dict[str, Any]:
    """A config as runs are told apart by it: what came from elsewhere stands there by its place alone."""
    told = {name: value for name, value in config.items() if name not in ("portable", "start")}
    start, pretrained = config.get("start"), config.get("pretrained")
    if isinstance(start, dict):
        told["start"] = {name: start[name] for name in ("only", "freeze", "adapter") if start.get(name)}
        named = f"{str(start.get('sha256'))[:6]}-{Path(str(start.get('where'))).name}"  # two folders may have one name
        told["start"] = {"where": named, **told["start"]} if told["start"] else named
    if isinstance(pretrained, dict):
        told["pretrained"] = {
            str(path).removeprefix("model."): entry.get("where") if isinstance(entry, dict) else entry
            for path, entry in pretrained.items()
            if not str(path).startswith("metrics.")
        }
    return told


def _typed(path: Path) -> frozenset[str] | None:
    """What overrides name, as paths in a config. One that ends in a dot is all below: ``model.network={...}``. A file
    that cannot be read is as none: its run is compared all the same, and its label says more."""
    try:
        overrides = read_texts(path)
    except ConfigError:
        return None
    found = set()
    for override in overrides:
        name, _, value = override.partition("=")
        name = name.strip().lstrip("+~").partition("@")[0].replace("/", ".")
        found |= {name, f"{name}."} if value.lstrip().startswith("{") else {name}
    return frozenset(found)


def _hardware(path: Path) -> str | None:
    """What the run ran on: its GPUs, or its processor."""
    hardware = read_json(path).get("hardware") if os.path.lexists(path) else None
    if not isinstance(hardware, dict):
        return None
    gpus = hardware.get("gpus")
    if isinstance(gpus, list) and gpus:
        return f"{len(gpus)} x {gpus[0]}"[:LONGEST]
    return f"{hardware.get('cpu')}, {hardware.get('cores')} cores"[:LONGEST]


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < 1e9 else f"{number:.3g}"
