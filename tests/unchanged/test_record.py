"""The record of what small runs of every family gave, held against what they give now."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.matrix
def test_runs_give_what_was_recorded(tmp_path: Path) -> None:
    """On any machine: losses, what is counted, protocol ids. To the last bit on that of the record: see record.py."""
    command = [sys.executable, str(HERE / "record.py"), str(tmp_path / "new.json"), "--loosely"]
    found = subprocess.run([*command, "--against", str(HERE / "recorded.json")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
