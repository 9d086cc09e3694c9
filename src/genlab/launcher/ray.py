"""Runs trials as processes on a Ray cluster. Ray chooses the machine and the GPUs.

Every machine needs the same environment, and the sweep's folder under the same path.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genlab.errors import ConfigError
from genlab.launcher.base import Job
from genlab.launcher.local import begin
from genlab.redaction import one_line

_LOOK = 0.5  # seconds between two checks whether a trial has ended
_PATIENCE = 10.0  # seconds that a machine has to kill a trial


class Ray:
    """``slots`` trials at a time; a trial waits if there is no room for it yet."""

    def __init__(
        self,
        address: str | None = None,
        slots: int | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
    ):
        """Raises ConfigError: a number is out of range, Ray is missing, or has no room for a single trial."""
        try:
            import ray
        except ImportError as error:
            raise ConfigError("launcher=ray needs a package: pip install 'genlab[ray]'") from error
        wanted = {"CPU": num_cpus, "GPU": num_gpus, **(resources or {})}
        if (slots is not None and slots < 1) or min(wanted.values()) < 0 or not any(wanted.values()):
            raise ConfigError(
                f"launcher.slots={slots} must be a whole number >= 1, or null; "
                f"launcher.num_cpus={num_cpus}, launcher.num_gpus={num_gpus} and launcher.resources "
                ">= 0, and not all 0."
            )
        self.ray = ray
        _connect(ray, address)
        there_are = ray.cluster_resources()
        room = min(int(there_are.get(name, 0) / amount) for name, amount in wanted.items() if amount)
        if slots is None and room < 1:
            has = (
                ", ".join(f"{name} {amount:g}" for name, amount in there_are.items() if name in wanted) or "none of it"
            )
            needs = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items() if amount)
            raise ConfigError(
                f"launcher=ray: a trial needs {needs}, and the cluster has {has}. Ask for less, or set "
                "launcher.slots=... to wait for machines that join it."
            )
        self.slots = slots or room
        self.options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": dict(resources or {})}

    def start(self, command: Sequence[str], env: Mapping[str, str], log: Path, slot: int) -> Job:
        there = self.ray.remote(There).options(max_restarts=0, max_task_retries=0, **self.options)
        return RayJob(self.ray, there.remote(list(command), dict(env), str(log.resolve()), str(Path.cwd())), log)


def _connect(ray: Any, address: str | None) -> None:
    """Raises ConfigError if Ray does not answer. Keeps the sweep's signal handlers, which Ray replaces."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a trial without GPUs still sees all
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    own = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            ignore_reinit_error=True,
            **own,
        )
    except Exception as error:
        raise ConfigError(
            f"launcher.address={address}: no Ray answers there ({one_line(error)[:200]}). Start one with "
            "ray start --head, or leave the address out."
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class There:
    """Runs on the machine that Ray has chosen."""

    def __init__(self, command: list[str], env: dict[str, str], log: str, folder: str):
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # blocked by Ray in its workers
        self.job = begin(command, {**os.environ, **env}, Path(log), Path(folder))

    def poll(self) -> int | None:
        return self.job.poll()

    def stop(self) -> None:
        self.job.stop()

    def kill(self) -> None:
        self.job.kill()


class RayJob:
    was_taken = False  # Ray does not report why a machine is gone

    def __init__(self, ray: Any, there: Any, log: Path):
        self.ray, self.there, self.log = ray, there, log
        self.is_queued = True  # until it has answered
        self._code: int | None = None
        self._question = there.poll.remote()
        self._asked_at = time.monotonic()
        self._killed_at = float("inf")

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._look()
            if self._code is not None:
                self.ray.kill(self.there)  # frees its resources
        return self._code

    def _look(self) -> int | None:
        now = time.monotonic()
        if now - self._killed_at > _PATIENCE:
            return -signal.SIGKILL
        if self._question is None:
            if now - self._asked_at < _LOOK:
                return None
            self._question, self._asked_at = self.there.poll.remote(), now
        answered, _ = self.ray.wait([self._question], timeout=0)
        if not answered:
            return None
        question, self._question = self._question, None
        try:
            code = self.ray.get(question)
        except Exception as error:
            return self._lost(error)
        self.is_queued = False
        return code

    def _lost(self, error: Exception) -> int:
        """The machine is gone, or the trial could not begin, e.g. because its folder is missing."""
        said = str(error).strip().splitlines() or [type(error).__name__]
        if self.is_queued and self._killed_at == float("inf"):
            with self.log.open("a") as file:
                file.write(f"error: the trial could not begin ({one_line(said[-1])[:300]})\n")
            return 1
        return -signal.SIGKILL

    def stop(self) -> None:
        if self.is_queued:
            self.kill()
        else:
            self.there.stop.remote()

    def kill(self) -> None:
        self._killed_at = min(self._killed_at, time.monotonic())
        if self.is_queued:
            self._code = -signal.SIGKILL
            self.ray.kill(self.there)
        else:
            self.there.kill.remote()
