"""Runs trials as processes on this machine, each in its own process group with its own GPUs."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from genlab.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Local:
    """``slots`` processes at a time, which share this machine's cores and GPUs."""

    def __init__(self, slots: int | None = None, gpus_per_trial: int = 1):
        """Raises ConfigError for numbers out of range, or more GPUs than there are."""
        self.gpus = visible_gpus()
        if slots is not None and slots < 1:
            raise ConfigError(f"launcher.slots={slots} must be a whole number >= 1, or null.")
        if gpus_per_trial < 0:
            raise ConfigError(f"launcher.gpus_per_trial={gpus_per_trial} must be a whole number >= 0.")
        if self.gpus and gpus_per_trial > len(self.gpus):
            raise ConfigError(f"launcher.gpus_per_trial={gpus_per_trial}, but this machine has {len(self.gpus)}.")
        self.gpus_per_trial = gpus_per_trial
        self.slots = slots or (len(self.gpus) // gpus_per_trial if self.gpus and gpus_per_trial else 1)

    def start(self, command: Sequence[str], env: Mapping[str, str], log: Path, slot: int) -> "LocalJob":
        return begin(command, {**os.environ, **self._share(slot), **env}, log)

    def _share(self, slot: int) -> dict[str, str]:
        """A slot's GPUs and threads. More slots than the GPUs allow share them in turn."""
        threads = max(1, len(os.sched_getaffinity(0)) // self.slots) if hasattr(os, "sched_getaffinity") else 1
        share = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
        if self.gpus and self.gpus_per_trial:
            first = slot * self.gpus_per_trial
            mine = [self.gpus[(first + i) % len(self.gpus)] for i in range(self.gpus_per_trial)]
            share["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        return share


def begin(command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path | None = None) -> "LocalJob":
    """Start a process that exits when this one is gone. ``env``: complete; ``folder``: its working folder, None: this
    one."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the sweep, which stops its trials
            preexec_fn=_leave_with_its_parent if _LIBC else None,
        )
    return LocalJob(process)


class LocalJob:
    """A process group. Its first process gets the signal to save and tells the others, as with Ctrl-C in a run."""

    is_queued = was_taken = False

    def __init__(self, process: "subprocess.Popen[bytes]"):
        self.process = process

    def poll(self) -> int | None:
        if self.process.returncode is None and self._has_ended():
            self._kill_group()  # its children
            self.process.wait()
        return self.process.returncode

    def _has_ended(self) -> bool:
        """Whether it has ended, without reaping it where possible, so that its group number is not reused."""
        if sys.platform == "darwin":
            return self.process.poll() is not None
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def stop(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.process.returncode is None:
            self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS forbids it if only zombies are left
            os.killpg(self.process.pid, signal.SIGKILL)


def _leave_with_its_parent() -> None:
    """Runs in the child before the trial starts: makes it save and exit when its parent is gone."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def visible_gpus() -> list[str]:
    """The GPUs for CUDA_VISIBLE_DEVICES, found without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.split()
