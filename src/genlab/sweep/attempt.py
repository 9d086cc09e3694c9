"""A running trial: its process, its files, and the result of its end."""

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from genlab.launcher.base import Job, Launcher
from genlab.redaction import one_line
from genlab.sweep.ledger import Trial
from genlab.sweep.metric import Metric
from genlab.sweep.trial_files import LOG, Curve, can_go_on, is_finished, last_words, make_ready, saved, signs_of_life
from genlab.trust.strangers import grants

Asked = Literal["", "prune", "stop", "hung"]
_ILLEGAL = 2  # the exit code of an invalid config
_BY_SIGNAL = {128 + int(number) for number in (signal.SIGINT, signal.SIGKILL, signal.SIGUSR1, signal.SIGTERM)}


class Attempt:
    """Starts the trial at once. Raises StorageError if its folder cannot be used."""

    def __init__(
        self,
        trial: Trial,
        folder: Path,
        flags: Sequence[str],
        launcher: Launcher,
        slot: int,
        metric: Metric | None,
        config: DictConfig,
    ):
        self.trial, self.folder, self.slot, self.config = trial, folder, slot, config
        self.asked: Asked = ""
        self.deadline = float("inf")  # for its end, once it was told to stop
        self.goes_on = make_ready(folder)
        self._had_saved = saved(folder)
        log = folder / LOG
        self._log_began = log.stat().st_size if log.exists() else 0
        self.curve = Curve(folder / "metrics.csv", metric)
        self.reported = 0  # values of the curve that the pruner knows
        self.began = self._alive_at = time.monotonic()
        self._signs = signs_of_life(folder)
        self._first: tuple[float, float] | None = None  # time and progress at the first look
        said_again = filter(grants, trial.overrides)  # consent is typed with every command
        words = (
            [f"run={_quoted(folder)}", *said_again] if self.goes_on else [*trial.overrides, f"folder={_quoted(folder)}"]
        )
        command = [sys.executable, "-m", "genlab.cli", "train", *flags, *words]
        self.job: Job = launcher.start(command, {"PYTHONUNBUFFERED": "1"}, log, slot)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def look(self) -> None:
        """Read what it has written."""
        if self.job.is_queued:
            self.began = self._alive_at = time.monotonic()
        self.curve.read()
        signs = signs_of_life(self.folder)
        if signs != self._signs:
            self._signs, self._alive_at = signs, time.monotonic()
        if self._first is None and self.fraction() is not None:
            self._first = time.monotonic(), self.fraction() or 0.0

    def silent_for(self) -> float:
        return time.monotonic() - self._alive_at

    def stop(self, why: Asked, grace: float) -> None:
        self.asked, self.deadline = why, time.monotonic() + grace
        self.job.stop()

    def kill(self, why: Asked) -> None:
        self.asked, self.deadline = why, float("inf")
        self.job.kill()

    def fraction(self) -> float | None:
        """The used share of its budget."""
        target = str(OmegaConf.select(self.config, "budget._target_"))
        used = self.curve.progress.get(target.rpartition(".")[2].lower())
        value = OmegaConf.select(self.config, "budget.value")
        return min(1.0, used / value) if used is not None and isinstance(value, int | float) and value > 0 else None

    def remaining(self) -> float | None:
        """Remaining seconds of training, at the speed since the first look."""
        now = self.fraction()
        if self._first is None or now is None:
            return None
        since, was = self._first
        return (time.monotonic() - since) / (now - was) * (1 - now) if now > was else None

    def conclude(self, code: int, stall_timeout: float | None) -> bool:
        """Write the result into the trial. True: it was ended by a signal that the sweep did not send."""
        trial, said = self.trial, last_words(self.folder, self._log_began)
        trial.exit_code = code
        trial.state, trial.said = "failed", one_line(said.removeprefix("error: "))[:300]
        if code == 0 and is_finished(self.folder):
            trial.state, trial.said = "finished", ""
        elif self.asked == "prune":
            trial.state, trial.said = "pruned", ""
        elif self.asked == "stop":
            trial.state, trial.said = "stopped", "repeat the command to continue it" if can_go_on(self.folder) else ""
        elif self.asked == "hung":
            trial.said = f"hung: no sign of life for {stall_timeout:g} s"
        elif code == 0:
            trial.said = "ended without a summary.json"
        elif code == _ILLEGAL:
            trial.state = "illegal"
        elif code < 0 or code in _BY_SIGNAL:
            how = "preempted or out of time: " * self.job.was_taken
            trial.said = f"{how}killed by {_name(-code if code < 0 else code - 128)}"
            return True
        return False

    def got_on(self) -> bool:
        """Whether it lost its machine, and has saved new progress."""
        return self.job.was_taken and bool(saved(self.folder) - self._had_saved)


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _quoted(path: Path) -> str:
    text = os.fspath(path)
    escaped = text.replace("'", "\\'")
    return text if re.fullmatch(r"[\w./-]+", text) else f"'{escaped}'"
