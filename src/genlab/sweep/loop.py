"""The sweep loop: starts trials as slots become free, watches running ones, and saves their results.

A failing trial does not affect others, and trials only wait for slots.
"""

import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from genlab.config.tree import check_complete
from genlab.errors import ConfigError, GenlabError, StorageError
from genlab.files.lock import is_occupied
from genlab.sweep.attempt import Attempt
from genlab.sweep.ledger import BEAT, FINAL, Ledger, Trial
from genlab.sweep.metric import first_measured
from genlab.sweep.plain_file import PlainFile
from genlab.sweep.plan import Plan
from genlab.sweep.trial_files import check_is_own, final_value, forget, is_finished
from genlab.sweep.view import View

TICK = 0.1  # seconds between two looks at whether a trial has ended
_LOOK = 1.0  # at its files


class TrialsFailed(GenlabError):
    """The sweep is finished, but some trials failed."""

    exit_code = 8


class SweepStopped(GenlabError):
    prefix = ""

    def __init__(self, number: int, message: str):
        super().__init__(f"stopped by {signal.Signals(number).name}; {message}")
        self.exit_code = 128 + number


def sweep(plan: Plan) -> None:
    """Run the missing trials. Raises SweepStopped, TrialsFailed, and ConfigError if no trial could be run at all."""
    Sweep(plan).run()


class Sweep:
    def __init__(self, plan: Plan):
        """Raises StorageError if the sweep's folder cannot be made, or its ledger cannot be read."""
        self.plan, self.metric = plan, plan.metric
        try:
            plan.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to {plan.folder} ({(error.strerror or str(error)).lower()}).") from error
        self.ledger = Ledger(plan.folder, plan.settings.storage, plan.metric, plan.settings.pruner)
        self.view = View(plan.metric)
        self._plain = PlainFile(plan.folder, plan.command)
        self.running: dict[str, Attempt] = {}  # by folder
        self.again: list[Trial] = []  # to be retried
        self.signals: list[int] = []  # received so far
        self._told_to_stop = 0  # of them
        self._retried: Counter[str] = Counter()
        self._blocked: set[str] = set()  # folders that some other process still writes to
        self._beat_at = self._looked_at = 0.0

    def run(self) -> None:
        self.ledger.give_up_the_dead()
        begun = self.ledger.trials()
        mine = self._wanted(begun)
        self.again = [trial for trial in mine if trial.state not in (*FINAL, "running")]
        self._note()
        ours = {trial.folder for trial in mine}
        if others := [trial for trial in begun if trial.folder not in ours and trial.state not in FINAL]:
            self.view.line(f"{len(others)} trials of the ledger do not belong to this command and are ignored")
        kept = sum(trial.state in FINAL for trial in begun)
        self.view.line(
            f"sweep {self.plan.folder}: {len(self.planned())} trials planned, {kept} done before, "
            f"{len(self.again)} to be retried, {self.plan.launcher.slots} at a time"
        )
        with self._listening(), self.view:
            try:
                while True:
                    more = not self.signals and self._fill()
                    self._watch()
                    if not self.running and not more:
                        break
                    time.sleep(TICK)
            finally:
                for attempt in self.running.values():  # an error of the sweep's own
                    attempt.kill("stop")
        self._conclude()

    def planned(self) -> list[Trial]:
        return self.plan.proposals.planned(self.plan.space, self.ledger)

    def _wanted(self, trials: Sequence[Trial]) -> list[Trial]:
        """The trials of this command: the ledger may hold others, of an earlier one."""
        return self.plan.proposals.wanted(self.plan.space, trials)

    def _fill(self) -> bool:
        """Start trials while there are free slots. Whether there is, or may be, more to do."""
        while len(self.running) < self.plan.launcher.slots:
            trial = self._next()
            if trial is None:
                return bool(self.again)
            self._begin(trial)
            if self.signals:
                return False
        return True

    def _next(self) -> Trial | None:
        """A trial that this sweep has claimed."""
        for trial in list(self.again):
            if self._is_occupied(self.plan.folder / trial.folder):
                if trial.folder not in self._blocked:
                    self._blocked.add(trial.folder)
                    self.view.line(f"trial {trial.number} waits: another process still uses {trial.folder}")
                continue
            self.again.remove(trial)
            if claimed := self.ledger.claim(trial):
                return claimed
        return self.plan.proposals.next(self.plan.space, self.ledger)

    def _is_occupied(self, folder: Path) -> bool:
        """Whether another process trains there. Folders of other origin are reported when the trial starts."""
        try:
            check_is_own(folder)
        except StorageError:
            return False
        return is_occupied(folder)

    def _begin(self, trial: Trial) -> None:
        """Start it, if its config is valid as far as can be checked without torch, and it is not finished."""
        folder = self.plan.folder / trial.folder
        try:
            check_is_own(folder)
            if is_finished(folder):  # it ended after its sweep did
                self._end(trial, 0.0, "finished")
                return
            config = self._legal(trial)
            slot = min(set(range(self.plan.launcher.slots)) - {attempt.slot for attempt in self.running.values()})
            attempt = Attempt(trial, folder, self.plan.flags, self.plan.launcher, slot, self.metric, config)
        except (ConfigError, StorageError) as error:
            trial.said, trial.exit_code = str(error), error.exit_code
            self._end(trial, 0.0, "illegal" if isinstance(error, ConfigError) else "failed")
            return
        self.running[trial.folder] = attempt
        self._note()
        trial.said = "continues from its checkpoint" if attempt.goes_on else ""
        self.view.changed(trial)
        trial.said = ""

    def _legal(self, trial: Trial) -> DictConfig:
        config = self.plan.tree.compose(trial.overrides)
        check_complete(config)
        return config

    def _watch(self) -> None:
        """Watch running trials, and save the results of ended ones."""
        for attempt in list(self.running.values()):
            code = attempt.job.poll()
            if code is not None:
                self._ended(attempt, code)
        now = time.monotonic()
        if now - self._beat_at > BEAT:
            self._beat_at = now
            self.ledger.beat([attempt.trial for attempt in self.running.values()])
        if len(self.signals) > self._told_to_stop:
            self._stop()
        if now - self._looked_at > _LOOK:
            self._looked_at = now
            for attempt in self.running.values():
                self._look(attempt)
            self.view.update(self.planned() if self.view.is_live else [], self.running)

    def _look(self, attempt: Attempt) -> None:
        attempt.look()
        timeout = self.plan.settings.stall_timeout
        if time.monotonic() > attempt.deadline:
            attempt.kill(attempt.asked)
        elif not attempt.asked and timeout is not None and attempt.silent_for() > timeout:
            attempt.kill("hung")
        elif not attempt.asked and self._is_hopeless(attempt):
            attempt.stop("prune", self.plan.settings.grace)

    def _is_hopeless(self, attempt: Attempt) -> bool:
        """Whether the pruner stops a trial, given its new values. A trial's n-th evaluation is its step n."""
        fraction = attempt.fraction()
        new = attempt.curve.values[attempt.reported :]
        if not new or (fraction is not None and fraction >= 1):  # it only evaluates: let it
            return False
        verdicts = [self.ledger.is_hopeless(attempt.trial, attempt.reported + i, v) for i, v in enumerate(new, 1)]
        attempt.reported += len(new)
        return any(verdicts)

    def _ended(self, attempt: Attempt, code: int) -> None:
        del self.running[attempt.trial.folder]
        attempt.look()
        trial = attempt.trial
        was_killed = attempt.conclude(code, self.plan.settings.stall_timeout)
        self._end(trial, attempt.seconds, trial.state, last=attempt.curve.values)
        if was_killed and not self.signals:
            got_on = attempt.got_on()
            if got_on or self._retried[trial.folder] < self.plan.settings.retries:
                self._retried[trial.folder] += not got_on
                self.again.append(trial)

    def _end(self, trial: Trial, seconds: float, state: Any, last: list[float] | None = None) -> None:
        """Save and print a trial's end."""
        trial.state = state
        folder = self.plan.folder / trial.folder
        if state == "finished":
            if self.metric is None:
                self.metric = self.view.metric = first_measured(folder)
            trial.value = None if self.metric is None else final_value(folder, self.metric)
            if trial.value is None and self.plan.metric is not None:
                trial.said = f"it has no number for {self.plan.metric.name}"
        elif state == "pruned" and last:
            trial.value = last[-1]
        elif state == "illegal":
            forget(folder)
        self.ledger.end(trial, seconds)
        self.plan.proposals.told(trial)
        self._note()
        self.view.changed(trial)

    def _note(self) -> None:
        """Update the plain file."""
        trials = self.planned()
        self.view.know(trials)
        self._plain.write(self.metric, trials)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def hear(number: int, frame: FrameType | None) -> None:
            self.signals.append(number)

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        """Tell trials to save and stop; at a second signal, kill them."""
        first, self._told_to_stop = self._told_to_stop == 0, len(self.signals)
        if first and self.running:
            self.view.line(f"stopping: {len(self.running)} trials save their state. Press again to kill them.")
        for attempt in self.running.values():
            if first:
                attempt.stop("stop", self.plan.settings.grace)
            else:
                attempt.kill("stop")

    def _conclude(self) -> None:
        trials = self.planned()
        self.view.result(trials, self.plan.folder)
        mine = self._wanted(trials)
        count = Counter(trial.state for trial in mine)
        if self.signals:
            left = f"{count['stopped']} trials were stopped, {count['waiting']} not begun"
            raise SweepStopped(self.signals[0], f"{left}. Continue with the same command: {self.plan.command}")
        if mine and count["illegal"] == len(mine):
            raise ConfigError(f"no trial can be run. {mine[0].said.removeprefix('error: ')}")
        if failed := [trial for trial in mine if trial.state in ("failed", "stopped")]:
            raise TrialsFailed(
                f"{len(failed)} of {len(mine)} trials failed. Their output is in {self.plan.folder}/"
                "<folder>/trial.log; the same command retries them."
            )
