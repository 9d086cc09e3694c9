"""Plots quality against the cost of sampling, with the Pareto front."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genlab.report.columns import ARROWS, Column
from genlab.report.figure import COLORS, GRAY, arrange, clipped, prefixed, save, spans, styled
from genlab.report.table import Table

BESIDE = 30  # characters of a line beside a point
MOST_NAMES = 16  # beyond that, only the front has names


def cost_plot(table: Table, quality: Column, folder: Path) -> list[str]:
    """Two panels: seconds, and evaluations of the network. -> the files' names, none if nothing is known of the costs.
    Raises OSError."""
    by_name = {column.name: column for column in table.columns}
    axes = []
    if speed := by_name.get("samples_per_second"):
        axes.append(
            ("time for a sample, on the hardware of each run", "s", [1 / n if n else None for n in speed.numbers])
        )
    if calls := by_name.get("evaluations_per_sample"):
        axes.append(("evaluations of the network for a sample", "", list(calls.numbers)))
    rows = [
        row
        for row in table.order
        if row < table.configurations and quality.numbers[row] is not None and row not in table.marked
    ]
    panels = [
        (title, unit, {row: (costs[row], quality.numbers[row]) for row in rows if costs[row]})
        for title, unit, costs in axes
    ]
    panels = [panel for panel in panels if len(panel[2]) > 1]
    if not panels:
        return []
    colors = {row: COLORS[place] if place < len(COLORS) else GRAY for place, row in enumerate(rows)}
    with styled() as pyplot:
        figure, drawn = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 4.2), sharey=True, squeeze=False)
        wanted = []
        for panel, (title, unit, points) in zip(drawn[0], panels, strict=True):
            wanted.append(_panel(panel, points, table, quality, colors))
            panel.set_xlabel(title)
            prefixed(panel.xaxis, unit)
        if drawn[0][0].get_yscale() == "log":
            prefixed(drawn[0][0].yaxis)
        drawn[0][0].set_title(f"{quality.key}{ARROWS[quality.direction]} against the cost of sampling")
        arrange(figure)
        for panel, labels in zip(drawn[0], wanted, strict=True):
            _label(panel, labels)
        return save(figure, folder, f"pareto-{quality.name}")


def _panel(
    panel: Any, points: dict[int, Any], table: Table, quality: Column, colors: dict[int, str]
) -> list[tuple[Any, str, bool]]:
    """-> the points that get a name, theirs, and whether they are on the front."""
    values = [value for _, value in points.values()]
    panel.set_xscale("log")
    if spans(values):
        panel.set_yscale("log")
    front = pareto({row: (cost, quality.worth_of(value)) for row, (cost, value) in points.items()})
    steps = sorted((points[row] for row in front), key=lambda point: point[0])
    steps.append((max(cost for cost, _ in points.values()), steps[-1][1]))
    panel.step(
        [x for x, _ in steps],
        [y for _, y in steps],
        where="post",
        color="#555555",
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        zorder=1,
    )
    spread = [row for row in points if quality.half_width(row) is not None and len(quality.drawn(row)) > 1]
    if spread:
        panel.vlines(
            [points[row][0] for row in spread],
            [min(quality.drawn(row)) for row in spread],
            [max(quality.drawn(row)) for row in spread],
            color=[colors[row] for row in spread],
            linewidth=1.2,
            alpha=0.6,
        )
    drawn = [row for row in points if row in front or colors[row] != GRAY]
    for rows in ([row for row in points if row not in drawn], *([row] for row in drawn)):  # the many at once
        if rows:
            panel.scatter(
                *zip(*(points[row] for row in rows), strict=True),
                s=46 if rows[0] in front else 26,
                color=colors[rows[0]],
                zorder=3,
                linewidth=0.8,
                edgecolor="black" if rows[0] in front else "white",
            )
    named = [row for row in points if len(points) <= MOST_NAMES or row in front][:MOST_NAMES]
    panel.margins(x=0.22, y=0.12)
    return [(points[row], clipped(table.names[row]), row in front) for row in named]


def _label(panel: Any, wanted: Sequence[tuple[Any, str, bool]]) -> None:
    """A name beside each point, on the side where there is room, moved up or down until it covers nothing else."""
    taken: list[tuple[float, float, float, float]] = []
    first, last = panel.get_window_extent().intervalx
    dots = [panel.transData.transform(point) for point, *_ in wanted]
    for point, name, on_front in sorted(wanted, key=lambda one: (one[0][1], one[0][0])):
        x, y = panel.transData.transform(point)
        lines = textwrap.wrap(name, BESIDE) or [name]
        width, height = 5.9 * max(map(len, lines)), 12.0 * len(lines)
        left = x > (first + last) / 2
        if (x - 8 - width < first) if left else (x + 8 + width > last):  # cut off: the other side, if it has more room
            left = x - first > last - x if width > max(x - first, last - x) - 8 else not left
        start = x - 8 - width if left else x + 8
        for offset in (0, 12, -12, 24, -24, 36, -36, 48, -48):
            box = (start, y + offset - height / 2, start + width, y + offset + height / 2)
            covers = any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
            if not covers and not any(box[0] < a < box[2] and box[1] - 4 < b < box[3] + 4 for a, b in dots):
                break
        taken.append(box)
        panel.annotate(
            "\n".join(lines),
            point,
            xytext=((-8 if left else 8) * 0.72, offset * 0.72),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
            color="black" if on_front else "#555555",
            annotation_clip=False,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )


def pareto(points: dict[int, tuple[float, float]]) -> set[int]:
    """The points that no other dominates; lower is better in both."""
    return {
        row
        for row, own in points.items()
        if not any(other[0] <= own[0] and other[1] <= own[1] and other != own for other in points.values())
    }
