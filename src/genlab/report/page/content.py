"""The content of the HTML page as one plain dictionary."""

import math
from collections.abc import Sequence
from typing import Any

from genlab.report.columns import Column
from genlab.report.importance import FORESTS, what_mattered
from genlab.report.labels import Labels
from genlab.report.logged import AXES, GROUPS
from genlab.report.names import class_name, class_names, differences, printable
from genlab.report.page.curves import Curves, as_json, curves_of, points_each
from genlab.report.page.pictures import Pictures
from genlab.report.protocol import Chosen
from genlab.report.runs import Run
from genlab.report.table import Table
from genlab.report.trials import Sweep, Trial, given, known

LONGEST = 200  # characters of a name or a value
METRICS = 150  # curves to choose from
SETTINGS = 200  # that differ


def page_content(
    headline: str,
    table: Table | None,  # None: no run has finished
    sorted_by: Column | None,
    chosen: Chosen | None,  # how the table's runs were measured
    done: Sequence[Run],
    groups: Sequence[tuple[int, ...]],  # of ``done``: the runs of each of the table's configurations
    others: Sequence[Run],  # not finished
    called: Labels,  # of ``done``, then of ``others``
    sweeps: Sequence[Sweep],
    legend: Sequence[str],  # what signs in the table mean
    notes: Sequence[str],
    apart: Sequence[str],  # what is not finished, in a line each
    drawn: Pictures,  # by ``done``, then by ``others``
) -> dict[str, Any]:
    runs = [*done, *others]
    curves = [curves_of(run.logged) for run in runs]
    offered, most = _metrics(curves), points_each(curves)
    settings, alike = _settings(runs)
    left_out = [*drawn.left_out, *_left_out(curves, offered, most, len(settings))]
    columns = [] if table is None else [_column(column) for column in table.columns]
    rows, trials = _rows(table, groups, called), known(sweeps)
    for place, column in enumerate(columns):
        column["has_more"] = any(row["cells"][place]["more"] for row in rows)
    return {
        "headline": text(headline),
        "sorted_by": None if sorted_by is None else text(sorted_by.key),
        "runs": [_run(run, "finished") for run in done]
        + [_run(run, _state(run, trials.get(run.folder.resolve()))) for run in others],
        "finished": len(done),
        "columns": columns,
        "rows": [*rows, *_going(len(done), len(runs), len(columns), called)],
        "legend": [text(line, 1000) for line in legend],
        "axes": list(AXES),
        "metrics": [text(name) for name in offered[:METRICS]],
        "curves": [as_json(c, offered[:METRICS], most) for c in curves],
        "frames": drawn.frames,
        "settings": settings[:SETTINGS],
        "alike": alike,
        "protocols": [] if chosen is None else _protocols(chosen),
        "sweeps": [_sweep(sweep) for sweep in sweeps],
        "notes": [text(note, 1000) for note in notes],
        "apart": [text(line, 1000) for line in apart],
        "left_out": left_out,
    }


def text(value: object, longest: int = LONGEST) -> str:
    """Text from files: nothing in it may steer a page or a terminal, or fill it."""
    shown = printable(str(value))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _run(run: Run, state: str) -> dict[str, Any]:
    seed = run.config.get("seed")
    return {
        "folder": text(run.folder, 1000),
        "seed": text(seed, 20) if isinstance(seed, int) else "",
        "state": state,
        "hardware": text(run.hardware or "unknown"),
    }


def _state(run: Run, trial: Trial | None) -> str:
    return text("; ".join([*([trial.state] if trial else []), run.state()]))


def _column(column: Column) -> dict[str, Any]:
    return {
        "key": text(column.key),
        "name": text(column.name),
        "head": text(column.head),
        "unit": text(column.unit),
        "direction": column.direction,
        "quality": column.is_quality,
    }


def _rows(table: Table | None, groups: Sequence[tuple[int, ...]], called: Labels) -> list[dict[str, Any]]:
    """Those of the table, in its order: configurations, then baselines."""
    if table is None:
        return []
    found = []
    for row in table.order:
        cells = []
        for place, column in enumerate(table.columns):
            number, _, more = text(table.cell(place, row)).partition(" ")
            cells.append(
                {
                    "text": number,
                    "more": more,
                    "best": table.is_best(place, row),
                    "value": number_of(column.numbers[row]),
                }
            )
        is_run = row < table.configurations
        found.append(
            {
                "name": text(table.names[row]),
                "more": text(called.details(groups[row]), 1000) if is_run else "",
                "kind": "run" if is_run else "baseline",
                "runs": list(groups[row]) if is_run else [],
                "cells": cells,
            }
        )
    return found


def _going(first: int, end: int, columns: int, called: Labels) -> list[dict[str, Any]]:
    """A row without numbers for each run that has not finished: it has curves and samples all the same."""
    nothing = {"text": "–", "more": "", "best": False, "value": None}
    return [
        {
            "name": text(called.runs[i]),
            "more": text(called.details([i]), 1000),
            "kind": "unfinished",
            "runs": [i],
            "cells": [nothing] * columns,
        }
        for i in range(first, end)
    ]


def number_of(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _metrics(curves: Sequence[Curves]) -> list[str]:
    """Names that at least one run logged twice, those of most runs first in each group."""
    count: dict[str, int] = {}
    for of_run in curves:
        for name, points in of_run.metrics.items():
            if len(points) > 1:
                count[name] = count.get(name, 0) + 1
    place = {name: i for i, name in enumerate(count)}

    def rank(name: str) -> tuple[int, int, int]:
        group = next(i for i, prefix in enumerate(GROUPS) if name.startswith(prefix))
        return group, -count[name], place[name]

    return sorted(count, key=rank)


def _settings(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], str]:
    """Settings that not all runs share, and what is the same for all, in a few words."""
    if not runs:
        return [], ""
    found = differences([run.config for run in runs])
    families = class_names([run.config["model"] for run in runs])
    rows = [{"path": "model", "values": [text(family) for family in families]}] if len(set(families)) > 1 else []
    rows += [{"path": text(d.path), "values": [text(value) for value in d.values]} for d in found]
    alike = [] if len(set(families)) > 1 else [f"model {families[0]}"]
    for part in ("data", "budget"):
        nodes = [run.config.get(part) for run in runs]
        if isinstance(nodes[0], dict) and all(node == nodes[0] for node in nodes):
            value = f" {nodes[0]['value']:,}" if isinstance(nodes[0].get("value"), int | float) else ""
            alike.append(f"{part} {class_name(nodes[0])}{value}")
    return rows, text(", ".join(alike))


def _left_out(curves: Sequence[Curves], offered: Sequence[str], most: int, settings: int) -> list[str]:
    found = []
    longest = max((c.longest for c in curves), default=0)
    if longest > most:
        found.append(
            f"points of curves of more than {most} (up to {longest:,}; the lowest and the highest of each "
            "stretch are there)"
        )
    if len(offered) > METRICS or any(c.left_out for c in curves):
        found.append(f"curves of all but {len(offered[:METRICS])} metrics")
    if settings > SETTINGS:
        found.append(f"{settings - SETTINGS} of {settings} settings that differ")
    return found


def _protocols(chosen: Chosen) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for place, key in chosen.protocol_ids.items():
        flat = _flat(chosen.measured[place].protocol, "")
        settings = [[text(name), text(value, 400)] for name, value in flat]
        found.setdefault(key, {"id": text(key), "runs": 0, "settings": settings})["runs"] += 1
    return list(found.values())


def _flat(node: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        return [item for name, value in node.items() for item in _flat(value, f"{path}.{name}" if path else str(name))]
    return [] if node == {} else [(path, node)]


def _sweep(sweep: Sweep) -> dict[str, Any]:
    varied = sweep.varied
    ends = [name.rpartition(".")[2] for name in varied]
    values = [given(trial) for trial in sweep.trials]
    return {
        "folder": text(sweep.folder),
        "command": text(sweep.command, 1000),
        "metric": text(sweep.metric or "", 60),
        "direction": sweep.direction,
        "settings": [
            {
                "name": text(end if ends.count(end) == 1 else name),
                "values": [text(own.get(name, "")) for own in values],
            }
            for name, end in zip(varied, ends, strict=True)
        ],
        "forests": FORESTS,
        "importance": [
            {"name": text(share.name), "mean": share.mean, "spread": share.spread} for share in what_mattered(sweep)
        ],
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "overrides": [text(override) for override in trial.overrides],
                "said": text(trial.said, 400),
                "seconds": number_of(trial.seconds),
                "value": number_of(trial.value),
            }
            for trial in sweep.trials
        ],
    }
