"""The ledger of a sweep's trials and their results: an Optuna storage, which several machines may share.

Its rows are attempts. An attempt belongs to whoever wrote it first: of two machines that claim the same trial, the
one whose attempt has the lower number has it. A trial is all attempts in one folder, and is in the state of the last.
"""

import logging
import os
import socket
import sqlite3
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from genlab.errors import ConfigError, GenlabError, StorageError
from genlab.redaction import one_line
from genlab.sweep.metric import Metric
from genlab.sweep.other_values import holds, stored_names
from genlab.sweep.rows import ATTEMPT, END, LOST, Row, read_row
from genlab.sweep.space import folder_of

State = Literal["waiting", "running", "finished", "pruned", "failed", "illegal", "stopped"]
FILE = "ledger.db"
FINAL = ("finished", "pruned")  # never run again
BEAT = 15.0  # seconds between two heartbeats of a sweep
_SILENCE = 120  # seconds without a heartbeat after which a sweep counts as dead
_MOST_TOLD_OF = 10  # most warnings about ignored rows
_log = logging.getLogger(__name__)


@dataclass
class Trial:
    number: int
    folder: str
    overrides: list[str]
    state: State = "waiting"
    said: str = ""
    exit_code: int | None = None
    seconds: float = 0.0  # of all attempts
    value: float | None = None
    attempts: int = 0
    newest: int = -1  # of the attempts, its id in the storage
    params: dict[str, Any] = field(default_factory=dict)  # that Optuna drew
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)


class Read(NamedTuple):
    """A row, and Optuna's entry for it."""

    row: Row
    frozen: FrozenTrial


class Ledger:
    """A sweep's attempts in a storage. ``url`` None: a file in ``folder``."""

    def __init__(self, folder: Path, url: str | None, metric: Metric | None, pruner: optuna.pruners.BasePruner):
        """Raises StorageError if the storage does not answer."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}
        self.where = url or f"sqlite:///{folder / FILE}"
        self._read: dict[int, Read | None] = {}  # ended attempts by id; None: ignored
        self._told_of: set[int] = set()
        self._trials: dict[str, tuple[object, Trial]] = {}  # by folder, with what it was made of
        if url is None:
            for ending in ("", "-journal", "-wal", "-shm"):  # SQLite's own, beside it
                _check_is_file(folder / f"{FILE}{ending}")
            _check_holds_tables(folder / FILE)
        with self._asking():
            rdb = optuna.storages.RDBStorage(self.where, heartbeat_interval=int(BEAT), grace_period=_SILENCE)
            self._storage = optuna.storages.get_storage(rdb)
            higher = metric is not None and metric.direction == "higher"
            direction = StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE
            self.study = optuna.create_study(
                storage=self._storage, study_name=folder.name, direction=direction, pruner=pruner, load_if_exists=True
            )
            self.study_id = self._storage.get_study_id_from_name(folder.name)

    @contextmanager
    def _asking(self) -> Any:
        """Turns database errors into one-line StorageErrors."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (GenlabError, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except Exception as error:  # the tables may hold anything
            cause = one_line(error)[:200]
            raise StorageError(
                f"the sweep's ledger cannot be used ({cause}). It is {one_line(self.where)}; to use another: "
                "sweep.storage=postgresql://user:password@host/name"
            ) from error

    def trials(self) -> list[Trial]:
        """All trials in the order of their start. Do not change them."""
        found: dict[str, list[Read]] = {}
        for attempt in self._attempts():
            found.setdefault(attempt.row.folder, []).append(attempt)
        return [self._trial(number, attempts) for number, attempts in enumerate(found.values())]

    def _attempts(self) -> list[Read]:
        """The valid attempts: per folder, the first row with each number of earlier attempts."""
        found: dict[tuple[str, int], Read] = {}
        for attempt in self._written():
            found.setdefault((attempt.row.folder, attempt.row.number), attempt)
        return list(found.values())

    def _written(self) -> Iterator[Read]:
        """All rows in order. Ended attempts are read only once; invalid rows are reported once and
        ignored."""
        with self._asking():
            written = self._storage.get_all_trials(self.study_id, deepcopy=False)
        for frozen in written:
            if frozen._trial_id not in self._read:
                attempt = self._take(frozen)
                if not frozen.state.is_finished():
                    if attempt is not None:
                        yield attempt
                    continue
                self._read[frozen._trial_id] = attempt
            if attempt := self._read[frozen._trial_id]:
                yield attempt

    def _take(self, frozen: FrozenTrial) -> Read | None:
        """The attempt of a row; None: it is ignored."""
        if ATTEMPT not in frozen.user_attrs:  # another sweep is about to note it
            return None
        try:
            row = read_row(frozen.user_attrs[ATTEMPT], frozen.user_attrs.get(END))
        except ConfigError as error:
            if frozen._trial_id not in self._told_of and len(self._told_of) < _MOST_TOLD_OF:
                self._told_of.add(frozen._trial_id)
                _log.warning("row %d of the ledger is ignored: %s.", frozen.number, one_line(error)[:300])
            return None
        return None if row is None else Read(row, frozen)

    def _trial(self, number: int, attempts: Sequence[Read]) -> Trial:
        told = (number, *((attempt.row, attempt.frozen.state) for attempt in attempts))
        folder = attempts[0].row.folder
        if folder not in self._trials or self._trials[folder][0] != told:
            self._trials[folder] = told, self._made(number, attempts)
        return self._trials[folder][1]

    def _made(self, number: int, attempts: Sequence[Read]) -> Trial:
        last = max(attempts, key=lambda attempt: attempt.row.number)
        row, frozen = last.row, last.frozen
        is_gone = row.state is None and frozen.state.is_finished()
        state: Any = "stopped" if is_gone else row.state or "running"
        said = "the sweep that ran it is gone" if is_gone else row.said
        seconds = sum(attempt.row.seconds for attempt in attempts)
        return Trial(
            number,
            row.folder,
            list(row.overrides),
            state,
            said,
            row.exit_code,
            seconds,
            row.value,
            len(attempts),
            frozen._trial_id,
            frozen.params,
            frozen.distributions,
        )

    def claim(self, trial: Trial) -> Trial | None:
        """Begin another attempt at ``trial``; None: another process has claimed it."""
        noted = {"folder": trial.folder, "overrides": trial.overrides, "number": trial.attempts, "owner": self.owner}
        template = create_trial(
            state=TrialState.RUNNING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={ATTEMPT: noted},
        )
        with self._asking():
            attempt = self._storage.create_new_trial(self.study_id, template_trial=template)
        return self._mine(attempt)

    def names_of(self, distributions: Mapping[str, BaseDistribution]) -> dict[str, str]:
        """The name of each axis in the study, which is new if its values have changed."""
        with self._asking():
            return stored_names(self.study, distributions)

    def draw(self, distributions: Mapping[str, BaseDistribution], overrides: Any, most: int) -> Trial | None:
        """A new trial with values from the sampler, at most ``most`` in all; None: it exists already.

        ``overrides``: from these values to a trial's overrides.
        """
        with self._asking():
            drawn = self.study.ask(dict(distributions))
            if not all(holds(kind, drawn.params[name]) for name, kind in distributions.items()):
                self._storage.set_trial_state_values(drawn._trial_id, TrialState.FAIL)
                return None  # it was enqueued in the study
            typed = overrides(drawn.params)
            noted = {"folder": folder_of(typed), "overrides": typed, "number": 0, "owner": self.owner}
            self._storage.set_trial_user_attr(drawn._trial_id, ATTEMPT, noted)
        trial = self._mine(drawn._trial_id)
        if trial is not None and trial.number >= most:
            self._end(trial.newest, TrialState.FAIL, {"state": LOST})
            return None
        return trial

    def _mine(self, attempt: int) -> Trial | None:
        mine = next((trial for trial in self.trials() if trial.newest == attempt), None)
        if mine is None:
            self._end(attempt, TrialState.FAIL, {"state": LOST})
        return None if mine is None else replace(mine, overrides=list(mine.overrides))

    def end(self, trial: Trial, seconds: float) -> None:
        """Save the result of an attempt that took ``seconds``."""
        noted = {"state": trial.state, "said": trial.said, "exit_code": trial.exit_code, "seconds": seconds,
                 "value": trial.value}  # fmt: skip
        optunas = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(trial.state, TrialState.FAIL)
        if optunas == TrialState.COMPLETE and trial.value is None and trial.params:
            optunas = TrialState.FAIL  # nothing that a sampler could learn from
        self._end(trial.newest, optunas, noted, trial.value)

    def _end(self, attempt: int, state: TrialState, noted: dict[str, Any], value: float | None = None) -> None:
        values = [value] if value is not None and state == TrialState.COMPLETE else None
        with self._asking(), suppress(optuna.exceptions.UpdateFinishedTrialError):  # already marked as dead by another
            self._storage.set_trial_user_attr(attempt, END, noted)
            self._storage.set_trial_state_values(attempt, state, values)

    def is_hopeless(self, trial: Trial, step: int, value: float) -> bool:
        """Report a value of the metric during training. Whether the pruner stops the trial."""
        with self._asking(), suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(trial.newest, step, value)
            return self.study.pruner.prune(self.study, self._storage.get_trial(trial.newest))
        return False

    def beat(self, running: Sequence[Trial]) -> None:
        with self._asking():
            for trial in running:
                self._storage.record_heartbeat(trial.newest)  # type: ignore[attr-defined]

    def give_up_the_dead(self) -> None:
        """Mark attempts as stopped whose sweep is gone."""
        with self._asking():
            optuna.storages.fail_stale_trials(self.study)
        for attempt in self._attempts():
            if not attempt.frozen.state.is_finished() and _is_dead(attempt.row.owner):
                said = {"state": "stopped", "said": "the sweep that ran it is gone"}
                self._end(attempt.frozen._trial_id, TrialState.FAIL, said)


def _check_is_file(path: Path) -> None:
    """Raises StorageError if the ledger's path is a link, a pipe or a folder."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise StorageError(
            f"{path} is not a file, so it cannot be a sweep's ledger. Move it away, or choose another sweep.name=."
        )


def _check_holds_tables(path: Path) -> None:
    """Raises StorageError for a ledger with views or triggers in it, which sweeps never make: they run code when it is
    used."""
    if not os.path.lexists(path):
        return
    try:  # rw: a journal that is left is played back first, as it would be afterwards
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True)) as ledger:
            acts = ledger.execute("select type from sqlite_master where type in ('view', 'trigger')").fetchone()
    except sqlite3.Error:
        return  # what it is instead is said when it is opened
    if acts is not None:
        raise StorageError(
            f"{path} is not a ledger of a sweep: it holds a {acts[0]}. Move it away, or choose another sweep.name=."
        )


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is gone; unknown for other machines."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(owner["began"] != _began(owner["pid"]))


def _began(pid: int) -> str:
    """When a process began, where the system says: its number may be given anew."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
