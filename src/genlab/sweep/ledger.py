"""Which trials there are and what became of them: Optuna's storage, which several machines may share.

What is written down are attempts. One belongs to whoever wrote it first: of two machines that claim the same trial, the
one whose attempt has the lower number has it. A trial is all attempts in one folder, and is in the state of the last.
"""

import os
import socket
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from genlab.errors import StorageError
from genlab.redaction import one_line
from genlab.sweep.metric import Metric
from genlab.sweep.other_values import stored_names
from genlab.sweep.space import folder_of

State = Literal["waiting", "running", "finished", "pruned", "failed", "illegal", "stopped"]
FINAL = ("finished", "pruned")  # never run again
BEAT = 15.0  # seconds between two signs that a sweep still looks after its trials
_SILENCE = 120  # seconds without one after which another machine takes it that it does not
_ATTEMPT, _END = "attempt", "end"  # what is noted of each: at its beginning, and at its end


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


class Ledger:
    """A sweep's attempts in a storage. ``url`` None: a file in ``folder``."""

    def __init__(self, folder: Path, url: str | None, metric: Metric | None, pruner: optuna.pruners.BasePruner):
        """Raises StorageError if the storage does not answer."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}
        self.where = url or f"sqlite:///{folder / 'ledger.db'}"
        with self._asking():
            rdb = optuna.storages.RDBStorage(self.where, heartbeat_interval=int(BEAT), grace_period=_SILENCE)
            self._storage = optuna.storages.get_storage(rdb)
            higher = metric is not None and metric.direction == "higher"
            direction = StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE
            self.study = optuna.create_study(storage=self._storage, study_name=folder.name, direction=direction,
                                             pruner=pruner, load_if_exists=True)  # fmt: skip
            self.study_id = self._storage.get_study_id_from_name(folder.name)

    @contextmanager
    def _asking(self) -> Any:
        """What goes wrong with a data base, in a line."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
            cause = one_line(error)[:200]
            raise StorageError(f"the sweep's ledger cannot be used ({cause}). It is {one_line(self.where)}; another: "
                               "sweep.storage=postgresql://user:password@host/name") from error  # fmt: skip

    def trials(self) -> list[Trial]:
        """All that were ever begun, in that order."""
        found: dict[str, list[FrozenTrial]] = {}
        for attempt in self._attempts():
            found.setdefault(attempt.user_attrs[_ATTEMPT]["folder"], []).append(attempt)
        return [self._trial(number, attempts) for number, attempts in enumerate(found.values())]

    def _attempts(self) -> list[FrozenTrial]:
        """Those that count: of each folder the first to be written down with the same number of attempts before it."""
        found: dict[tuple[str, int], FrozenTrial] = {}
        with self._asking():
            written = self._storage.get_all_trials(self.study_id, deepcopy=False)
        for attempt in sorted(written, key=lambda attempt: attempt.number):
            noted = attempt.user_attrs.get(_ATTEMPT)
            if noted is not None and attempt.user_attrs.get(_END, {}).get("state") != "lost":
                found.setdefault((noted["folder"], noted["number"]), attempt)
        return list(found.values())

    def _trial(self, number: int, attempts: list[FrozenTrial]) -> Trial:
        last = max(attempts, key=lambda attempt: attempt.user_attrs[_ATTEMPT]["number"])
        noted, end = last.user_attrs[_ATTEMPT], last.user_attrs.get(_END, {})
        state = end.get("state", "stopped" if last.state.is_finished() else "running")
        said = "the sweep that ran it is gone" if state == "stopped" and not end else end.get("said", "")
        seconds = sum(attempt.user_attrs.get(_END, {}).get("seconds", 0.0) for attempt in attempts)
        return Trial(number, noted["folder"], noted["overrides"], state, said, end.get("exit_code"), seconds,
                     end.get("value"), len(attempts), last._trial_id, last.params, last.distributions)  # fmt: skip

    def claim(self, trial: Trial) -> Trial | None:
        """Begin another attempt at ``trial``; None: somebody else has."""
        noted = {"folder": trial.folder, "overrides": trial.overrides, "number": trial.attempts, "owner": self.owner}
        template = create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
                                user_attrs={_ATTEMPT: noted})  # fmt: skip
        with self._asking():
            attempt = self._storage.create_new_trial(self.study_id, template_trial=template)
        return self._mine(attempt)

    def names_of(self, distributions: Mapping[str, BaseDistribution]) -> dict[str, str]:
        """What the study calls each axis: other values than it knows go by another name."""
        with self._asking():
            return stored_names(self.study, distributions)

    def draw(self, distributions: Mapping[str, BaseDistribution], overrides: Any, most: int) -> Trial | None:
        """A new trial of values that the sampler chooses, of at most ``most``; None: one that there is already.

        ``overrides``: from these values to a trial's overrides.
        """
        with self._asking():
            drawn = self.study.ask(dict(distributions))
            typed = overrides(drawn.params)
            noted = {"folder": folder_of(typed), "overrides": typed, "number": 0, "owner": self.owner}
            self._storage.set_trial_user_attr(drawn._trial_id, _ATTEMPT, noted)
        trial = self._mine(drawn._trial_id)
        if trial is not None and trial.number >= most:
            self._end(trial.newest, TrialState.FAIL, {"state": "lost"})
            return None
        return trial

    def _mine(self, attempt: int) -> Trial | None:
        mine = next((trial for trial in self.trials() if trial.newest == attempt), None)
        if mine is None:
            self._end(attempt, TrialState.FAIL, {"state": "lost"})
        return mine

    def end(self, trial: Trial, seconds: float) -> None:
        """Write down what became of an attempt that took ``seconds``."""
        noted = {"state": trial.state, "said": trial.said, "exit_code": trial.exit_code, "seconds": seconds,
                 "value": trial.value}  # fmt: skip
        optunas = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(trial.state, TrialState.FAIL)
        if optunas == TrialState.COMPLETE and trial.value is None and trial.params:
            optunas = TrialState.FAIL  # nothing that a sampler could learn from
        self._end(trial.newest, optunas, noted, trial.value)

    def _end(self, attempt: int, state: TrialState, noted: dict[str, Any], value: float | None = None) -> None:
        values = [value] if value is not None and state == TrialState.COMPLETE else None
        with self._asking(), suppress(optuna.exceptions.UpdateFinishedTrialError):  # given up for dead by another
            self._storage.set_trial_user_attr(attempt, _END, noted)
            self._storage.set_trial_state_values(attempt, state, values)

    def is_hopeless(self, trial: Trial, step: int, value: float) -> bool:
        """Note a value of the metric in training. Whether the pruner says that the trial is not worth its end."""
        with self._asking(), suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(trial.newest, step, value)
            return self.study.pruner.prune(self.study, self._storage.get_trial(trial.newest))
        return False

    def beat(self, running: Sequence[Trial]) -> None:
        with self._asking():
            for trial in running:
                self._storage.record_heartbeat(trial.newest)  # type: ignore[attr-defined]

    def give_up_the_dead(self) -> None:
        """Attempts whose sweep is gone are no longer running."""
        with self._asking():
            optuna.storages.fail_stale_trials(self.study)
        for attempt in self._attempts():
            if not attempt.state.is_finished() and _is_dead(attempt.user_attrs[_ATTEMPT]["owner"]):
                said = {"state": "stopped", "said": "the sweep that ran it is gone"}
                self._end(attempt._trial_id, TrialState.FAIL, said)


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is gone. Of another machine only its silence tells."""
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
