"""The campaign against what a run promises: a few trials of it, and how it counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults import starts
from faults.campaign import Campaign
from faults.runs import Place
from faults.trial import Trial


@pytest.mark.matrix  # processes that start anew; the whole campaign is `make faults`
def test_a_few_trials(tmp_path: Path) -> None:
    promises = ("kills", "damages", "full_disk", "starts")  # the others have tests of their own
    campaign = Path(__file__).parent / "faults" / "campaign.py"
    command = [sys.executable, str(campaign), "--folder", str(tmp_path), "--scale", "0.005", *promises]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "table.md").read_text().splitlines()
    assert [row.split("|")[2:4] for row in table[2:]] == [[f" {n} "] * 2 for n in (5, 1, 1, 2)]
    assert not list(tmp_path.glob("trials/*"))


def test_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every trial has a line; what held is not made again, what failed or died is, wherever the ledger was cut."""
    is_mended = tmp_path / "mended"

    def hold(place: Place) -> None:
        (tmp_path / "made").open("a").write("x")

    def fail(place: Place) -> None:
        if not is_mended.exists():
            raise ValueError("it broke")

    def die(place: Place) -> None:
        if not is_mended.exists():
            os._exit(1)

    trials = [Trial("starts/hold", hold, tried=5), Trial("starts/fail", fail, tried=3), Trial("starts/die", die)]
    campaign = Campaign(tmp_path, jobs=2)
    campaign.run(trials)
    said = {line["trial"]: line["said"] for line in campaign.lines(trials)}
    assert said == {"starts/hold": "", "starts/fail": "it broke", "starts/die": "the trial itself died"}
    assert campaign.table(trials).splitlines()[2:] == [f"| {starts.PROMISE} | 9 | 5 |"]
    assert [path.name for path in tmp_path.glob("trials/*/traceback.txt")] == ["traceback.txt"]
    with campaign.ledger.open("a") as ledger:
        ledger.write('{"trial": "starts/hold", "tri')  # where it was interrupted
    is_mended.touch()
    again = Campaign(tmp_path, jobs=1)
    again.run(trials)
    assert "3 trials, 1 of them held before" in capsys.readouterr().out
    assert again.table(trials).splitlines()[2:] == [f"| {starts.PROMISE} | 9 | 9 |"]
    assert (tmp_path / "made").read_text() == "x"
    assert len([json.loads(line) for line in again.ledger.read_text().splitlines()]) == 4
