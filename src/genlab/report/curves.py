"""Reads the curves of a run with the progress at each point, in examples, FLOPs and seconds."""

from dataclasses import dataclass
from pathlib import Path

from genlab.report.logged import AXES, Logged, read_logged

__all__ = ["AXES", "Point", "points_of", "read_curves"]


@dataclass(frozen=True)
class Point:
    examples: float
    flops: float
    seconds: float
    value: float


def points_of(logged: Logged, prefix: str = "val/") -> dict[str, list[Point]]:
    """Of each column that begins with ``prefix``, by the rest of its name, what was measured."""
    return {
        name.removeprefix(prefix): [Point(*row) for row in rows.tolist()]
        for name, rows in logged.curves.items()
        if name.startswith(prefix)
    }


def read_curves(run: Path, prefix: str = "val/") -> dict[str, list[Point]]:
    """:func:`points_of` the ``metrics.csv`` of a run, thinned as :mod:`genlab.report.logged` says."""
    return points_of(read_logged(run, lambda name: name.startswith(prefix)), prefix)
