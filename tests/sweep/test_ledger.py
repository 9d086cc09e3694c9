"""The ledger: who has a trial, and who is dead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.pruners import NopPruner
from sqlalchemy import create_engine, text

from genlab.errors import StorageError
from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.metric import Metric
from genlab.sweep.plan import read_plan
from genlab.sweep.space import folder_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    return tmp_path / "s"


def open_ledger(folder: Path, url: str | None = None) -> Ledger:
    return Ledger(folder, url, Metric("fid", "lower"), NopPruner())


def waiting(*overrides: str) -> Trial:
    return Trial(0, folder_of(overrides), list(overrides))


def ended(ledger: Ledger, trial: Trial, state: str, value: float | None = None) -> None:
    trial.state, trial.value = state, value  # type: ignore[assignment]
    ledger.end(trial, 2.0)


def test_of_two_that_claim_a_trial_one_has_it(folder: Path) -> None:
    ours, theirs = open_ledger(folder), open_ledger(folder)
    mine = ours.claim(waiting("seed=0"))
    assert mine is not None
    assert theirs.claim(waiting("seed=0")) is None
    other = theirs.claim(waiting("seed=1"))
    assert other is not None
    assert [(t.number, t.state, t.attempts) for t in ours.trials()] == [(0, "running", 1), (1, "running", 1)]


def test_a_second_attempt_is_one_machines(folder: Path) -> None:
    ours, theirs = open_ledger(folder), open_ledger(folder)
    first = ours.claim(waiting("seed=0"))
    assert first is not None
    ended(ours, first, "failed")
    as_seen = ours.trials()[0]  # by both
    assert [ledger.claim(as_seen) is not None for ledger in (theirs, ours)] == [True, False]
    (trial,) = ours.trials()
    assert (trial.attempts, trial.state, trial.seconds) == (2, "running", 2.0)


def test_a_trial_is_what_its_last_attempt_came_to(folder: Path) -> None:
    ledger = open_ledger(folder)
    for state, value in (("failed", None), ("stopped", None), ("finished", 3.0)):
        trial = ledger.claim(ledger.trials()[0] if ledger.trials() else waiting("seed=0"))
        assert trial is not None
        ended(ledger, trial, state, value)
    (trial,) = open_ledger(folder).trials()
    assert (trial.state, trial.value, trial.attempts, trial.seconds) == ("finished", 3.0, 3, 6.0)
    assert ledger.study.best_value == 3.0


def test_trials_of_a_dead_sweep_are_free_and_those_of_a_living_one_are_not(folder: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; import os, test_ledger as t; " \
           "t.open_ledger(Path(sys.argv[1])).claim(t.waiting('seed=0')); os._exit(0)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code, str(folder), str(Path(__file__).parent)], check=True, env=os.environ)
    ledger = open_ledger(folder)
    assert ledger.claim(waiting("seed=1"))
    assert [trial.state for trial in ledger.trials()] == ["running", "running"]
    ledger.give_up_the_dead()
    assert [(trial.state, trial.said) for trial in ledger.trials()] == [
        ("stopped", "the sweep that ran it is gone"), ("running", ""),
    ]  # fmt: skip


def test_another_machines_silence_tells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = open_ledger(folder)
    ours.owner["host"] = "elsewhere"
    silent = ours.claim(waiting("seed=0"))
    alive = ours.claim(waiting("seed=1"))
    assert silent is not None
    assert alive is not None
    ours.beat([silent, alive])
    ledger = open_ledger(folder)
    ledger.give_up_the_dead()
    assert [trial.state for trial in ledger.trials()] == ["running", "running"]
    with create_engine(ledger.where).begin() as database:
        long_ago = text("update trial_heartbeats set heartbeat = datetime('now', '-1800 seconds') where trial_id = :id")
        database.execute(long_ago, {"id": silent.newest})
    ledger.give_up_the_dead()
    assert [trial.state for trial in ledger.trials()] == ["stopped", "running"]


def test_a_storage_that_does_not_answer_is_one_line_without_its_password(folder: Path) -> None:
    with pytest.raises(StorageError) as refused:
        open_ledger(folder, f"sqlite:////no/such/{'x'}/ledger.db")
    assert "\n" not in str(refused.value)
    with pytest.raises(StorageError) as refused:
        open_ledger(folder, "postgresql://me:canary-123456@nowhere/x")
    assert "canary" not in str(refused.value)


def test_another_name_or_storage_is_a_way_out(tmp_path: Path) -> None:
    def opened(*typed: str) -> Ledger:
        plan = read_plan(["seed=0", f"outputs={tmp_path}", *typed], None)
        plan.folder.mkdir(exist_ok=True)
        return open_ledger(plan.folder, plan.settings.storage)

    (tmp_path / "s" / "ledger.db").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"is not a file.*choose another sweep\.name="):
        opened("sweep.name=s")
    assert opened("sweep.name=t").trials() == []
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "ledger.db").write_bytes(b"no data base" * 100)
    with pytest.raises(StorageError, match=r"the sweep's ledger cannot be used \(.*another: sweep\.storage="):
        opened("sweep.name=u")
    assert opened("sweep.name=u", f"sweep.storage=sqlite:///{tmp_path}/other.db").trials() == []
