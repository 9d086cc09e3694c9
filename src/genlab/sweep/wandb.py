"""Trials proposed by a Weights & Biases sweep. Not verified against the real service.

Two requests go to the service, in GraphQL like those of its own agents: to register as an agent of the sweep, and,
when a slot is free, what to run next. A trial's value is sent to W&B as a run of that sweep, once it has ended, from
a separate process.
"""

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from genlab.errors import ConfigError, ResourceError
from genlab.redaction import one_line, remember
from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.rows import check_overrides
from genlab.sweep.space import Space, folder_of
from genlab.trust.strangers import grants

_TIMEOUT = 30.0  # seconds for an answer
_PAUSE = 5.0  # seconds between two requests
_PATIENCE = 3  # unanswered requests, with nothing running, before the sweep ends
_NAMES = "wandb run: "  # of a folder, among what the ledger notes of a sweep
_CREATE = """mutation CreateAgent($host: String!, $projectName: String, $entityName: String, $sweep: String!) {
  createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) {
    agent { id } } }"""
_HEARTBEAT = """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
  agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands } }"""


class Wandb:
    """``sweep=wandb``: what W&B proposes, until it says that there is no more."""

    judges = True

    def __init__(self, id: str, n_trials: int | None = None):
        parts = id.split("/")
        if len(parts) != 3 or not all(parts):
            raise ConfigError(f"sweep.id={id} must be entity/project/sweep, as `wandb sweep` prints it.")
        if n_trials is not None and n_trials < 1:
            raise ConfigError(f"sweep.n_trials={n_trials} must be a whole number >= 1, or null.")
        self.entity, self.project, self.sweep = parts
        self.n_trials = n_trials
        self._api: Any = None
        self._agent: str | None = None
        self._metric = ""  # as W&B calls it
        self._parameters: set[str] = set()  # names of what it chooses
        self._given: dict[str, str] = {}  # run of W&B's by folder, of trials that have not ended
        self._pending: list[Mapping[str, Any]] = []  # runs that it wants and that have not begun
        self._is_over = False
        self._asked_at = float("-inf")
        self._ledger: Ledger | None = None

    def check(self, space: Space) -> None:
        if space.axes:
            raise ConfigError(
                f"{space.axes[0].name} has several values, but W&B chooses the values. Set them in its sweep."
            )
        if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
            raise ConfigError(f"sweep=wandb needs the service, and WANDB_MODE={os.environ['WANDB_MODE']}. Unset it.")
        self._join()

    def _join(self) -> None:
        """Raises ConfigError: not logged in, or there is no such sweep."""
        import wandb

        path = f"{self.entity}/{self.project}/{self.sweep}"
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self._api = wandb.Api(timeout=int(_TIMEOUT))
            remember(str(self._api.api_key), "api_key")
            found = self._api.sweep(path)
            self._parameters = set(found.config.get("parameters") or ())
            self._metric = str(dict(found.config.get("metric") or {}).get("name") or "")
        except Exception as error:
            raise ConfigError(
                f"sweep.id={path}: W&B refuses it ({one_line(error)[:200]}). Log in with: wandb login"
            ) from error

    def planned(self, space: Space, ledger: Ledger) -> list[Trial]:
        self._ledger = ledger
        return ledger.trials()

    def wanted(self, space: Space, trials: Sequence[Trial]) -> list[Trial]:
        """What is typed, and values of the parameters that W&B's sweep has."""
        typed = set(space.overrides({}))
        drawn = ((trial, set(trial.overrides) - typed) for trial in trials if typed <= set(trial.overrides))
        return [
            trial
            for trial, own in drawn
            if not any(map(grants, own)) and {override.partition("=")[0] for override in own} <= self._parameters
        ]

    def next(self, space: Space, ledger: Ledger) -> Trial | None:
        """A trial that W&B proposes. Waits a little if nothing else is to be done meanwhile."""
        self._ledger = ledger
        begun = ledger.trials()
        if self.n_trials is not None and len(begun) >= self.n_trials:
            return None
        for question in range(_PATIENCE):
            self._ask()
            while self._pending:
                if trial := self._claim(space, ledger, self._pending.pop(0), len(begun)):
                    return trial
            if self._given or self._is_over:
                return None
            if question < _PATIENCE - 1:
                time.sleep(_PAUSE)
        return None

    def _claim(self, space: Space, ledger: Ledger, command: Mapping[str, Any], number: int) -> Trial | None:
        chosen = overrides_of(command["args"])
        overrides = [*space.overrides({}), *chosen]
        try:
            check_overrides(tuple(overrides))
            if granted := next(filter(grants, chosen), None):
                raise ConfigError(f"{granted} is consent, which has to be typed in this command")
        except ConfigError as error:
            raise ConfigError(f"W&B proposes an invalid trial: {error}. Change its sweep.") from error
        folder = folder_of(overrides)
        trial = ledger.claim(Trial(number, folder, overrides))
        if trial is None:  # it has been run: W&B may draw the same again
            return None
        ledger.study.set_user_attr(f"{_NAMES}{folder}", command["run_id"])
        self._given[folder] = command["run_id"]
        return trial

    def _ask(self) -> None:
        """What to run, if it was not asked a moment ago. A service that does not answer now may do so later."""
        if self._pending or self._is_over or time.monotonic() - self._asked_at < _PAUSE * 0.9:
            return
        self._asked_at = time.monotonic()
        try:
            if self._agent is None:
                told = {
                    "host": socket.gethostname(),
                    "projectName": self.project,
                    "entityName": self.entity,
                    "sweep": self.sweep,
                }
                self._agent = self._answer(_CREATE, told)["createAgent"]["agent"]["id"]
            states = json.dumps(dict.fromkeys(self._given.values(), "running"))
            answer = self._answer(_HEARTBEAT, {"id": self._agent, "metrics": "{}", "runState": states})
            commands = json.loads(answer["agentHeartbeat"]["commands"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            if not self._given:
                raise ResourceError(
                    f"W&B does not answer what to run ({one_line(error)[:200]}). Continue with the same command."
                ) from error
            return
        for command in commands:
            if command.get("type") in ("run", "resume"):
                self._pending.append(command)
            elif command.get("type") == "exit":
                self._is_over = True

    def _answer(self, query: str, variables: Mapping[str, Any]) -> Any:
        url = f"{str(self._api.settings['base_url']).rstrip('/')}/graphql"
        login = base64.b64encode(f"api:{self._api.api_key}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
        body = json.dumps({"query": query, "variables": variables}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=_TIMEOUT) as response:
            answer = json.load(response)
        if answer.get("errors"):
            raise ValueError(answer["errors"][0].get("message", "an error"))
        return answer["data"]

    def told(self, trial: Trial) -> None:
        """Send what became of it. One that was stopped goes on, and is sent later."""
        self._given.pop(trial.folder, None)
        assert self._ledger is not None
        run = self._ledger.study.user_attrs.get(f"{_NAMES}{trial.folder}")
        if run is None or trial.state == "stopped":
            return
        values = {} if trial.value is None or not self._metric else {self._metric: trial.value}
        config = dict(override.partition("=")[::2] for override in trial.overrides)
        code = 0 if trial.state in ("finished", "pruned") else trial.exit_code or 1
        sent = {
            "entity": self.entity,
            "project": self.project,
            "sweep": self.sweep,
            "run": run,
            "config": config,
            "values": values,
            "exit_code": code,
        }
        process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(sent).encode())
        process.stdin.close()


def overrides_of(arguments: Mapping[str, Any]) -> list[str]:
    """As they would be typed, of W&B's ``{"model.optimizer.lr": {"value": 0.1}}``."""
    return [f"{name}={_typed(argument['value'])}" for name, argument in arguments.items()]


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_typed(item)}" for name, item in value.items()) + "}"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if text.replace("_", "").replace("-", "").isalnum():
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def send(sent: Mapping[str, Any]) -> None:
    """Write down a trial as a run of W&B's."""
    import wandb

    settings = wandb.Settings(sweep_id=sent["sweep"], silent=True)
    run = wandb.init(
        entity=sent["entity"],
        project=sent["project"],
        id=sent["run"],
        resume="allow",
        config=sent["config"],
        settings=settings,
    )
    run.log(dict(sent["values"]))
    run.finish(exit_code=sent["exit_code"])


if __name__ == "__main__":
    send(json.load(sys.stdin))
