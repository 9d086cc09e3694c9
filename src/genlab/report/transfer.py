"""What beginning with other weights gains: runs that differ in nothing but ``start=``, beside each other.

A task is what such runs are trained for: data, model and budget. Its beginnings are random weights and other runs'.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genlab.errors import ConfigError
from genlab.files import spreadsheet
from genlab.report.columns import Column
from genlab.report.configurations import without_seeds
from genlab.report.curve_plots import Line, average
from genlab.report.curves import Point, points_of
from genlab.report.names import printable
from genlab.report.runs import Run
from genlab.report.significance import Pair, pairs

RANDOM = "random weights"
AMOUNT = ("per_class", "limit")  # settings of data that say how many training examples there are


@dataclass(frozen=True)
class Beginning:
    """Runs of a task that begin alike, over seeds."""

    name: str
    row: int  # in the table
    final: float | None  # the mean over seeds of what the table is sorted by
    half_width: float | None
    pretraining: dict[str, float] | None  # examples and FLOPs before the run; None: nobody knows
    line: Line  # what was measured on the way, with the FLOPs of the run alone

    @property
    def total(self) -> Line | None:
        """The same with all FLOPs that went into the weights; None: nobody knows how many."""
        if self.pretraining is None:
            return None
        before = self.pretraining["flops"]
        moved = [[replace(point, flops=before + point.flops) for point in seed] for seed in self.line.seeds]
        return Line(self.line.name, moved)


@dataclass(frozen=True)
class TransferTask:
    """``beginnings``: random weights first."""

    name: str
    kind: str  # the same for tasks that differ in the number of training examples alone
    num_train: int | None
    beginnings: list[Beginning]
    gains: dict[int, Pair]  # of rows over random weights


@dataclass(frozen=True)
class Transfer:
    """All tasks of a comparison, by a column of its table."""

    column: Column
    tasks: list[TransferTask]

    def lines(self) -> list[str]:
        """A sentence for each beginning but random weights."""
        return [_sentence(self.column, task, each) for task in self.tasks for each in task.beginnings[1:]]

    def csv(self) -> str:
        """A row for each beginning of each task, with all digits."""
        file = io.StringIO()
        writer = spreadsheet.Writer(file)
        head = ["task", "num_train", "begins_with", self.column.key, "half_width", "gain", "gain_half_width", "p"]
        writer.writerow([*head, "examples_to_random", "flops_to_random", "pretraining_examples", "pretraining_flops"])
        for task in self.tasks:
            for each in task.beginnings:
                pair, before = task.gains.get(each.row), each.pretraining or {}
                gain = None if pair is None else _gain(self.column, pair, each.row)
                told = [None, None] if pair is None else [pair.half_width, pair.told]
                reached = [reaches(each.line, task, self.column, "examples"), None]
                if each.total is not None:
                    reached[1] = reaches(each.total, task, self.column, "flops")
                row = [task.name, task.num_train, each.name, each.final, each.half_width, gain, *told, *reached]
                writer.writerow([*row, before.get("examples"), before.get("flops")])
        return file.getvalue()


def transfer(runs: Sequence[Run], groups: Sequence[tuple[int, ...]], column: Column | None) -> Transfer:
    """The tasks of configurations ``groups`` that random weights and others began. ``column``: of the table, by which
    they are compared.

    Raises ConfigError: there is no such task, or nothing to compare by.
    """
    if column is None:
        raise ConfigError("transfer=true: no run was measured by anything that has a better end. Leave it out.")
    found: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        found.setdefault(_key(_task_config(runs[group[0]].config)), []).append(row)
    tasks = []
    for rows in found.values():
        configs = [runs[groups[row][0]].config for row in rows]
        if None in [config.get("start") for config in configs] and len(rows) > 1:
            tasks.append((rows, configs))
    if not tasks:
        raise ConfigError(
            "transfer=true: there are no runs that differ in start= alone, one of them without it. Leave it out."
        )
    names = _names([configs[0] for _, configs in tasks])
    made = [
        _task(name, rows, configs, runs, groups, column) for name, (rows, configs) in zip(names, tasks, strict=True)
    ]
    return Transfer(column, sorted(made, key=lambda task: (task.kind, task.num_train or 0)))


def reaches(line: Line, task: TransferTask, column: Column, axis: str) -> float | None:
    """How many examples or FLOPs it takes, in the mean over seeds, until what random weights end with is reached. None:
    it never is, or nobody measured."""
    target = _mean(task.beginnings[0].line, axis)
    reached = _mean(line, axis)
    if not target or not reached:
        return None
    wanted = column.worth_of(target[-1][1])
    before: tuple[float, float] | None = None
    for x, y in reached:
        if column.worth_of(y) <= wanted:
            if before is None:
                return x
            (x0, y0), y1 = before, y
            low, high = column.worth_of(y0), column.worth_of(y1)
            return x0 + (x - x0) * (1.0 if high == low else (wanted - low) / (high - low))
        before = x, y
    return None


def _mean(line: Line, axis: str) -> list[tuple[float, float]]:
    each = [[(getattr(point, axis), point.value) for point in seed] for seed in line.seeds]
    if not each:
        return []
    grid, means, _, _ = average(each)
    return list(zip(grid, means, strict=True))


def _task(
    name: str,
    rows: Sequence[int],
    configs: Sequence[Mapping[str, Any]],
    runs: Sequence[Run],
    groups: Sequence[tuple[int, ...]],
    column: Column,
) -> TransferTask:
    beginnings = []
    for row, called in zip(rows, _beginnings(configs), strict=True):
        mine = [runs[i] for i in groups[row]]
        began = called == RANDOM
        seeds = [curve for run in mine if len(curve := _curve(run, column)) > 1]
        beginnings.append(
            Beginning(
                called,
                row,
                column.numbers[row],
                column.half_width(row),
                {"examples": 0.0, "flops": 0.0} if began else mine[0].pretraining,
                Line(called, seeds),
            )
        )
    beginnings.sort(key=lambda each: (each.name != RANDOM, column.worth(each.row)))
    first = beginnings[0].row
    told = pairs({row: column.drawn(row) for row in rows})
    gains = {pair.b if pair.a == first else pair.a: pair for pair in told if first in (pair.a, pair.b)}
    counts = {run.num_train for row in rows for run in (runs[i] for i in groups[row])}
    kind = _key(_without_amount(_task_config(configs[0])))
    return TransferTask(name, kind, counts.pop() if len(counts) == 1 else None, beginnings, gains)


def _curve(run: Run, column: Column) -> list[Point]:
    """What was measured on the way: the column itself, or else the same of another number of samples."""
    curves = points_of(run.logged)
    alike = [name for name in curves if name == column.name or name.startswith(f"{column.name}_")]
    named = next((name for name in [column.key, *alike] if name in curves), None)
    return [] if named is None else curves[named]


def _task_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return without_seeds({name: value for name, value in config.items() if name != "start"})


def _without_amount(config: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in config["data"].items() if name not in AMOUNT}
    return {**config, "data": data}


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, default=str)


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """By model and data, and how many examples there are where that is set; numbered where that is not enough."""
    names = []
    for config in configs:
        amounts = [f"{name}={config['data'][name]}" for name in AMOUNT if config["data"].get(name) is not None]
        classes = [str(config[part]["_target_"]).rpartition(".")[2] for part in ("model", "data")]
        names.append(printable(", ".join([" of ".join(classes), *amounts])))
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _beginnings(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """By the last name of the place, what is frozen, and, where that is not enough, what was taken, and a hash."""
    starts = [config.get("start") for config in configs]
    nodes = [start if isinstance(start, Mapping) else {"where": start} for start in starts]
    hashes, places = zip(*(str(node["where"] or "-").partition("-")[::2] for node in nodes), strict=True)
    names = [place or RANDOM for place in places]
    for more in (
        [f", {_list(node['freeze'])} frozen" if node.get("freeze") else "" for node in nodes],
        [f", only {_list(node['only'])}" if node.get("only") else "" for node in nodes],
        [f" ({hashed})" for hashed in hashes],
    ):
        if len(set(names)) < len(names):
            names = [name + end if names.count(name) > 1 else name for name, end in zip(names, more, strict=True)]
    return [printable(name) for name in names]


def _list(patterns: Any) -> str:
    return " and ".join(map(str, patterns)) if isinstance(patterns, list) else str(patterns)


def _gain(column: Column, pair: Pair, row: int) -> float:
    """By how much a row is better than random weights; below 0: worse."""
    sign = 1 if pair.a == row else -1
    return sign * pair.difference * (-1 if column.direction == "lower" else 1)


def _sentence(column: Column, task: TransferTask, each: Beginning) -> str:
    random = task.beginnings[0]
    said = f"{task.name}: {column.name} {_with_width(each)}, with random weights {_with_width(random)}"
    pair = task.gains.get(each.row)
    if pair is None:
        verdict = "one seed cannot say whether that is more than luck"
    elif pair.verdict == "not told apart":
        gain = f"{_gain(column, pair, each.row):+.3g} ±{pair.half_width:.2g}"
        verdict = f"gains nothing that is more than luck ({gain}, corrected p {pair.told:.2g})"
    else:
        difference = _gain(column, pair, each.row)
        verb = "gains" if difference > 0 else "loses"
        verdict = f"{verb} {abs(difference):.3g} ±{pair.half_width:.2g} (corrected p {pair.told:.2g})"
    return f"{each.name}, {said}: {verdict}; {_cost(column, task, each)}"


def _cost(column: Column, task: TransferTask, each: Beginning) -> str:
    examples = reaches(each.line, task, column, "examples")
    of = _mean(task.beginnings[0].line, "examples")
    if examples is None or not of:
        return (
            "what random weights end with is not reached"
            if of and each.line.seeds
            else "nothing was measured on the way"
        )
    said = f"what random weights end with after {of[-1][0]:,.0f} examples is reached after {examples:,.0f}"
    flops = None if each.total is None else reaches(each.total, task, column, "flops")
    if flops is None:
        return f"{said}, and what it began with cost nobody knows how much"
    spent = _mean(task.beginnings[0].line, "flops")[-1][0]
    return f"{said}, and after {flops / spent:.2g} times the FLOPs, pretraining counted"


def _with_width(each: Beginning) -> str:
    if each.final is None or not math.isfinite(each.final):
        return "unknown"
    return f"{each.final:.4g}" + (f" ±{each.half_width:.2g}" if each.half_width else "")
