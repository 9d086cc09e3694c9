"""``genlab compare``: tables, plots and samples of several runs. Reads files only; builds no model."""

import datetime
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from genlab.errors import ConfigError, StorageError, did_you_mean
from genlab.files.paths import read_path
from genlab.former_names import current_number
from genlab.progress import progress
from genlab.redaction import for_terminal
from genlab.report.columns import TITLES, Column, columns, counts, over_seeds
from genlab.report.configurations import configurations
from genlab.report.differences import as_csv, matrices
from genlab.report.grids import MOST, Tile, side_by_side
from genlab.report.labels import Labels, labels
from genlab.report.latex import latex
from genlab.report.marks import legend, marks
from genlab.report.measurement import differences
from genlab.report.names import printable
from genlab.report.notes import headline, notes
from genlab.report.page.content import page_content
from genlab.report.page.pictures import pictures
from genlab.report.page.write import write_page
from genlab.report.protocol import Chosen, check_data, choose, described
from genlab.report.runs import Run, read_places
from genlab.report.table import Member, Table, escaped
from genlab.report.transfer import Transfer
from genlab.report.transfer import transfer as of_transfer
from genlab.report.trials import Sweep, known
from genlab.report.unfinished import Unfinished, as_markdown, lined_up, so_far, tally, unfinished

Sections = list[tuple[str, list[str]]]
UNFINISHED = "Not finished, so not in the table"
TRANSFER = "What they began with"
LEFT_OUT = "Left out, since it cannot be read"
SO_FAR = "Latest numbers of unfinished runs, each from its last evaluation"


def compare(
    places: Sequence[str],  # run folders, and folders that hold some
    out: str | None = None,  # null: comparison-<time> beside the runs
    sort: str | None = None,  # a column; null: the first metric
    protocol: str | None = None,  # the id of one that all runs were measured with; null: see protocol.choose
    allow_unequal: bool = False,  # show and mark numbers measured by another protocol, instead of refusing them
    plots: bool = True,  # curves, sampling costs, and for a sweep the effect of its settings
    wandb: bool = False,  # the table and the plots to Weights & Biases too
    transfer: bool = False,  # what beginning with other weights gains too
) -> None:
    """Print a table of runs; keep it as ``comparison.md``, ``.csv`` and ``.tex``, the samples as ``.png``; draw plots.
    ``report.html`` holds all of it in one file.

    Runs, curves or grids that cannot be read are left out and named. Raises ConfigError where nothing is
    left or runs cannot be compared, and StorageError.
    """
    if not places:
        raise ConfigError("runs=[] names no folder. Set it: runs=outputs/<model>-<data>")
    found = read_places(places)
    runs, sweeps = found.runs, found.sweeps
    with progress(f"reading the logs of {len(runs):,} runs", len(runs)) as advance:
        for run in runs:
            _ = run.logged  # kept by the run
            advance(1)
    done, others = _apart(runs, sweeps)
    apart = unfinished(others, sweeps)
    folder = _folder(out, [*(run.folder.resolve().parent for run in runs), *(s.folder.resolve() for s in sweeps)])
    groups = configurations(done)
    called = labels([*done, *others], groups)
    table, first, chosen, told, tiles, noted = None, None, None, "no run has finished yet", [], []
    gained: Transfer | None = None
    sections: Sections = []
    if done:
        check_data(done, called.runs[: len(done)], allow_unequal)
        chosen = choose(done, called.runs[: len(done)], protocol, allow_unequal)
        table, first, partial = _table(done, called, groups, chosen, sort and current_number(sort))
        told = headline(chosen)
        ranked = [row for row in table.order if row < len(groups)]
        where = [f"{called.with_hidden(run)}: {done[run].folder}" for row in ranked for run in groups[row]]
        noted = notes(done, called.runs[: len(done)], groups, chosen, partial, sweeps)
        noted += [called.between_models()] if called.unnamed else []
        gained = of_transfer(done, groups, first) if transfer else None
        sections = [("Runs", where), *([(TRANSFER, gained.lines())] if gained else []), ("Notes", noted)]
        tiles = [(table.names[row], _caption(table, first, row), done[groups[row][0]].grid) for row in ranked[:MOST]]
        tiles = tiles if any(grid is not None for *_, grid in tiles) else []
    drawings = pictures([run.folder for run in [*done, *others]])
    left_out = [*found.left_out, *(run.logged.problem for run in runs if run.logged.problem), *drawings.unreadable]
    sections += [
        ("Sweeps", [tally(sweep) for sweep in sweeps]),
        (UNFINISHED, [one.line() for one in apart]),
        (LEFT_OUT, [printable(line) for line in left_out]),
    ]
    signs = [] if table is None else _legend(table)
    content = page_content(
        told,
        table,
        first,
        chosen,
        done,
        groups,
        others,
        called,
        sweeps,
        signs,
        [*(gained.lines() if gained else []), *noted, *left_out],
        [one.line() for one in apart],
        drawings,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        print(_escaped_but_bold(_terminal(told, table, sections, apart)), flush=True)  # drawing takes a while
        with progress("drawing plots", None):
            drawn = _draw(folder, table, first, done, groups, others, called, sweeps, gained) if plots else []
        written = _write(folder, told, table, sections, apart, tiles, drawn)
        if gained is not None:
            (folder / "transfer.csv").write_text(for_terminal(gained.csv()), encoding="utf-8")
            written.append("transfer.csv")
        write_page(content, folder / "report.html")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(f"cannot write to {folder} ({reason}). Choose another place: out=<folder>") from error
    and_plots = f" and {len(drawn) // 2} plots" if drawn else ""
    print(for_terminal(f"\nwritten: {folder}/{', '.join(written)}{and_plots}\nthe page: {folder}/report.html"))
    if wandb:
        from genlab.report.upload import upload

        images = [folder / name for name in [*["comparison.png"] * bool(tiles), *drawn] if name.endswith(".png")]
        print(f"W&B: {upload(table, images, places, folder)}")


def _apart(runs: Sequence[Run], sweeps: Sequence[Sweep]) -> tuple[list[Run], list[Run]]:
    """Finished runs, and the others. A pruned trial is not finished, even if it has a summary."""
    of_trials = known(sweeps)
    done: list[Run] = []
    others: list[Run] = []
    for run in runs:
        trial = of_trials.get(run.folder.resolve())
        ended = run.costs is not None and (trial is None or trial.state not in ("pruned", "illegal"))
        (done if ended else others).append(run)
    return done, others


def _table(
    runs: Sequence[Run], called: Labels, groups: Sequence[tuple[int, ...]], chosen: Chosen, sort: str | None
) -> tuple[Table, Column | None, list[str]]:
    """The table, the column it is sorted by, and the metrics that only some runs have."""
    baselines = _baselines(chosen)
    of_runs, partial = columns(runs, chosen, baselines)
    found = [*counts(groups, len(baselines)), *(over_seeds(column, groups) for column in of_runs)]
    first = _sorted_by(found, sort)
    rows = range(len(groups) + len(baselines))
    order = sorted(rows, key=lambda row: (row >= len(groups), 0 if first is None else first.worth(row), row))
    remarks = {i: described(differing) for i, differing in chosen.unequal.items()}
    marked = frozenset(row for row, group in enumerate(groups) if any(i in chosen.unequal for i in group))
    budgets = {run.budget for run in runs}
    given = next(iter(budgets))[0] if len(budgets) == 1 else None
    members = [
        [
            Member(
                called.runs[i],
                runs[i].seed,
                str(runs[i].folder),
                chosen.protocol_ids.get(i, ""),
                remarks.get(i, ""),
                called.details([i]),
            )
            for i in group
        ]
        for group in groups
    ]
    table = Table(
        columns=found,
        marks=[marks(c, len(groups), marked if c.is_quality else (), c.name == given) for c in found],
        names=[*called.rows, *map(printable, baselines)],
        members=members,
        marked=marked,
        order=order,
        protocol_id=next((key for i, key in chosen.protocol_ids.items() if chosen.measured[i] is chosen.standard), ""),
    )
    return table, first, partial


def _baselines(chosen: Chosen) -> dict[str, dict[str, float]]:
    """The baselines of the first evaluation by the standard's protocol."""
    for measurement in chosen.measured.values():
        assert chosen.standard is not None
        if measurement.baselines and not differences(measurement.protocol, chosen.standard.protocol):
            return measurement.baselines
    return {}


def _sorted_by(found: Sequence[Column], sort: str | None) -> Column | None:
    """Raises ConfigError for an unknown column, or one without a better direction."""
    if sort is None:
        ranked = [column for column in found if column.direction]
        quality = [column for column in ranked if column.is_quality]
        return next(iter(quality or [column for column in ranked if column.name in TITLES]), None)
    column = next((column for column in found if sort in (column.name, column.key)), None)
    known_columns = [column.name for column in found if column.direction]
    if column is None:
        raise ConfigError(
            f"sort={sort}: there is no such column.{did_you_mean(sort, known_columns)} "
            f"Columns: {', '.join(known_columns)}."
        )
    if column.direction is None:
        raise ConfigError(f"sort={sort}: neither low nor high is better. Sort by one of: {', '.join(known_columns)}.")
    return column


def _caption(table: Table, sorted_by: Column | None, row: int) -> str:
    """A configuration's first metric, or the one that is sorted by."""
    column = sorted_by if sorted_by and sorted_by.is_quality else _sorted_by(table.columns, None)
    mark = "* (other protocol)" if row in table.marked else ""
    return "" if column is None else f"{column.key} {column.cell(row, table.configurations)}{mark}"


def _draw(
    folder: Path,
    table: Table | None,
    first: Column | None,
    done: Sequence[Run],
    groups: Sequence[tuple[int, ...]],
    others: Sequence[Run],
    called: Labels,
    sweeps: Sequence[Sweep],
    gained: Transfer | None,
) -> list[str]:
    """Plots of the table, and curves also of unfinished runs. -> their files."""
    order = [] if table is None else [row for row in table.order if row < len(groups)]
    named = [(table.names[row], [done[i].logged for i in groups[row]]) for row in order if table is not None]
    going = zip(called.runs[len(done) :], others, strict=True)
    named += [(f"{name} (not finished)", [run.logged]) for name, run in going]
    quality = first if first is not None and (first.is_quality or first.name in TITLES) else None
    if table is not None and quality is None:
        quality = _sorted_by(table.columns, None)
    from genlab.report.plots import draw

    return draw(named, table, quality, sweeps, folder, gained)


def _write(
    folder: Path,
    told: str,
    table: Table | None,
    sections: Sections,
    apart: Sequence[Unfinished],
    tiles: Sequence[Tile],
    drawn: Sequence[str],
) -> list[str]:
    """-> names of the files. Raises OSError."""
    files = {"comparison.md": _markdown(told, table, sections, apart, bool(tiles), drawn)}
    if table is not None:
        files |= {"comparison.csv": table.csv(), "comparison.tex": latex(table, told, _legend(table))}
        files |= {"differences.csv": told} if (told := as_csv(table)) else {}
    for name, text in files.items():
        (folder / name).write_text(for_terminal(text), encoding="utf-8")  # where people look at it
    if tiles:
        side_by_side(tiles, folder / "comparison.png")
    return [*files, *["comparison.png"] * bool(tiles)]


def _legend(table: Table) -> list[str]:
    return legend(table.marks, any(len(members) > 1 for members in table.members))


def _terminal(told: str, table: Table | None, sections: Sections, apart: Sequence[Unfinished]) -> str:
    parts = [told]
    if table is not None:
        width = shutil.get_terminal_size(fallback=(1000, 24)).columns
        signs = _legend(table)
        parts += ["", table.text(width, bold=_shows_bold()), *([""] * bool(signs)), *signs]
    for title, lines in [*sections, (SO_FAR, lined_up(*so_far(apart)))]:
        parts += ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []
    return "\n".join(parts)


def _escaped_but_bold(text: str) -> str:
    return "".join(
        part if part in ("\x1b[1m", "\x1b[0m") else for_terminal(part) for part in re.split("(\x1b\\[[01]m)", text)
    )


def _shows_bold() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _markdown(
    told: str, table: Table | None, sections: Sections, apart: Sequence[Unfinished], picture: bool, drawn: Sequence[str]
) -> str:
    parts = ["# Comparison", "", escaped(told)]
    if table is not None:
        signs = [f"* {escaped(line)}" for line in _legend(table)]
        parts += ["", table.markdown(), *([""] * bool(signs)), *signs, *matrices(table)]
    parts += ["", "![Samples](comparison.png)"] if picture else []
    for name in drawn:
        parts += ["", f"![{Path(name).stem}]({name})"] if name.endswith(".svg") else []
    for title, lines in sections:
        parts += ["", f"## {title}", "", *(f"* {escaped(line)}" for line in lines)] if lines else []
    latest = as_markdown(*so_far(apart))
    parts += ["", f"## {SO_FAR}", "", *latest] if latest else []
    return "\n".join(parts) + "\n"


def _folder(out: str | None, places: Sequence[Path]) -> Path:
    """Where the comparison goes: ``out``, or beside the runs, in the innermost folder that holds them all."""
    if out is not None:
        return read_path(out)
    together = Path(os.path.commonpath(places))
    here = Path.cwd()
    shown = together.relative_to(here) if together.is_relative_to(here) else together
    return shown / f"comparison-{datetime.datetime.now():%Y%m%d-%H%M%S}"
