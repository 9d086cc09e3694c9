"""A sweep's folder as the sweep leaves it, written by hand."""

import json
from pathlib import Path
from typing import Any

from run_folders import write


def trial(number: int, *overrides: str, state: str = "finished", **more: Any) -> dict[str, Any]:
    return {"number": number, "folder": f"trial{number:04}", "overrides": list(overrides), "state": state, "said": "",
            "exit_code": 0, "seconds": 1.5, "value": None, **more}  # fmt: skip


def ledger(folder: Path, *trials: dict[str, Any], metric: str | None = "fid", direction: str | None = "lower") -> Path:
    content = {"command": "python train.py -m ...", "metric": metric, "direction": direction, "trials": list(trials)}
    write(folder / "trials.json", json.dumps(content))
    return folder
