"""Processes of this machine: their signals, their groups, their share of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genlab.errors import ConfigError
from genlab.launcher import local
from genlab.launcher.local import Local

PATIENCE = 60  # seconds; only a failure takes as long


def wait(done: Callable[[], object]) -> object:
    until = time.monotonic() + PATIENCE
    while not (found := done()):
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Local:
    monkeypatch.setattr(local, "visible_gpus", list)
    return Local()


def start(launcher: Local, script: str, log: Path, **env: str) -> local.LocalJob:
    return launcher.start(["bash", "-c", script], env, log, 0)


def ended(job: local.LocalJob) -> int:
    wait(lambda: job.poll() is not None)
    code = job.poll()
    assert code is not None
    return code


def test_output_is_appended_and_the_code_is_told(one: Local, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    assert ended(start(one, "echo $SAID; echo wrong >&2; exit 3", log, SAID="hello")) == 3
    assert log.read_text() == "before\nhello\nwrong\n"


def test_a_signal_is_a_negative_code(one: Local, tmp_path: Path) -> None:
    assert ended(start(one, "kill -9 $$", tmp_path / "log")) == -signal.SIGKILL


def test_stop_asks_the_first_process_alone(one: Local, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = start(one, "trap 'echo saved; exit 143' TERM; (trap 'echo told too' TERM; while :; do sleep 0.05; done) & "
                     "echo ready; while :; do sleep 0.05; done", log)  # fmt: skip
    wait(lambda: "ready" in log.read_text())
    job.stop()
    assert ended(job) == 143
    assert log.read_text() == "ready\nsaved\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["kill", "exit", "stopped"])
def test_whoever_a_trial_started_goes_with_it(end: str, one: Local, tmp_path: Path) -> None:
    log = tmp_path / "log"
    last = "exit 0" if end == "exit" else "sleep 600"
    job = start(one, f"sleep 600 & echo $!; {last}", log)
    child = int(str(wait(lambda: log.read_text().strip())))
    if end == "stopped":
        os.kill(job.process.pid, signal.SIGSTOP)  # as if it hung
    if end != "exit":
        job.kill()
    ended(job)
    wait(lambda: not lives(child))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_trial_saves_and_leaves_when_its_sweep_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    trial = "trap 'echo saved; exit 143' TERM; echo $$; while :; do sleep 0.05; done"
    code = f"import time; from pathlib import Path; from genlab.launcher.local import Local; " \
           f"Local(1).start(['bash', '-c', {trial!r}], {{}}, Path({str(log)!r}), 0); time.sleep(600)"  # fmt: skip
    sweep = subprocess.Popen([sys.executable, "-c", code])
    pid = int(str(wait(lambda: log.exists() and log.read_text().strip())))
    sweep.kill()
    sweep.wait()
    wait(lambda: not lives(pid))
    assert log.read_text() == f"{pid}\nsaved\n"


def test_gpus_and_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1", "2", "3"])
    assert Local().slots == 4
    assert Local()._share(2) == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "2"}
    assert Local(gpus_per_trial=2).slots == 2
    assert Local(gpus_per_trial=2)._share(1)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert Local(slots=8)._share(5)["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in Local(slots=2, gpus_per_trial=0)._share(1)
    with pytest.raises(ConfigError, match="gpus_per_trial=5, but this machine has 4"):
        Local(gpus_per_trial=5)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in Local()._share(0)


@pytest.mark.parametrize(("named", "gpus"), [("0,3", ["0", "3"]), ("", []), ("-1", []), ("GPU-a1", ["GPU-a1"])])
def test_gpus_are_those_that_may_be_seen(named: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert local.visible_gpus() == gpus
