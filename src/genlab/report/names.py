"""Short names of compared runs: the family, then other settings that differ."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genlab.report.runs import Run

WIDEST = 48  # characters
# Output places, displays and evaluation settings (part of the protocol) do not make it another model.
LEFT_OUT = ("run_dir", "run_id", "outputs", "logger", "dry_run", "spec", "metrics", "evaluation", "task",
            "model.told", "callbacks.samples", "callbacks.evaluation", "callbacks.checkpoint", "callbacks.progress",
            "trainer.log_every_n_steps", "trainer.accelerator", "data.num_workers", "data.root",
            "data.val_root")  # fmt: skip
ORDER = ("model", "budget", "data", "seed", "trainer", "callbacks")
ABSENT = object()


@dataclass
class Difference:
    """A setting that differs between runs."""

    path: str
    values: list[str]  # in each run; "": it has no such setting
    is_part: bool  # a class rather than a value
    name: str = ""  # the end of the path, as long as it takes to tell it from others

    def follows(self, other: "Difference") -> bool:
        """Whether it has the other's name and, wherever it is at all, its values."""
        pairs = zip(self.values, other.values, strict=True)
        return self.name == other.name and all(own in ("", theirs) for own, theirs in pairs)

    def of(self, run: int) -> list[str]:
        return [f"{self.name}={self.values[run]}"] if self.values[run] else []


def names(runs: Sequence[Run]) -> tuple[list[str], list[Difference]]:
    """A unique name for each run, and the differences that did not fit into the names."""
    if not runs:
        return [], []
    families = [class_name(run.config["model"]) for run in runs]
    found = differences([run.config for run in runs])

    def joined(count: int) -> list[str]:
        """The families with the first differences."""
        return [
            " ".join([family, *(word for d in found[:count] for word in d.of(i))]) for i, family in enumerate(families)
        ]

    told_apart = len(set(joined(len(found))))
    enough = next(n for n in range(len(found) + 1) if len(set(joined(n))) == told_apart)
    fitting = [n for n in range(len(found) + 1) if max(map(len, joined(n))) <= WIDEST]
    used = max([enough, *fitting])
    return _unique(joined(used), runs), found[used:]


def _unique(found: list[str], runs: Sequence[Run]) -> list[str]:
    """Runs of one config are told apart by the end of their folder's name, or else by a number."""
    folders = [printable(run.folder.resolve().name.rpartition("-")[2]) for run in runs]
    for tails in (folders, [str(i + 1) for i in range(len(runs))]):
        count = Counter(found)
        found = [f"{name} {tail}" if count[name] > 1 else name for name, tail in zip(found, tails, strict=True)]
    return found


def differences(configs: Sequence[Any]) -> list[Difference]:
    """All settings that differ: the model's first, parts before values; a value that others follow (seed) once."""
    found: dict[str, Difference] = {}
    _walk(configs, "", found)
    kept: dict[tuple[str, ...], Difference] = {}
    for difference in sorted(found.values(), key=_rank):
        difference.name = difference.path.rpartition(".")[2]
        if not any(difference.follows(other) for other in kept.values()):
            kept.setdefault((difference.name, *difference.values), difference)
    count = Counter(difference.name for difference in kept.values())
    for difference in kept.values():
        if count[difference.name] > 1:
            difference.name = ".".join(difference.path.split(".")[-2:])
    return list(kept.values())


def _walk(nodes: Sequence[Any], path: str, found: dict[str, Difference]) -> None:
    """Add what differs at ``path`` and below. Of parts of different classes, only those of one class are compared."""
    if any(path == name or path.startswith(f"{name}.") for name in LEFT_OUT) or all(n == nodes[0] for n in nodes):
        return
    if not any(isinstance(node, dict) for node in nodes):
        found[path] = Difference(path, ["" if node is ABSENT else short(node) for node in nodes], is_part=False)
        return
    classes = [class_name(node) if isinstance(node, dict) else "" if node is ABSENT else short(node) for node in nodes]
    if len(set(classes)) > 1 and path != "model":  # the model's class, the family, leads the name anyway
        found[path] = Difference(path, classes, is_part=True)
    for name in dict.fromkeys(classes):
        alike = [i for i, other in enumerate(classes) if other == name and isinstance(nodes[i], dict)]
        below: dict[str, Difference] = {}
        for child in dict.fromkeys(str(key) for i in alike for key in nodes[i] if key != "_target_"):
            _walk([nodes[i].get(child, ABSENT) for i in alike], f"{path}.{child}" if path else child, below)
        for place, difference in below.items():
            row = found.setdefault(place, Difference(place, [""] * len(nodes), difference.is_part))
            for i, value in zip(alike, difference.values, strict=True):
                row.values[i] = value


def _rank(difference: Difference) -> tuple[int, bool, int, str]:
    *above, name = difference.path.split(".")
    top = name if name == "seed" or not above else above[0]  # model.seed and data.seed follow the run's
    place = ORDER.index(top) if top in ORDER else len(ORDER)
    return place, not difference.is_part, difference.path.count("."), difference.path


def class_name(node: dict[str, Any]) -> str:
    """``genlab.model.network.unet.UNet`` -> ``unet``, ``FlowMatching`` -> ``flow_matching``."""
    last = str(node.get("_target_", "")).rpartition(".")[2]
    return printable(re.sub(r"(?<=[a-z0-9])(?=[A-Z](?:[a-z]|[A-Z]{2}))", "_", last).lower())


def short(value: Any) -> str:
    if isinstance(value, float):
        value = float(f"{value:.4g}")  # a search draws more digits than tell its trials apart
    text = printable(value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str))
    return text if len(text) <= 24 else f"{text[:23]}…"


def printable(text: str) -> str:
    """Names come from files: nothing in them may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
