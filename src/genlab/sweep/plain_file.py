"""``trials.json``: the ledger as a plain file, which is all that a report reads of a sweep."""

import json
from collections.abc import Sequence
from pathlib import Path

from genlab.redaction import redacted
from genlab.storage import write_atomically
from genlab.sweep.ledger import Trial
from genlab.sweep.metric import Metric

NAME = "trials.json"


def write_trials(folder: Path, command: str, metric: Metric | None, trials: Sequence[Trial]) -> None:
    """Raises StorageError."""
    rows = [
        {
            "number": trial.number,
            "folder": trial.folder,
            "overrides": trial.overrides,
            "state": trial.state,
            "said": trial.said,
            "exit_code": trial.exit_code,
            "seconds": round(trial.seconds, 1),
            "value": trial.value,
        }
        for trial in trials
    ]
    content = {
        "command": command,
        "metric": None if metric is None else metric.name,
        "direction": None if metric is None else metric.direction,
        "trials": rows,
    }
    write_atomically(folder / NAME, lambda file: file.write(json.dumps(redacted(content), indent=1).encode()))
