"""Runs trials as SLURM jobs, through submitit: each a job with one task on one machine.

The trial in it starts its own processes for several GPUs (``trainer=ddp``), as elsewhere. A job that is preempted
or near its time limit gets a signal, its trial saves and exits, and the sweep submits it again; SLURM requeues nothing.
"""

import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from genlab.errors import ConfigError
from genlab.launcher.base import Job
from genlab.launcher.job import run_command
from genlab.redaction import one_line

FOLDER = "job"  # in a trial's: what submitit writes
_LOOK = 1.0  # seconds between two looks for a job's result
_ASK = 10.0  # seconds between two calls of squeue, shared by all jobs
_SURE = 3  # times that the queue must report a job as over before it counts without a result, which may be delayed
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_AT_WORK = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_TAKEN = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "REVOKED", "DEADLINE")


class Slurm:
    """``slots`` jobs at a time, queued or running."""

    def __init__(
        self,
        slots: int = 8,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        time: int = 1440,  # minutes
        warning: int = 120,  # seconds before the end of that time
        gpus: int = 1,
        cpus: int = 4,
        mem: float | None = None,  # GB
        setup: list[str] | None = None,  # lines of shell
        parameters: Mapping[str, str | int | float | bool] | None = None,  # of sbatch
        cluster: Literal["slurm", "local"] = "slurm",
    ):
        """Raises ConfigError: a number is out of range, or submitit or SLURM is missing."""
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise ConfigError("launcher=slurm needs a package: pip install 'genlab[slurm]'") from error
        if min(slots, time, cpus) < 1 or min(gpus, warning) < 0 or (mem is not None and mem <= 0):
            raise ConfigError(
                f"launcher.slots={slots}, launcher.time={time} and launcher.cpus={cpus} must be >= 1, "
                f"launcher.gpus={gpus} and launcher.warning={warning} >= 0, "
                f"launcher.mem={mem} above 0."
            )
        if warning >= 60 * time:
            raise ConfigError(
                f"launcher.warning={warning} seconds is all of launcher.time={time} minutes. "
                f"Use launcher.warning={30 * time}, or less."
            )
        lacking = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if cluster == "slurm" and lacking:
            raise ConfigError(
                f"launcher=slurm: there is no {lacking[0]} here. Start the sweep where jobs can be submitted."
            )
        self.slots, self.cluster, self.cpus = slots, cluster, cpus
        self.queue = Queue()
        extra: dict[str, Any] = {name.replace("_", "-"): value for name, value in (parameters or {}).items()}
        named = {"partition": partition, "account": account, "qos": qos, "setup": setup}
        self.parameters: dict[str, Any] = {
            "timeout_min": time,
            "cpus_per_task": cpus,
            "nodes": 1,
            "tasks_per_node": 1,
            "slurm_signal_delay_s": warning,
            "slurm_srun_args": [f"--cpus-per-task={cpus}"],  # which srun does not take over from sbatch
            "slurm_additional_parameters": {"no-requeue": True, **extra},
            **{f"slurm_{name}": value for name, value in named.items() if value is not None},
            **({} if mem is None else {"mem_gb": mem}),
            **({"gpus_per_node": gpus} if gpus else {}),
        }
        logging.getLogger("submitit").setLevel(logging.ERROR)

    def start(self, command: Sequence[str], env: Mapping[str, str], log: Path, slot: int) -> Job:
        import submitit

        folder, name = log.parent.resolve() / FOLDER, secrets.token_hex(8)
        threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(self.cpus)}
        try:
            folder.mkdir(exist_ok=True)
            owner = folder / "owner"
            owner.write_text(name)
            executor = submitit.AutoExecutor(folder, cluster=self.cluster)
            executor.update_parameters(name=f"genlab-{log.parent.name}", **self.parameters)
            job = executor.submit(
                run_command, list(command), {**threads, **env}, log.resolve(), Path.cwd(), owner, name
            )
        except Exception as error:  # from sbatch or a disk: only this trial fails
            cause = getattr(error, "stderr", None) or error
            return NotBegun(log, f"the job was not submitted ({one_line(cause)[:300]})")
        return SlurmJob(job, log, self.queue if self.cluster == "slurm" else None)


class NotBegun:
    """A job that could not be submitted: its trial has failed."""

    is_queued = was_taken = False

    def __init__(self, log: Path, why: str):
        with log.open("a") as file:
            file.write(f"error: {why}\n")

    def poll(self) -> int | None:
        return 1

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        pass


class SlurmJob:
    """A job, by its number. It is over when it has left a result, or when the queue reports so repeatedly."""

    def __init__(self, job: Any, log: Path, queue: "Queue | None"):
        """``job``: submitit's; ``queue`` None: not a SLURM job but a local process."""
        self.job, self.log, self.queue = job, log, queue
        self.is_queued, self.was_taken = queue is not None, False
        self._told = False  # whether the sweep told it to stop
        self._code: int | None = None
        self._looked_at = 0.0
        self._over = 0  # times that the queue reported it as over
        self._seen = 0  # answers of the queue
        if queue is not None:
            queue.watch(job.job_id)

    def poll(self) -> int | None:
        if self._code is None and time.monotonic() - self._looked_at > _LOOK:
            self._looked_at = time.monotonic()
            self._code = self._look()
            if self._code is not None and self.queue is not None:
                self.queue.forget(self.job.job_id)
        return self._code

    def _look(self) -> int | None:
        state, is_over = self._state()
        if self.job.paths.result_pickle.exists():
            return self._result(state)
        if not is_over:
            return None
        if state in ("FAILED", "COMPLETED") and not self._told:
            return self._never_began()
        self.was_taken = state in _TAKEN and not self._told
        return -signal.SIGKILL

    def _result(self, state: str) -> int:
        if self.job.exception() is not None:
            return self._never_began()
        code, told = self.job.result()
        self.was_taken = (told or state in _TAKEN) and not self._told and state != "CANCELLED"
        return int(code)

    def _state(self) -> tuple[str, bool]:
        """SLURM's state, and whether the job is over, with a result or without."""
        if self.queue is None:
            is_over = self.job.done()
            return "KILLED" if is_over else "RUNNING", is_over
        answers, state = self.queue.state(self.job.job_id)
        self.is_queued = state in _WAITING
        if answers != self._seen:
            self._seen = answers
            self._over = 0 if state in (*_WAITING, *_AT_WORK) else self._over + 1
        return state, self._over >= (1 if self._told else _SURE)

    def _never_began(self) -> int:
        path = self.job.paths.stderr
        said = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        with self.log.open("a") as file:
            file.write(
                f"error: the job could not begin ({one_line((said or ['no reason given'])[-1])[:300]}); {path}\n"
            )
        return 1

    def stop(self) -> None:
        self._told = True
        if self.queue is None:
            self.job._process.terminate()
        elif self.is_queued:
            _scancel(self.job.job_id)
        else:
            _scancel("--signal=TERM", self.job.job_id)

    def kill(self) -> None:
        self._told = True
        if self.queue is None:
            self.job.cancel()
        else:
            _scancel("--signal=KILL", self.job.job_id)
            _scancel(self.job.job_id)


class Queue:
    """The states of all jobs of a sweep by squeue, queried together and not too often, since many sweeps share one
    SLURM."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}  # of the jobs that are watched
        self._asked_at, self._answers = time.monotonic(), 0

    def watch(self, job: str) -> None:
        self._states[job] = "PENDING"

    def forget(self, job: str) -> None:
        self._states.pop(job, None)

    def state(self, job: str) -> tuple[int, str]:
        """How often it has answered, and the last state. GONE: it does not know the job, which is over then."""
        if time.monotonic() - self._asked_at > _ASK:
            self._asked_at = time.monotonic()
            self._ask()
        return self._answers, self._states[job]

    def _ask(self) -> None:
        command = ["squeue", "--noheader", "--states=all", "--format=%i %T", f"--jobs={','.join(self._states)}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return
        if done.returncode and "Invalid job id" not in done.stderr:
            return  # SLURM does not answer: keep the last states
        found = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if len(line.split()) > 1)
        self._answers += 1
        for job in self._states:
            self._states[job] = found.get(job, "GONE").strip()


def _scancel(*arguments: str) -> None:
    """Ignores jobs that are over. If SLURM does not answer, the job is cancelled again at the end of its grace
    period."""
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["scancel", "--quiet", *arguments], capture_output=True, timeout=60)
