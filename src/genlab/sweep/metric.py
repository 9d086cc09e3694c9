"""The metric of a sweep, under its several names: ``fid``, ``val/fid_digits64_500`` in training, ``..._1k`` at the
end."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from genlab.errors import ConfigError, did_you_mean
from genlab.files.regular_file import read_text
from genlab.former_names import current_number
from genlab.trust import places

Direction = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    name: str
    direction: Direction

    def place(self, measured: str) -> int | None:
        """How well a measured name fits, 0 best; None: it is another metric."""
        asked, found = (current_number(name).removeprefix("val/") for name in (self.name, measured))
        if found == asked:
            return 0
        if _without_count(found) == _without_count(asked):
            return 1  # of another number of samples
        return 2 if found.startswith(f"{asked}_") else None

    def pick(self, values: Mapping[str, float]) -> float | None:
        """The value that fits best."""
        fitting = [(place, name) for name in values if (place := self.place(name)) is not None]
        return values[min(fitting, key=lambda found: found[0])[1]] if fitting else None


def _without_count(name: str) -> str:
    """fid_digits64_1k -> fid_digits64"""
    return re.sub(r"_\d+k?$", "", name)


def choose_metric(name: str | None, direction: Direction | None, example: Callable[[], Mapping[str, Any]]) -> Metric:
    """The metric called ``name``, or a trial's first one, and its better direction.

    ``example``: gives a trial's config, if one is needed. Raises ConfigError.
    """
    if name is not None and direction is not None:
        return Metric(name, direction)
    asked = current_number(name or "").removeprefix("val/")
    if "loss" in asked:
        return Metric(str(name), "lower")
    metrics = {name: node for name, node in example().get("metrics", {}).items() if name != "extractor"}
    known = _directions([str(node["_target_"]) for node in metrics.values()])
    if name is None:
        ranked = [Metric(metric, found) for metric, found in known.items() if found in get_args(Direction)]
        return Metric(ranked[0].name, direction or ranked[0].direction) if ranked else Metric("val/loss", "lower")
    fitting = [metric for metric in known if asked == metric or asked.startswith(f"{metric}_")]
    if not fitting:
        guess = did_you_mean(asked, list(known)) or f" It measures: {', '.join([*known, 'val/loss'])}."
        raise ConfigError(f"sweep.metric={name}: trials do not measure this.{guess}")
    found = known[max(fitting, key=len)]
    if found not in get_args(Direction):
        raise ConfigError(f"sweep.metric={name}: neither low nor high is better. Name another, or sweep.direction=.")
    return Metric(name, found)


def _directions(targets: Sequence[str]) -> dict[str, Any]:
    """The directions of metrics, read in a separate process, since their modules import torch."""
    if not targets:
        return {}
    own = [str(place) for place in places.typed()]
    command = [sys.executable, "-m", __name__, str(len(own)), *own, *targets]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        cause = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"cannot tell which direction is better ({cause}). Set it: sweep.direction=lower")
    return json.loads(asked.stdout.splitlines()[-1])


def first_measured(folder: Path) -> Metric | None:
    """The first metric of a finished run that has a direction."""
    summary = json.loads(read_text(folder / "summary.json"))
    directions = summary.get("directions", {})
    for name in summary.get("metrics", {}):
        if directions.get(name) in ("lower", "higher"):
            return Metric(name, directions[name])
    return None


if __name__ == "__main__":
    from genlab.config.build import resolve

    found: dict[str, str | None] = {}
    count = int(sys.argv[1])
    for place in sys.argv[2 : 2 + count]:
        places.add(Path(place))
    for target in sys.argv[2 + count :]:
        found |= dict(getattr(resolve(target, "metrics"), "directions", {}))
    print(json.dumps(found))
