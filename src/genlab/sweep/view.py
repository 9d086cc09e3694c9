"""The output of a sweep: on a terminal a live table, elsewhere one line per change of state."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from genlab import started_as
from genlab.redaction import one_line
from genlab.sweep.attempt import Attempt
from genlab.sweep.ledger import State, Trial
from genlab.sweep.metric import Metric

COLORS: dict[State, str] = {"waiting": "dim", "running": "cyan", "finished": "green", "pruned": "yellow",
                             "failed": "red", "illegal": "magenta", "stopped": "yellow"}  # fmt: skip
ORDER: tuple[State, ...] = ("running", "failed", "stopped", "illegal", "finished", "pruned", "waiting")
_WIDTH = 160  # of what goes to a file


class View:
    def __init__(self, metric: Metric | None):
        self.metric = metric
        self.console = Console(highlight=False, soft_wrap=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=_WIDTH)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._shared: set[str] = set()  # overrides that are not shown
        self._all: set[str] = set()  # overrides of all that are known
        self._known: set[str] = set()  # trials, by folder

    def __enter__(self) -> "View":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    @property
    def is_live(self) -> bool:
        return self._live.is_started

    def line(self, text: str) -> None:
        self.console.print(escape(f"{time.strftime('%H:%M:%S')} {one_line(text)}"), soft_wrap=True)

    def changed(self, trial: Trial) -> None:
        """Print a trial's new state."""
        value = f" ({self._value(trial)})" if trial.value is not None else ""
        said = f": {trial.said}" if trial.said else ""
        self.line(f"trial {trial.number} {trial.state}{value} {self.name(trial)}{said}")

    def name(self, trial: Trial) -> str:
        """The overrides that distinguish it from other trials."""
        return " ".join(o for o in trial.overrides if o not in self._shared) or " ".join(trial.overrides)

    def know(self, trials: Sequence[Trial]) -> None:
        """Update the trials, so that overrides shared by all are hidden."""
        for trial in trials:
            if trial.folder not in self._known:
                self._all = set(trial.overrides) if not self._known else self._all & set(trial.overrides)
                self._known.add(trial.folder)
        self._shared = self._all if len(self._known) > 1 else set()

    def update(self, trials: Sequence[Trial], running: Mapping[str, Attempt]) -> None:
        if self.is_live:
            room = max(5, self.console.height - 6)
            ordered = sorted(trials, key=lambda trial: (ORDER.index(trial.state), -trial.number))
            self._live.update(self._table(ordered[:room], running, self._counts(trials)), refresh=True)

    def _counts(self, trials: Sequence[Trial]) -> str:
        states = [trial.state for trial in trials]
        return ", ".join(f"{states.count(state)} {state}" for state in ORDER if state in states)

    def _table(self, trials: Sequence[Trial], running: Mapping[str, Attempt], title: str) -> Table:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
        table.add_column("trial", justify="right")
        table.add_column("state")
        table.add_column(self.metric.name if self.metric else "metric", justify="right")
        table.add_column("done", justify="right")
        table.add_column("left" if running else "time", justify="right")
        table.add_column("what", overflow="fold", ratio=1)
        for trial in sorted(trials, key=lambda trial: trial.number):
            attempt = running.get(trial.folder)
            value, done, left = self._value(trial), "", _duration(trial.seconds) if not running else ""
            if attempt is not None:
                value = _number(attempt.curve.values[-1]) if attempt.curve.values else ""
                fraction = attempt.fraction()
                done = "" if fraction is None else f"{fraction:.0%}"
                left = _duration(attempt.remaining())
            said = f"  {trial.said}" if trial.said else ""
            state = f"[{COLORS[trial.state]}]{trial.state}[/]"
            table.add_row(str(trial.number), state, value, done, left, escape(one_line(f"{self.name(trial)}{said}")))
        return table

    def _value(self, trial: Trial) -> str:
        return "" if trial.value is None else _number(trial.value)

    def result(self, trials: Sequence[Trial], folder: Path) -> None:
        """Print the results, best first, and the command to compare them."""
        higher = self.metric is not None and self.metric.direction == "higher"
        self.console.print(self._table(trials, {}, self._counts(trials)))
        judged = [trial for trial in trials if trial.state == "finished" and trial.value is not None]
        if judged and self.metric is not None:
            best = (max if higher else min)(judged, key=lambda trial: trial.value or 0.0)
            self.console.print(
                escape(
                    one_line(f"best: trial {best.number} {self.metric.name} {self._value(best)}  {self.name(best)}")
                ),
                soft_wrap=True,
            )
        if any(trial.state in ("finished", "pruned") for trial in trials):
            self.console.print(
                one_line(f"compare: {started_as.command('compare')} runs={folder}"), soft_wrap=True, markup=False
            )


def _number(value: float) -> str:
    return f"{value:.4g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
