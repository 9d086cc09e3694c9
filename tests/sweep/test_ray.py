"""Processes of a real Ray on this machine, where it is installed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genlab.errors import ConfigError

pytest.importorskip("ray", reason="Ray is not installed: pip install 'genlab[ray]'")

from genlab.launcher.ray import Ray, RayJob

PATIENCE = 60  # seconds; only a failure takes as long
WAITS = "trap 'echo saved; exit 143' TERM; echo ready $PPID; while :; do sleep 0.05; done"


def wait(done: Callable[[], object]) -> object:
    until = time.monotonic() + PATIENCE
    while not (found := done()):
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def launcher():  # type: ignore[no-untyped-def]
    before = signal.getsignal(signal.SIGTERM)
    launcher = Ray(slots=2, num_cpus=0.01)
    assert signal.getsignal(signal.SIGTERM) is before
    yield launcher
    launcher.ray.shutdown()


def start(launcher: Ray, script: str, folder: Path) -> tuple[RayJob, Path]:
    job = launcher.start(["bash", "-c", script], {"SAID": "hello"}, folder / "trial.log", 0)
    assert isinstance(job, RayJob)
    return job, folder / "trial.log"


def ended(job: RayJob) -> int:
    wait(lambda: job.poll() is not None)
    code = job.poll()
    assert code is not None
    return code


def is_ready(job: RayJob, log: Path) -> bool:
    return job.poll() is None and not job.is_queued and log.exists() and "ready" in log.read_text()


def test_a_trial_says_and_ends(launcher: Ray, tmp_path: Path) -> None:
    job, log = start(launcher, "echo $SAID; pwd; echo wrong >&2; exit 3", tmp_path)
    assert ended(job) == 3
    assert log.read_text() == f"hello\n{Path.cwd()}\nwrong\n"


def test_a_trial_is_told_to_stop(launcher: Ray, tmp_path: Path) -> None:
    job, log = start(launcher, WAITS, tmp_path)
    wait(lambda: is_ready(job, log))
    job.stop()
    assert ended(job) == 143
    assert log.read_text().endswith("\nsaved\n")


def test_a_trial_that_does_not_listen_is_killed(launcher: Ray, tmp_path: Path) -> None:
    job, log = start(launcher, "trap '' TERM; echo ready; while :; do sleep 0.05; done", tmp_path)
    wait(lambda: is_ready(job, log))
    job.kill()
    assert ended(job) == -9


def test_a_machine_that_is_lost_is_a_trial_that_was_killed(launcher: Ray, tmp_path: Path) -> None:
    job, log = start(launcher, WAITS, tmp_path)
    wait(lambda: is_ready(job, log))
    os.kill(int(log.read_text().split()[1]), signal.SIGKILL)  # Ray's worker
    assert ended(job) == -9
    wait(lambda: "saved" in log.read_text())  # its process does not outlive it


def test_a_trial_that_cannot_begin_says_why(launcher: Ray, tmp_path: Path) -> None:
    job = launcher.start(["no-such-program"], {}, tmp_path / "trial.log", 0)
    assert isinstance(job, RayJob)
    assert ended(job) == 1
    assert "error: the trial could not begin (FileNotFoundError" in (tmp_path / "trial.log").read_text()


def test_a_trial_waits_for_room_and_can_be_taken_back(launcher: Ray, tmp_path: Path) -> None:
    options = launcher.options
    launcher.options = {**options, "num_cpus": 10_000}
    job, log = start(launcher, "echo it ran", tmp_path)
    launcher.options = options
    for _ in range(10):
        assert job.poll() is None
    assert job.is_queued
    job.stop()
    assert ended(job) == -9
    assert not log.exists()


def test_what_no_machine_has_is_said_at_once(launcher: Ray) -> None:
    with pytest.raises(ConfigError, match="a trial needs CPU 10000, and the cluster has CPU"):
        Ray(num_cpus=10_000)
    assert Ray(num_cpus=10_000, slots=1).slots == 1  # waits for a machine that has them
    with pytest.raises(ConfigError, match=r"launcher[.]slots=0"):
        Ray(slots=0)
