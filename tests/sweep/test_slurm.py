"""Jobs through submitit: its local executor, and a SLURM of shell scripts."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from scripted import BUDGET, states

from genlab.errors import ConfigError
from genlab.launcher import slurm
from genlab.launcher.base import Job
from genlab.sweep.loop import Sweep
from genlab.sweep.plan import read_plan

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'genlab[slurm]'")
PATIENCE = 60  # seconds; only a failure takes as long
WAITS = (
    "trap 'echo saved; exit 143' TERM; trap 'echo up; exit 138' USR1; echo ready $PPID; while :; do sleep 0.05; done"
)

# A SLURM that begins jobs at once, unless there is a file 'hold', and says of them what stands in a file 'states'.
PROGRAMS = {
    "sbatch": """
        n=$(($(cat $FAKE/n 2>/dev/null || echo 0) + 1)); echo $n > $FAKE/n; cp "$1" $FAKE/$n.sh
        if [ -e $FAKE/refuse ]; then echo "sbatch: error: invalid partition specified: no" >&2; exit 1; fi
        export SLURM_JOB_ID=$n SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_JOB_NAME=genlab
        if [ ! -e $FAKE/hold ]; then echo $n RUNNING >> $FAKE/states; bash "$1" > $FAKE/$n.out 2>&1 & fi
        echo Submitted batch job $n""",
    "srun": """
        while [ "${1#-}" != "$1" ]; do case $1 in --output|--error) shift;; esac; shift; done
        echo $$ > $FAKE/$SLURM_JOB_ID.pid; exec "$@" """,
    "squeue": """
        if [ -e $FAKE/down ]; then echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; fi
        cat $FAKE/states 2>/dev/null""",
    "scancel": """
        echo "$@" >> $FAKE/cancelled; s=TERM
        for a; do case $a in --signal=*) s=${a#--signal=};; --*) ;; *) j=$a;; esac; done
        if [ -e $FAKE/$j.pid ]; then kill -$s $(cat $FAKE/$j.pid); fi""",
}


def wait(done: Callable[[], object]) -> object:
    until = time.monotonic() + PATIENCE
    while not (found := done()):
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_LOOK", 0.0)
    monkeypatch.setattr(slurm, "_ASK", 0.05)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what stands in for SLURM."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in PROGRAMS.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def start(launcher: slurm.Slurm, script: str, tmp_path: Path) -> tuple[slurm.SlurmJob, Path]:
    folder = tmp_path / "trial"
    folder.mkdir(exist_ok=True)
    job = launcher.start(["bash", "-c", script], {"SAID": "hello"}, folder / "trial.log", 0)
    assert isinstance(job, slurm.SlurmJob)
    return job, folder / "trial.log"


def ended(job: Job) -> int:
    wait(lambda: job.poll() is not None)
    code = job.poll()
    assert code is not None
    return code


def is_ready(log: Path) -> bool:
    return log.exists() and "ready" in log.read_text()


def test_a_local_job_is_stopped_or_preempted(tmp_path: Path) -> None:
    launcher = slurm.Slurm(cluster="local", gpus=0, cpus=1)
    job, log = start(launcher, WAITS, tmp_path)
    wait(lambda: is_ready(log))
    assert not job.is_queued
    job.stop()
    assert (ended(job), job.was_taken) == (143, False)
    assert log.read_text().endswith("\nsaved\n")
    log.unlink()
    job, log = start(launcher, WAITS, tmp_path)
    wait(lambda: is_ready(log))
    os.kill(int(log.read_text().split()[1]), slurm.signal.SIGUSR2)  # as SLURM does, some time before the end
    assert (ended(job), job.was_taken) == (138, True)


def test_a_job_is_a_trial_and_starts_its_own_processes(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = slurm.Slurm(partition="short", time=30, warning=60, gpus=2, cpus=3, mem=8, parameters={"comment": "a b"})
    said = "echo $SAID $OMP_NUM_THREADS $SLURM_JOB_ID; env | grep -c 'SLURM_NTASKS\\|SUBMITIT'; echo wrong >&2; exit 3"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    job, log = start(launcher, said, tmp_path)
    assert (ended(job), job.was_taken) == (3, False)
    assert log.read_text() == "hello 3 1\n0\nwrong\n"
    asked = (fake / "1.sh").read_text().splitlines()
    for line in ("partition=short", "time=30", "signal=USR2@60", "gpus-per-node=2", "cpus-per-task=3", "mem=8GB",
                 "nodes=1", "ntasks-per-node=1", "no-requeue", "comment='a b'"):  # fmt: skip
        assert f"#SBATCH --{line}" in asked
    assert "--cpus-per-task=3" in asked[-2] + asked[-1]


def test_a_job_at_work_is_told_and_one_in_the_queue_is_cancelled(fake: Path, tmp_path: Path) -> None:
    launcher = slurm.Slurm(gpus=0)
    job, log = start(launcher, WAITS, tmp_path)
    wait(lambda: is_ready(log) and job.poll() is None and not job.is_queued)
    job.stop()
    assert (ended(job), job.was_taken) == (143, False)
    (fake / "hold").touch()
    job, log = start(launcher, WAITS, tmp_path)
    (fake / "states").write_text("2 PENDING\n")
    for _ in range(20):
        assert job.poll() is None
    assert job.is_queued
    job.stop()
    (fake / "states").write_text("2 CANCELLED\n")
    assert (ended(job), job.was_taken) == (-9, False)
    assert (fake / "cancelled").read_text().splitlines() == ["--quiet --signal=TERM 1", "--quiet 2"]


@pytest.mark.parametrize(("state", "code", "taken"), [
    ("PREEMPTED", -9, True), ("TIMEOUT", -9, True), ("NODE_FAIL", -9, True), ("OUT_OF_MEMORY", -9, False),
    ("CANCELLED", -9, False), ("FAILED", 1, False), (None, -9, False),
])  # fmt: skip
def test_a_job_without_a_result_is_what_the_queue_says(
    state: str | None, code: int, taken: bool, fake: Path, tmp_path: Path
) -> None:
    (fake / "hold").touch()
    job, log = start(slurm.Slurm(gpus=0), "true", tmp_path)
    (fake / "states").write_text("1 RUNNING\n")
    wait(lambda: job.poll() is None and not job.is_queued)
    (fake / "down").touch()
    (fake / "states").write_text(f"1 {state}\n" if state else "")
    time.sleep(0.2)
    assert job.poll() is None  # nobody knows
    (fake / "down").unlink()
    assert (ended(job), job.was_taken) == (code, taken)
    assert (state == "FAILED") == (log.exists() and "error: the job could not begin" in log.read_text())


def test_a_job_that_another_has_replaced_leaves(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake / "hold").touch()
    job, log = start(slurm.Slurm(gpus=0), "echo it ran", tmp_path)
    (tmp_path / "trial/job/owner").write_text("another")
    env = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    subprocess.run(["bash", fake / "1.sh"], env={**os.environ, **env}, check=True)
    assert ended(job) == -15
    assert not log.exists()


def test_a_job_that_is_not_taken_is_its_trials_failure(fake: Path, tmp_path: Path) -> None:
    (fake / "refuse").touch()
    (tmp_path / "trial").mkdir()
    job = slurm.Slurm(gpus=0).start(["true"], {}, tmp_path / "trial/trial.log", 0)
    assert job.poll() == 1
    assert "invalid partition specified: no" in (tmp_path / "trial/trial.log").read_text()


def test_a_preempted_trial_goes_on_in_another_job(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is told to leave, saves, and is submitted again, which costs none of its retries."""
    monkeypatch.setattr(Sweep, "_legal", lambda self, trial: OmegaConf.create(BUDGET))
    script = tmp_path / "trial.sh"
    script.write_text(r"""
        last="${@: -1}"; folder="${last#*=}"; touch "$folder/config.yaml"; echo "${last%%=*}"
        if [ "${last%%=*}" = run ]; then echo '{"metrics": {}}' > "$folder/summary.json"; exit 0; fi
        trap 'mkdir -p "$folder/checkpoints"; touch "$folder/checkpoints/examples=8.ckpt"; exit 143' TERM
        kill -TERM $PPID; while :; do sleep 0.05; done
    """)
    launcher = slurm.Slurm(cluster="local", slots=1, gpus=0, cpus=1)
    begin = launcher.start

    def as_script(command: list[str], *rest: object) -> Job:
        return begin(["bash", str(script), *command], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(launcher, "start", as_script)
    plan = read_plan([f"outputs={outputs}", "sweep.name=s", "sweep.retries=0", "seed=0"], None)
    Sweep(replace(plan, launcher=launcher)).run()
    assert states(outputs) == ["finished"]
    (log,) = outputs.glob("s/*/trial.log")
    assert log.read_text().split() == ["folder", "run"]


def test_what_cannot_be_is_said_at_once(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_left = r"launcher[.]warning=120 seconds is all of launcher[.]time=2 minutes[.] Use launcher[.]warning=60"
    with pytest.raises(ConfigError, match=nothing_left):
        slurm.Slurm(time=2)
    slurm.Slurm(time=2, warning=60)
    with pytest.raises(ConfigError, match=r"launcher[.]slots=0"):
        slurm.Slurm(slots=0)
    (fake / "squeue").unlink()
    monkeypatch.setenv("PATH", str(fake))
    with pytest.raises(ConfigError, match=r"launcher=slurm: there is no squeue here"):
        slurm.Slurm()
