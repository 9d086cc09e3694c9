"""metrics.csv is always complete; no service can end a run."""

import csv
import json
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import Logger

from genlab.command.train import Interrupted
from genlab.errors import ConfigError, StorageError
from genlab.logger.isolated import IsolatedLogger, _shown_command
from genlab.logger.metrics_file import MetricsFile
from genlab.logger.wandb_mode import choose_wandb_mode
from genlab.run import assemble
from tiny_run import MLP, SignalAt, only_run, popen, resume, start, train


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_file_grows_by_rows_and_columns(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"a": 2.0}, step=1)
    log.save()
    assert rows(tmp_path) == [{"step": "0", "a": "1.0"}]  # the newest row may still gain values
    inode = (tmp_path / "metrics.csv").stat().st_ino
    log.log_metrics({"a": 3.0}, step=2)
    log.save()
    assert (tmp_path / "metrics.csv").stat().st_ino == inode, "appended, not written again"
    log.log_metrics({"b": 4.0}, step=2)
    log.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]
    assert rows(tmp_path)[2] == {"step": "2", "a": "3.0", "b": "4.0"}


def test_a_logger_that_is_left_out_is_none(tmp_path: Path) -> None:
    csv_logger = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path)}
    config = {"logger": {"x": None, "y": csv_logger}, "run_id": "run", "model": {"_target_": "a.B"}}
    config["data"] = config["model"]
    assert len(assemble.build_loggers(config, tmp_path)) == 1
    assert assemble.build_loggers(config | {"logger": {"x": None}}, tmp_path) == []


def test_file_is_continued_from_a_step(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path)
    for step in range(5):
        log.log_metrics({"a": float(step)}, step)
    log.finalize("success")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5")  # a kill cut this row
    continued = MetricsFile(tmp_path)
    assert max(continued._rows) == 4
    continued.forget_after(3)
    continued.log_metrics({"a": 30.0}, 3)
    continued.finalize("success")
    assert [row["a"] for row in rows(tmp_path)] == ["0.0", "1.0", "2.0", "30.0"]


class Faulty(Logger):
    """Fails in one of its methods, or when it is made."""

    calls = 0

    def __init__(self, where: str):
        super().__init__()
        self.where = where
        self._fail("init")

    def _fail(self, where: str) -> None:
        Faulty.calls += 1
        if self.where == where:
            raise ConnectionResetError(f"service died\nin {where}")

    name, version = "faulty", ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._fail("hyperparams")

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._fail("metrics")

    def save(self) -> None:
        self._fail("save")

    def finalize(self, status: str) -> None:
        self._fail("finalize")


@pytest.mark.parametrize("where", ["init", "hyperparams", "metrics", "save", "finalize"])
def test_a_failure_is_one_warning(where: str, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log = IsolatedLogger(lambda: Faulty(where), "Faulty", tmp_path)
        for _ in range(2):
            log.log_hyperparams({})
            log.log_metrics({"a": 1.0}, 0)
            log.save()
            log.finalize("success")
            before = Faulty.calls
    said = f"Faulty stopped working (service died in {where}). Metrics go to {tmp_path / 'metrics.csv'}."
    assert [str(warning.message) for warning in caught] == [said]
    log.save()
    assert Faulty.calls == before, "it is left alone"


def test_a_service_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that came in the meantime is still said to it, in order, when it answers again."""
    monkeypatch.setattr(IsolatedLogger, "patience", 0.01)
    answer, said = threading.Event(), []

    class Hanging(Faulty):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            answer.wait(60)
            said.append(step)

    log = IsolatedLogger(lambda: Hanging(""), "Hanging", tmp_path)
    for step in range(5):
        log.log_metrics({}, step)
    assert not said
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log.finalize("success")
        log.finalize("success")
    said_so = f"Hanging has not answered for 0 s. Metrics go to {tmp_path / 'metrics.csv'}."
    assert [str(warning.message) for warning in caught] == [said_so]
    answer.set()
    monkeypatch.setattr(IsolatedLogger, "patience", 60)
    log.finalize("success")
    assert said == [0, 1, 2, 3, 4]


def test_the_first_steps_do_not_wait_for_a_service_that_starts(tmp_path: Path) -> None:
    """What it is told meanwhile comes after its start; that it failed to start is said when it is next called."""
    ready, said = threading.Event(), []

    class Slow(Faulty):
        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
            assert ready.wait(60)
            said.append("start")
            self._fail("hyperparams")

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            said.append(f"step {step}")

    for where in ("", "hyperparams"):
        said.clear()
        ready.clear()
        log = IsolatedLogger(lambda where=where: Slow(where), "Slow", tmp_path)  # type: ignore[misc]
        log.start({}, (), wait=False)
        log.log_metrics({}, 0)
        assert not said
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ready.set()
            log.finalize("success")
        assert said == (["start"] if where else ["start", "step 0"])
        warned = f"Slow stopped working (service died in hyperparams). Metrics go to {tmp_path / 'metrics.csv'}."
        assert [str(warning.message) for warning in caught] == ([warned] if where else [])


def test_a_full_disk_under_the_metrics_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsFile(tmp_path)
    for step in range(3):
        log.log_metrics({"a": 1.0}, step)
        log.save()
    monkeypatch.setattr(csv.DictWriter, "writerows", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StorageError, match=r"cannot write to .* \(no space left\)"):
        log.finalize("success")


def test_a_failing_service_costs_the_run_nothing(tmp_path: Path) -> None:
    service = "+logger.faulty={_target_: test_loggers.Faulty, where: metrics}"
    with pytest.warns(UserWarning, match="stopped working"):
        run = train(*MLP, service, outputs=tmp_path)
    assert [row["step"] for row in rows(run) if row["train/loss"]] == [str(step) for step in range(13)]


def test_missing_package_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.loggers import tensorboard

    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    assert tensorboard
    with pytest.raises(ConfigError, match=r"logger=tensorboard needs a package: pip install 'genlab\[tensorboard\]'"):
        train(*MLP, "logger=[tensorboard]", outputs=tmp_path)


# --- W&B --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_INIT_TIMEOUT", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.mark.usefixtures("no_login")
def test_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it went to the network"))
    choose_wandb_mode()
    assert os.environ["WANDB_MODE"] == "offline"
    os.environ["WANDB_MODE"] = "online"
    choose_wandb_mode()
    assert os.environ["WANDB_MODE"] == "online", "the user's choice stands"


@pytest.mark.usefixtures("no_login")
def test_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts, and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        with pytest.warns(UserWarning, match="W&B is unreachable"):
            choose_wandb_mode()
        assert time.monotonic() - began < 7
    assert os.environ["WANDB_MODE"] == "offline"


@pytest.mark.matrix  # two processes that start anew, and the service's own
def test_offline_run_keeps_its_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    wandb = ("logger=[wandb]", "logger.wandb.name='http://me:canary1@host'", "logger.wandb.project=${oc.env:MY_SECRET}")
    environment = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path),
                   "MY_SECRET": "canary2-abc", "http_proxy": "http://me:canary3-abc@127.0.0.1:9"}  # fmt: skip
    process = start(*MLP, *wandb, SignalAt.override(32), outputs=tmp_path / "outputs", **environment)
    _, errors = process.communicate(timeout=100)
    run = only_run(tmp_path / "outputs")
    said = [line for line in errors.splitlines() if not line.startswith("training")]
    assert len(said) == 2, errors
    assert said[0].startswith("warning: W&B is unreachable at http://127.0.0.1:9 (")
    assert said[1].startswith("stopped by SIGINT; saved.")
    command = [sys.executable, "-c", "from genlab.cli import main; main()", "train", f"run={run}"]
    out, errors = (process := popen(command, HOME=str(tmp_path))).communicate(timeout=100)
    assert process.returncode == 0, errors
    assert f"wandb sync {run}/wandb/" in out
    kept = sorted((run / "wandb").glob("offline-run-*"))
    assert len(kept) == 2
    assert all(folder.name.endswith(run.name) for folder in kept), "one id, the run folder's"
    assert json.loads((run / "summary.json").read_text())["examples"] == 104
    assert list(run.glob("wandb/*/*.wandb")), "W&B has written nothing"
    for file in run.rglob("*"):
        assert not file.is_file() or b"canary" not in file.read_bytes(), file


def test_stopped_run_without_services(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(*MLP, SignalAt.override(32), outputs=tmp_path)
    run = only_run(tmp_path)
    assert [row["step"] for row in rows(run)] == [str(step) for step in range(5)]
    resume(run)
    assert len({row["step"] for row in rows(run)}) == len(rows(run))


def test_services_see_the_command_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that are called at once: until the last is done."""
    typed, shown = ["train.py", "logger.x.token=canary-1"], ["train.py", "logger.x.token=***"]
    monkeypatch.setattr("sys.argv", typed)
    one, other = _shown_command(), _shown_command()
    one.__enter__()
    other.__enter__()
    assert sys.argv == shown
    one.__exit__(None, None, None)
    assert sys.argv == shown
    other.__exit__(None, None, None)
    assert sys.argv is typed


@pytest.mark.parametrize("target", ["genlab.logger.tracking.Wandb", "pytorch_lightning.loggers.WandbLogger"])
def test_another_wandb_logger_writes_into_the_run_and_is_told_no_secret(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "kf93jdk20dkw83hd")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    node = {"_target_": target, "id": "1", "offline": True, "notes": "its key is kf93jdk20dkw83hd"}
    node = node if target.endswith("WandbLogger") else {k: v for k, v in node.items() if k != "offline"}
    logger: Any = assemble._build_logger("another", node, "diffusion-digits-1", tmp_path)
    assert logger.save_dir == str(tmp_path)
    assert logger._wandb_init["notes"] == "its key is ***"
    assert logger._wandb_init["name"] == "diffusion-digits-1"
