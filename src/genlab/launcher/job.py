"""Runs a trial's command inside a cluster job, and forwards signals to it."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from genlab.launcher.local import begin

_PERIOD = 0.2  # seconds between two looks at the trial
_OWNER = 5.0  # seconds between two checks who owns its folder
_TIME_IS_UP = signal.SIGUSR2  # what submitit asks SLURM for, some time before a job's end


def run_command(
    command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path, owner: Path, name: str
) -> tuple[int, bool]:
    """Run it to its end. -> its exit code, or minus the signal that ended it; whether the job was told to stop.

    SIGTERM is passed on, and SIGUSR2, near the time limit, as SIGUSR1: the trial saves and exits. SIGINT kills it. It
    also stops when ``owner`` no longer holds ``name``: another job got its folder while this one waited or was lost.
    """
    if not _is_ours(owner, name):
        print(f"another job has been given {log.parent}", flush=True)
        return -signal.SIGTERM, True
    signal.signal(_TIME_IS_UP, signal.SIG_IGN)  # also in the trial: some clusters send it the job's signals too
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    job = begin(command, {**_plain(os.environ), **env}, log, folder)
    for number in (signal.SIGTERM, signal.SIGINT, _TIME_IS_UP):
        signal.signal(number, hear)
    passed_on, looked = 0, time.monotonic()
    while (code := job.poll()) is None:
        for told in heard[passed_on:]:
            passed_on += 1
            if told == signal.SIGINT:
                job.kill()
            else:
                job.process.send_signal(signal.SIGUSR1 if told == _TIME_IS_UP else signal.SIGTERM)
        if time.monotonic() - looked > _OWNER:
            looked = time.monotonic()
            if not heard and not _is_ours(owner, name):
                heard.append(signal.SIGTERM)
        time.sleep(_PERIOD)
    return code, bool(heard)


def _is_ours(owner: Path, name: str) -> bool:
    try:
        return owner.read_text() == name
    except FileNotFoundError:
        return False
    except OSError:  # a file system that does not answer
        return True


def _plain(env: Mapping[str, str]) -> dict[str, str]:
    """Without variables by which SLURM or submitit start the processes of a run: a trial starts its own, on one
    machine."""
    told = ("SLURM_JOB_ID", "SLURM_JOB_NODELIST")
    of_the_job = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_")
    return {name: value for name, value in env.items() if name in told or not name.startswith(of_the_job)}
