"""Plots of a transfer: over examples, over all FLOPs, and over the number of training examples that there are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genlab.report.curve_plots import TITLES, draw_line
from genlab.report.figure import COLORS, GRAY, arrange, prefixed, save, spans, styled
from genlab.report.transfer import RANDOM, Transfer, TransferTask

MOST = 12  # tasks in a figure


def transfer_plots(found: Transfer, folder: Path) -> list[str]:
    """-> the files' names. Raises OSError."""
    names = list(dict.fromkeys(each.name for task in found.tasks for each in task.beginnings))
    colors = {name: COLORS[i] if i < len(COLORS) else GRAY for i, name in enumerate(names)}
    colors[RANDOM] = "#444444"
    measured = [task for task in found.tasks if any(each.line.seeds for each in task.beginnings)]
    written = _curves(found, measured[:MOST], colors, folder) if measured else []
    kinds = list(dict.fromkeys(task.kind for task in found.tasks))
    for number, kind in enumerate(kinds):
        alike = [task for task in found.tasks if task.kind == kind and task.num_train is not None]
        if len({task.num_train for task in alike}) > 1:
            written += _amounts(found, alike, colors, folder, f"-{number}" * (len(kinds) > 1))
    return written


def _curves(found: Transfer, tasks: Sequence[TransferTask], colors: dict[str, str], folder: Path) -> list[str]:
    """A row of two panels for each task."""
    with styled() as pyplot:
        figure, panels = pyplot.subplots(
            len(tasks), 2, figsize=(9, 0.4 + 2.6 * len(tasks)), sharey="row", squeeze=False
        )
        entries: dict[str, Any] = {}
        for row, task in zip(panels, tasks, strict=True):
            for panel, axis in zip(row, ("examples", "flops"), strict=True):
                for each in reversed(task.beginnings):
                    line = each.line if axis == "examples" else each.total
                    if line is not None and line.seeds:
                        entries[each.name] = draw_line(panel, line, axis, colors[each.name])
                prefixed(panel.xaxis)
            row[0].set_title(f"{found.column.name}: {task.name}", fontsize=9)
        panels[-1][0].set_xlabel(TITLES["examples"])
        panels[-1][1].set_xlabel("all FLOPs, pretraining counted")
        arrange(figure, entries=[(handle, name) for name, handle in reversed(entries.items())])
        figure.subplots_adjust(hspace=0.35)
        return save(figure, folder, f"transfer-{found.column.name}")


def _amounts(
    found: Transfer, tasks: Sequence[TransferTask], colors: dict[str, str], folder: Path, end: str
) -> list[str]:
    """What runs end with over the number of training examples."""
    with styled() as pyplot:
        figure, panel = pyplot.subplots(figsize=(6, 3.7))
        if spans([float(task.num_train or 0) for task in tasks], 5):
            panel.set_xscale("log")
        entries = []
        for name in dict.fromkeys(each.name for task in tasks for each in task.beginnings):
            points = [
                (task.num_train, each.final, each.half_width or 0.0)
                for task in tasks
                for each in task.beginnings
                if each.name == name and each.final is not None
            ]
            x, y, widths = zip(*sorted(points), strict=True)
            handle = panel.errorbar(x, y, widths, color=colors[name], marker="o", markersize=4, capsize=3)
            entries.append((handle, name))
        panel.set_xlabel("training examples that there are")
        panel.set_title(f"{found.column.head}, mean of seeds and its 95 % interval", fontsize=9)
        prefixed(panel.xaxis)
        arrange(figure, entries=entries)
        return save(figure, folder, f"transfer-amounts-{found.column.name}{end}")
