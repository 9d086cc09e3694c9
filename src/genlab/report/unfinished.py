"""Unfinished and failed runs and trials: their state, message, progress and latest numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from genlab.report.curves import AXES, Point, points_of
from genlab.report.label_words import Word, ends
from genlab.report.labels import LONGEST, fitted
from genlab.report.names import ABSENT, Place, printable, short, texts
from genlab.report.runs import Run
from genlab.report.table import escaped, markdown_line
from genlab.report.trials import STATES, Sweep, given, known

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
    called = {id(trial): name for sweep in sweeps for trial, name in zip(sweep.trials, _names(sweep), strict=True)}
    found = []
    for run in runs:
        trial = of_trials.get(run.folder.resolve())
        latest = {name: points[-1] for name, points in points_of(run.logged).items()}
        if trial is None:
            found.append(Unfinished(str(run.folder), "", run.state(), "", latest))
        else:
            found.append(Unfinished(called[id(trial)], trial.state, run.state(), trial.said, latest))
    for sweep in sweeps:
        for trial in sweep.trials:
            if trial.folder is None or not (trial.folder / "config.yaml").is_file():
                found.append(Unfinished(called[id(trial)], trial.state, "", trial.said, {}))
    return sorted(found, key=lambda one: ORDER.index(one.state) if one.state in ORDER else len(ORDER))


def _names(sweep: Sweep) -> list[str]:
    """Of its trials: each has its number, and what of it not all trials share, as labels of runs say it."""
    own = [given(trial) for trial in sweep.trials]
    paths = {name: name.lstrip("+~").replace("/", ".") for name in sweep.varied}
    short_of = ends(list(paths.values()), [])
    words: list[list[Word]] = [[] for _ in own]
    for name, path in paths.items():
        values = [_node(settings.get(name)) for settings in own]
        for i, (node, text) in enumerate(zip(values, texts(values), strict=True)):
            if node is not ABSENT:
                words[i].append(Word(path, f"{short_of[path]}={text}"))
    found = []
    for trial, named in zip(sweep.trials, words, strict=True):
        room = LONGEST - len(f"trial {trial.number} ()")
        told = fitted("", named or [Word(o, short(o)) for o in trial.overrides], room)[0].strip()
        found.append(f"trial {trial.number} ({told})" if told else f"trial {trial.number}")
    return found


def _node(value: str | None) -> object:
    return ABSENT if value is None else Place(value) if "/" in value else value


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
