"""Runs beside each other: which is best, at what cost, and what they draw. Reads files; builds no model."""

import datetime
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from genlab.errors import ConfigError, StorageError, did_you_mean
from genlab.report.columns import TITLES, Column, columns
from genlab.report.grids import side_by_side
from genlab.report.measurement import differences
from genlab.report.names import names, printable
from genlab.report.protocol import Chosen, check_data, choose, described
from genlab.report.runs import Run, read_runs
from genlab.report.table import Table, escaped


def compare(
    places: Sequence[str],  # run folders, and folders that hold some
    out: str | None = None,  # null: comparison-<time> beside the runs
    sort: str | None = None,  # a column; null: the first metric
    protocol: str | None = None,  # the id of one that all runs were measured with; null: see protocol.choose
    allow_unequal: bool = False,  # numbers that were measured otherwise are shown and marked, not refused
) -> None:
    """Print a table of runs; keep it as ``comparison.md``, ``.csv`` and, with the samples, ``.png``.

    Raises ConfigError for what is no run or cannot be compared, DataError for a damaged grid, StorageError.
    """
    if not places:
        raise ConfigError("runs=[] names no folder. Set it: runs=outputs/<model>-<data>")
    runs = read_runs(places)
    done, unfinished = ([run for run in runs if (run.costs is None) == missing] for missing in (False, True))
    if not done:
        states = "; ".join(f"{run.folder}: {run.state()}" for run in unfinished)
        raise ConfigError(f"no run has finished (no summary.json): {states}.")
    labels, left_over = names(done)
    check_data(done, labels, allow_unequal)
    chosen = choose(done, labels, protocol, allow_unequal)
    table, first, partial = _table(done, labels, chosen, sort)
    notes = _notes(done, labels, chosen, partial)
    ranked = [row for row in table.order if row < len(done)]
    more = [", ".join(word for d in left_over for word in d.of(row)) for row in range(len(done))]
    where = [f"{labels[row]}{f' ({more[row]})' if more[row] else ''}: {done[row].folder}" for row in ranked]
    apart = [f"{run.folder}: {run.state()}" for run in unfinished]

    folder = _folder(out, [run.folder for run in runs])
    tiles = [(labels[row], _caption(table, first, row), done[row].grid) for row in ranked]
    sections = [("Runs", where), ("Notes", notes), ("Not finished (no summary.json)", apart)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "comparison.csv").write_text(table.csv(), encoding="utf-8")
        (folder / "comparison.md").write_text(_markdown(_headline(chosen), table, sections), encoding="utf-8")
        side_by_side(tiles, folder / "comparison.png")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(f"cannot write to {folder} ({reason}). Choose another place: out=<folder>") from error
    print(_terminal(_headline(chosen), table, sections))
    print(f"\nwritten: {folder}/comparison.md, .csv, .png")


def _table(
    runs: Sequence[Run], labels: Sequence[str], chosen: Chosen, sort: str | None
) -> tuple[Table, Column | None, list[str]]:
    """The table, the column it is sorted by, and the metrics that only some runs have."""
    baselines = _baselines(chosen)
    found, partial = columns(runs, chosen, baselines)
    first = _sorted_by(found, sort)
    rows = range(len(runs) + len(baselines))
    order = sorted(rows, key=lambda row: (row >= len(runs), 0 if first is None else first.worth(row), row))
    remarks = {i: described(differing) for i, differing in chosen.unequal.items()}
    standard_id = next((key for i, key in chosen.protocol_ids.items() if chosen.measured[i] is chosen.standard), "")
    return (
        Table(
            columns=found,
            names=[*labels, *map(printable, baselines)],
            runs=len(runs),
            marked=frozenset(chosen.unequal),
            order=order,
            folders=[str(run.folder) for run in runs],
            protocol_ids=[chosen.protocol_ids.get(row, "") if row < len(runs) else standard_id for row in rows],
            remarks=[remarks.get(row, "") for row in rows],
        ),
        first,
        partial,
    )


def _baselines(chosen: Chosen) -> dict[str, dict[str, float]]:
    """Those that came with an evaluation of the standard's protocol; of several, the first."""
    for measurement in chosen.measured.values():
        assert chosen.standard is not None
        if measurement.baselines and not differences(measurement.protocol, chosen.standard.protocol):
            return measurement.baselines
    return {}


def _sorted_by(found: Sequence[Column], sort: str | None) -> Column | None:
    """Raises ConfigError for a name that is no column, or one of which neither low nor high is better."""
    if sort is None:
        ranked = [column for column in found if column.direction]
        quality = [column for column in ranked if column.is_quality]
        return next(iter(quality or [column for column in ranked if column.name in TITLES]), None)
    column = next((column for column in found if sort in (column.name, column.key)), None)
    known = [column.name for column in found if column.direction]
    if column is None:
        raise ConfigError(f"sort={sort}: there is no such column.{did_you_mean(sort, known)} "
                          f"Columns: {', '.join(known)}.")  # fmt: skip
    if column.direction is None:
        raise ConfigError(f"sort={sort}: neither low nor high is better. Sort by one of: {', '.join(known)}.")
    return column


def _headline(chosen: Chosen) -> str:
    """What the quality columns were measured with."""
    if chosen.standard is None:
        return "no run has metrics"
    p = chosen.standard.protocol
    if "tokenizer" in p:
        told = f"the whole held-out text ({p.get('reference')}), in windows of {p.get('context')} tokens"
    else:
        told = (f"{p.get('num_samples')} samples against {p.get('num_reference')} images ({p.get('reference')}), "
                f"features {p.get('extractor')}, seed {p.get('seed')}")  # fmt: skip
    marked = "; * measured otherwise, see the notes" if chosen.unequal else ""
    return printable(f"{told}{marked}")


def _notes(runs: Sequence[Run], labels: Sequence[str], chosen: Chosen, partial: Sequence[str]) -> list[str]:
    """What has to be known to read the table rightly."""
    found = [f"* {labels[i]} was measured otherwise: {described(d)}" for i, d in chosen.unequal.items()]
    if partial:
        found.append(f"measured of some runs only, so left out: {', '.join(map(printable, partial))}")
    unmeasured = [i for i in range(len(runs)) if i not in chosen.measured]
    for i in unmeasured:
        found.append(f"{labels[i]} has no metrics: python scripts/evaluate.py run={runs[i].folder}")
    for run, label in zip(runs, labels, strict=True):
        found += [f"{label}: {name} contradicts summary.json (other weights or sampling settings?), so it is left out"
                  for name in run.stale]  # fmt: skip
    hardware = {i: run.hardware or "unknown" for i, run in enumerate(runs)}
    found += _unlike("seconds, memory and speed are of different hardware", hardware, labels)
    return found


def _unlike(what: str, values: dict[int, str], labels: Sequence[str]) -> list[str]:
    if len(set(values.values())) < 2:
        return []
    return [f"{what}: " + "; ".join(f"{printable(value)} ({labels[i]})" for i, value in values.items())]


def _caption(table: Table, sorted_by: Column | None, row: int) -> str:
    """A run's first metric, or the one that is sorted by."""
    column = sorted_by if sorted_by and sorted_by.is_quality else _sorted_by(table.columns, None)
    mark = "* (measured otherwise)" if row in table.marked else ""
    return "" if column is None else f"{column.key} {column.cell(row, table.runs)}{mark}"


def _terminal(headline: str, table: Table, sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    parts = [headline, "", table.text(shutil.get_terminal_size(fallback=(1000, 24)).columns)]
    for title, lines in sections:
        parts += ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []
    return "\n".join(parts)


def _markdown(headline: str, table: Table, sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    parts = ["# Comparison", "", escaped(headline), "", table.markdown(), "", "![Samples](comparison.png)"]
    for title, lines in sections:
        parts += ["", f"## {title}", "", *(f"* {escaped(line)}" for line in lines)] if lines else []
    return "\n".join(parts) + "\n"


def _folder(out: str | None, runs: Sequence[Path]) -> Path:
    """Where the comparison goes: ``out``, or beside the runs, in the innermost folder that holds them all."""
    if out is not None:
        return Path(out)
    together = Path(os.path.commonpath([run.resolve().parent for run in runs]))
    here = Path.cwd()
    shown = together.relative_to(here) if together.is_relative_to(here) else together
    return shown / f"comparison-{datetime.datetime.now():%Y%m%d-%H%M%S}"
