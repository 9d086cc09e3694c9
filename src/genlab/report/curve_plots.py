"""Plots of the metrics measured during training, against examples, FLOPs and seconds."""

import math
import re
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genlab.report.curves import AXES, Point, points_of
from genlab.report.figure import COLORS, GRAY, arrange, prefixed, save, spans, styled
from genlab.report.logged import Logged

MOST = 60  # lines of a figure: the best; more hide each other
MOST_FIGURES = 100  # metrics that have one
TITLES = {"examples": "training examples", "flops": "training FLOPs", "seconds": "training seconds"}


@dataclass(frozen=True)
class Line:
    """A configuration's curves: one of each seed."""

    name: str
    seeds: list[list[Point]]


def curve_plots(named: Sequence[tuple[str, Sequence[Logged]]], folder: Path) -> list[str]:
    """Configurations by name with what their runs logged, best first: one figure a metric. -> the files' names.
    Raises OSError."""
    read = [(name, [points_of(run) for run in runs]) for name, runs in named]
    found = dict.fromkeys(metric for _, curves in read for curve in curves for metric in curve)
    metrics = [metric for metric in found if not re.search(r"_(std|se)(_|$)", metric)]  # how sure another metric is
    if len(metrics) > MOST_FIGURES:
        warnings.warn(f"curves of {MOST_FIGURES} metrics are drawn, of {len(metrics):,} that there are", stacklevel=2)
    written = []
    for metric in metrics[:MOST_FIGURES]:
        lines = [
            Line(name, [curve[metric] for curve in curves if len(curve.get(metric, ())) > 1]) for name, curves in read
        ]
        lines = [line for line in lines if line.seeds]
        if lines:
            written += _figure(metric, lines[:MOST], len(lines), folder)
    return written


def _figure(metric: str, lines: Sequence[Line], found: int, folder: Path) -> list[str]:
    """``found``: how many lines there are, of which ``lines`` are the first."""
    with styled() as pyplot:
        figure, panels = pyplot.subplots(1, 3, figsize=(12, 3.7), sharey=True)
        values = [point.value for line in lines for seed in line.seeds for point in seed]
        entries: dict[str, object] = {}
        left_over = len(lines) - len(COLORS)
        others = f"{left_over} other{'s' * (left_over > 1)}"
        if found > len(lines):
            others = f"{left_over} of {found - len(COLORS):,} others"
        for panel, axis in zip(panels, AXES, strict=True):
            xs = [getattr(point, axis) for line in lines for seed in line.seeds for point in seed]
            if spans([x for x in xs if x > 0], 100):
                panel.set_xscale("log")
            if spans(values):
                panel.set_yscale("log")
            for rank, line in reversed(list(enumerate(lines))):  # the best on top
                color = COLORS[rank] if rank < len(COLORS) else GRAY
                name = line.name if rank < len(COLORS) else others
                entries[name] = draw_line(panel, line, axis, color)
            panel.set_xlabel(TITLES[axis])
            prefixed(panel.xaxis)
        if panels[0].get_yscale() == "log":
            prefixed(panels[0].yaxis)
        panels[0].set_title(f"val/{metric}")
        several = any(len(line.seeds) > 1 for line in lines)
        if several:
            panels[-1].set_title("mean of seeds, and their range", fontweight="normal", loc="right", color="#666666")
        arrange(figure, entries=[(handle, name) for name, handle in reversed(entries.items())])
        return save(figure, folder, f"curve-{metric}")


def draw_line(panel: object, line: Line, axis: str, color: str) -> object:
    """The mean over seeds where all have come, their range, and each seed faintly. -> what the legend shows."""
    each = [[(getattr(point, axis), point.value) for point in seed] for seed in line.seeds]
    if len(each) == 1:
        return _plot(panel, each[0], color=color, marker="o", markersize=3)
    for seed in each:
        _plot(panel, seed, color=color, linewidth=0.7, alpha=0.45)
    grid, means, lows, highs = average(each)
    panel.fill_between(grid, lows, highs, color=color, alpha=0.15, linewidth=0)  # type: ignore[attr-defined]
    return _plot(panel, list(zip(grid, means, strict=True)), color=color)


def _plot(panel: object, points: Sequence[tuple[float, float]], **style: object) -> object:
    (drawn,) = panel.plot([x for x, _ in points], [y for _, y in points], **style)  # type: ignore[attr-defined]
    return drawn


def average(
    seeds: Sequence[Sequence[tuple[float, float]]],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean, lowest and highest of curves that were measured at different places, where all of them are known."""
    first, last = max(seed[0][0] for seed in seeds), min(seed[-1][0] for seed in seeds)
    grid = sorted({x for seed in seeds for x, _ in seed if first <= x <= last})
    rows = [[value(seed, x) for seed in seeds] for x in grid]
    return grid, [math.fsum(row) / len(row) for row in rows], [min(row) for row in rows], [max(row) for row in rows]


def value(curve: Sequence[tuple[float, float]], x: float) -> float:
    """Of a curve, two points or more by rising x, between its points, on a straight line."""
    after = bisect_left(curve, x, 1, len(curve) - 1, key=lambda point: point[0])
    (x0, y0), (x1, y1) = curve[after - 1], curve[after]
    return y1 if x1 == x0 else y0 + (y1 - y0) * min(1.0, max(0.0, (x - x0) / (x1 - x0)))
