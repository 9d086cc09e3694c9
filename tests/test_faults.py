"""The campaign against what a run promises: a few trials of it, and that it goes on where it was interrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parent / "faults" / "campaign.py"


def campaign(*arguments: str, folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(CAMPAIGN), "--folder", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=200)


def test_a_few_trials(tmp_path: Path) -> None:
    promises = ("kills", "damages", "full_disk", "starts")  # one trial each; the others have tests of their own
    done = campaign("--scale", "0.005", *promises, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(promises)
    ledger = tmp_path / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        if line["trial"].startswith("starts"):
            line |= {"held": 0, "said": "something"}
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"trial": "cut')
    again = campaign("--scale", "0.005", *promises, folder=tmp_path)
    assert "4 trials, 3 of them held before" in again.stdout, "only what did not hold is tried again"
    assert again.returncode == 0
