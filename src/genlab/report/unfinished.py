"""Unfinished and failed runs and trials: their state, message, progress and latest numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from genlab.report.curves import AXES, Point, points_of
from genlab.report.names import printable
from genlab.report.runs import Run
from genlab.report.table import escaped, markdown_line
from genlab.report.trials import STATES, Sweep, Trial, given, known

ORDER = ("running", "stopped", "failed", "pruned", "illegal", "waiting", "")
MOST_METRICS = 6
MOST_ROWS = 100


@dataclass(frozen=True)
class Unfinished:
    name: str  # of a trial its own overrides, of another run its folder
    state: str  # one of trials.STATES; "": unknown, for a run outside of a sweep
    progress: str  # how far; "": there is no run
    said: str
    latest: dict[str, Point]  # by metric: the last number of each

    def line(self) -> str:
        parts = [part for part in (self.state, self.progress, self.said) if part]
        return printable(f"{self.name}: {'; '.join(parts)}")


def unfinished(runs: Sequence[Run], sweeps: Sequence[Sweep]) -> list[Unfinished]:
    """``runs`` without a summary, and the trials that never got a run; those that still run first."""
    of_trials = known(sweeps)
    found = [_of_run(run, of_trials.get(run.folder.resolve()), sweeps) for run in runs]
    for sweep in sweeps:
        for trial in sweep.trials:
            if trial.folder is None or not (trial.folder / "config.yaml").is_file():
                found.append(Unfinished(_name(trial, sweep), trial.state, "", trial.said, {}))
    return sorted(found, key=lambda one: ORDER.index(one.state) if one.state in ORDER else len(ORDER))


def _of_run(run: Run, trial: Trial | None, sweeps: Sequence[Sweep]) -> Unfinished:
    latest = {name: points[-1] for name, points in points_of(run.logged).items()}
    if trial is None:
        return Unfinished(str(run.folder), "", run.state(), "", latest)
    sweep = next(sweep for sweep in sweeps if trial in sweep.trials)
    return Unfinished(_name(trial, sweep), trial.state, run.state(), trial.said, latest)


def _name(trial: Trial, sweep: Sweep) -> str:
    own, varied = given(trial), sweep.varied
    words = [f"{name}={own[name]}" for name in varied if name in own] or list(trial.overrides)
    return printable(f"trial {trial.number} ({' '.join(words)})" if words else f"trial {trial.number}")


def tally(sweep: Sweep) -> str:
    """``20 trials: 9 finished, 1 running, 10 failed``"""
    count = {state: sum(trial.state == state for trial in sweep.trials) for state in STATES}
    told = ", ".join(f"{n} {state}" for state, n in count.items() if n)
    return printable(f"{sweep.folder}: {len(sweep.trials)} trials: {told}")


def so_far(found: Sequence[Unfinished]) -> tuple[list[str], list[list[str]]]:
    """The latest numbers as a table of words, which is none of the comparison: each is of another moment, and of few
    samples. -> heading, rows."""
    having = [one for one in found if one.latest][:MOST_ROWS]
    if not having:
        return [], []
    count: dict[str, int] = {}
    for one in having:
        for name in one.latest:
            count[name] = count.get(name, 0) + 1
    shown = sorted(count, key=lambda name: -count[name])[:MOST_METRICS]
    rows = [
        [
            one.name,
            one.state or "–",
            f"{max(p.examples for p in one.latest.values()):,.0f}",
            *(f"{one.latest[name].value:.4g}" if name in one.latest else "–" for name in shown),
        ]
        for one in having
    ]
    return ["", "state", AXES[0], *(printable(f"val/{name}") for name in shown)], rows


def lined_up(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    return [
        "  ".join(
            [words[0].ljust(widths[0]), *(w.rjust(n) for w, n in zip(words[1:], widths[1:], strict=True))]
        ).rstrip()
        for words in (heading, *rows)
    ]


def as_markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [markdown_line(list(map(escaped, heading))), markdown_line(["---", *["---:"] * (len(heading) - 1)])]
    return [*lines, *(markdown_line(list(map(escaped, row))) for row in rows)]
