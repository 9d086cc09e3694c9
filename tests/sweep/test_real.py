"""A real training as a trial, through the command line; and the folders that runs are given."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from genlab.checkpoint.read import saved
from genlab.command import train as train_command
from genlab.errors import ConfigError, StorageError
from genlab.files.lock import is_occupied, occupied
from tiny_run import MLP, REPOSITORY, command, compose_small, popen, train


@pytest.mark.matrix  # two processes that start anew
def test_a_trial_is_the_run_that_its_overrides_are(outputs: Path) -> None:
    typed = [*command(*MLP, outputs=outputs), "seed=3", "sweep.name=real", "sweep.metric=val/loss"]
    process = popen([sys.executable, str(REPOSITORY / "train.py"), "-m", *typed])
    printed, errors = process.communicate(timeout=240)
    assert (process.returncode, errors) == (0, "")
    ledger = json.loads((outputs / "real/trials.json").read_text())
    assert [trial["state"] for trial in ledger["trials"]] == ["finished"]
    trial = ledger["trials"][0]
    run = outputs / "real" / trial["folder"]
    assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == 3
    assert (run / "summary.json").exists()
    assert "run folder:" in (run / "trial.log").read_text()
    assert trial["value"] > 0
    assert "trial 0 finished" in printed
    assert not is_occupied(run)
    alone = train(*MLP, "seed=3", outputs=outputs / "alone")
    mine = (run / "metrics.csv").read_text()
    last = [line.rpartition(",")[2] for line in mine.splitlines()]
    assert last == [line.rpartition(",")[2] for line in (alone / "metrics.csv").read_text().splitlines()]


def test_a_new_run_may_be_given_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    (folder / "trial.log").write_text("before")
    config = compose_small(*MLP, outputs=tmp_path / "none")
    train_command.train(config, [], folder=folder)
    assert Path(config.run_dir) == folder
    assert config.run_id.startswith("b-")  # W&B tells runs apart by it, and b is a trial of other sweeps too
    assert len(saved(folder)) == 1
    assert (folder / "trial.log").read_text() == "before"
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match=r"already holds a run[.] Continue it with run="):
        train_command.train(compose_small(*MLP, outputs=tmp_path), [], folder=folder)


def test_a_folder_is_one_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.files.lock._PATIENCE", 0.1)
    assert not is_occupied(tmp_path)
    with occupied(tmp_path):
        code = "from genlab.files.lock import is_occupied; from pathlib import Path; import sys; " \
               "print(is_occupied(Path(sys.argv[1])))"  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, env=os.environ)
        assert done.stdout == "True\n"
    assert not is_occupied(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", "from genlab.files.lock import occupied; from pathlib import Path; import sys, time\n"
                               "with occupied(Path(sys.argv[1])): print('has it', flush=True); time.sleep(600)",
         str(tmp_path)], stdout=subprocess.PIPE)  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StorageError, match="another process trains in"), occupied(tmp_path):
        pass
    holder.kill()  # it cannot let go of it itself
    holder.wait()
    with occupied(tmp_path):
        pass
