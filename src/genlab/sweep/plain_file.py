"""``trials.json``: the ledger as a plain file, which reports read."""

import json
from collections.abc import Sequence
from pathlib import Path

from genlab.files.atomic import write_atomically
from genlab.redaction import known_secrets, redacted
from genlab.sweep.ledger import Trial
from genlab.sweep.metric import Metric

NAME = "trials.json"


class PlainFile:
    """Writes the ledger. A trial's text is cached until it changes."""

    def __init__(self, folder: Path, command: str):
        self.path, self.command = folder / NAME, command
        self._secrets: object = None
        self._written: dict[str, tuple[object, str]] = {}  # of a trial, by folder: what of, and the text

    def write(self, metric: Metric | None, trials: Sequence[Trial]) -> None:
        """Raises StorageError."""
        if self._secrets != (secrets := known_secrets()):  # new secrets may be known
            self._secrets, self._written = secrets, {}
        head = {
            "command": self.command,
            "metric": None if metric is None else metric.name,
            "direction": None if metric is None else metric.direction,
        }
        rows = ",\n".join(map(self._row, trials))
        text = f'{json.dumps(redacted(head), indent=1)[:-2]},\n "trials": [\n{rows}\n ]\n}}'
        write_atomically(self.path, lambda file: file.write(text.encode()))

    def _row(self, trial: Trial) -> str:
        told = (trial.number, trial.state, trial.said, trial.exit_code, trial.seconds, trial.value, trial.overrides)
        if trial.folder not in self._written or self._written[trial.folder][0] != told:
            self._written[trial.folder] = told, _text(trial)
        return self._written[trial.folder][1]


def _text(trial: Trial) -> str:
    """A trial's line, without secrets."""
    row = {
        "number": trial.number,
        "folder": trial.folder,
        "overrides": trial.overrides,
        "state": trial.state,
        "said": trial.said,
        "exit_code": trial.exit_code,
        "seconds": round(trial.seconds, 1),
        "value": trial.value,
    }
    return f"  {json.dumps(redacted(row))}"
