"""What a run measured while it trained, and how far it had come then: in examples, FLOPs and seconds."""

import csv
import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

AXES = ("examples", "flops", "seconds")


@dataclass(frozen=True)
class Point:
    examples: float
    flops: float
    seconds: float
    value: float


def read_curves(run: Path, prefix: str = "val/") -> dict[str, list[Point]]:
    """Of each column of ``metrics.csv`` that begins with ``prefix``, by the rest of its name, what was measured.

    Progress is logged every few steps: between, it is interpolated. A row number counts the steps before it; rows that
    are not numbers, and half a line at the end of a run that goes on, are left out.
    """
    rows = _rows(run / "metrics.csv")
    progress = [(0.0, 0.0, 0.0, 0.0)] + [
        (row["step"] + 1, row["progress/examples"], row["progress/flops"], row["progress/seconds"])
        for row in rows
        if all(f"progress/{axis}" in row for axis in AXES)
    ]
    if any(later[0] <= earlier[0] for earlier, later in pairwise(progress)):
        progress = sorted({row[0]: row for row in progress}.values())
    found: dict[str, list[Point]] = {}
    for row in rows:
        if any(name.startswith(prefix) for name in row):
            place = _at(progress, row["step"] + 1)
            for name, value in row.items():
                if name.startswith(prefix):
                    found.setdefault(name.removeprefix(prefix), []).append(Point(*place, value))
    return found


def _at(progress: list[tuple[float, float, float, float]], step: float) -> tuple[float, float, float]:
    """Examples, FLOPs and seconds after so many steps; after the last that is known, those."""
    after = bisect_left(progress, step, key=lambda row: row[0])
    if after == len(progress):
        return progress[-1][1:]
    if after == 0 or progress[after][0] == step:
        return progress[after][1:]
    low, high = progress[after - 1], progress[after]
    share = (step - low[0]) / (high[0] - low[0])
    examples, flops, seconds = (a + share * (b - a) for a, b in zip(low[1:], high[1:], strict=True))
    return examples, flops, seconds


def _rows(path: Path) -> list[dict[str, float]]:
    """The finite numbers of each row that has a step."""
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(line.replace("\0", "") for line in file if line.endswith("\n")):
            numbers = {}
            for name, text in row.items():
                try:
                    numbers[str(name)] = float(text or "")
                except (TypeError, ValueError):
                    continue
            if "step" in numbers:
                rows.append({name: number for name, number in numbers.items() if math.isfinite(number)})
    return rows
