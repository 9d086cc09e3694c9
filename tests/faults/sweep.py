"""A sweep of twenty real trials, of which at least ten are killed, raise or hang: the others finish, and the same
command again runs only what is missing.

    python tests/faults/sweep.py outputs=<folder>

Takes ten minutes on two cores. It is no part of the test suite, which scripts its trials (tests/sweep/).
"""

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import ours

REPOSITORY = Path(__file__).parents[2]
TESTS = REPOSITORY / "tests"
TRIALS, DEATHS, STALL = 20, 10, 60
FIXED = ("model=diffusion", "data=digits", "trainer=cpu", "logger=[none]", "budget.value=400", "data.limit=200",
         "data.batch_size=8", "model/network=mlp", "model.network.width=16", "model.network.depth=1",
         "model.sampler.num_steps=2", "metrics=[]", "evaluation.num_samples=4", "callbacks.samples.times=1",
         "callbacks.samples.rows=1", "callbacks.evaluation.times=2", "callbacks.checkpoint.every_minutes=0",
         "trainer.log_every_n_steps=1")  # fmt: skip


def command(outputs: Path) -> list[str]:
    slow = "+callbacks.slow={_target_: faults.sweep_callbacks.Slow, seconds: 0.2}"
    bad = ",".join(f"{{_target_: faults.sweep_callbacks.Bad, mended: {outputs / 'mended'}, value: {value}}}"
                   for value in range(10))  # fmt: skip
    return [sys.executable, "train.py", "-m", "sweep=optuna", f"sweep.n_trials={TRIALS}", "sweep.metric=val/loss",
            "sweep.name=deaths", "sweep.retries=0", f"sweep.stall_timeout={STALL}", "launcher.slots=2",
            f"outputs={outputs}", *FIXED, slow, f"+callbacks.bad={bad}",
            "model.optimizer.lr=tag(log, interval(1e-4, 1e-2))"]  # fmt: skip


def run(outputs: Path, deaths: bool) -> tuple[int, str]:
    """The sweep, its trials harmed or left in peace."""
    path = os.pathsep.join([str(REPOSITORY / "src"), str(TESTS)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    log = outputs / f"sweep-{'harmed' if deaths else 'again'}.log"
    with log.open("w") as file:
        process = subprocess.Popen(command(outputs), cwd=REPOSITORY, env=env, stdout=file, stderr=subprocess.STDOUT)
        harmed: set[str] = set()
        while process.poll() is None:
            if deaths:
                harm(outputs / "deaths", harmed)
            time.sleep(0.3)
    return process.returncode, log.read_text()


def harm(folder: Path, harmed: set[str]) -> None:
    """Kill or stop running trials until there are ten deaths, those by a bad parameter among them."""
    if not (folder / "trials.json").exists():
        return
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    raising = {trial["folder"] for trial in trials if bad_value(trial) % 5 == 0}
    for trial in trials:
        name = trial["folder"]
        if trial["state"] != "running" or name in harmed | raising or len(harmed | raising) >= DEATHS:
            continue
        has_saved = any((folder / name / "checkpoints").glob("*.ckpt"))
        early = len(harmed) % 3 == 1  # before anything is saved
        pid = process_of(name)
        if pid is not None and trial["number"] % 4 != 3 and (has_saved or early):
            os.kill(pid, signal.SIGSTOP if len(harmed) % 3 == 2 else signal.SIGKILL)
            harmed.add(name)


def bad_value(trial: dict[str, Any]) -> int:
    return next(int(found[1]) for o in trial["overrides"] if (found := re.search(r"value:\s*(\d+)", o)))


def process_of(folder: str) -> int | None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith((b"folder=", b"run=")) and word.endswith(folder.encode()) for word in words):
            return int(process.name)
    return None


def states(outputs: Path) -> dict[str, str]:
    trials = json.loads((outputs / "deaths/trials.json").read_text())["trials"]
    return {trial["folder"]: trial["state"] for trial in trials}


def main(outputs: Path) -> None:
    ours.confirm()
    outputs.mkdir(parents=True)
    began = time.monotonic()
    code, printed = run(outputs, deaths=True)
    print(printed)
    first = states(outputs)
    failed = {folder for folder, state in first.items() if state == "failed"}
    trials = json.loads((outputs / "deaths/trials.json").read_text())["trials"]
    print(*(f"  {t['said']}" for t in trials if t["state"] == "failed"), sep="\n")
    assert code == 8, code
    assert len(first) == TRIALS
    deaths = len(failed)
    assert deaths >= DEATHS, f"only {deaths} deaths"
    assert sorted(first.values()) == ["failed"] * deaths + ["finished"] * (TRIALS - deaths)
    ends = {folder: (outputs / "deaths" / folder / "summary.json").stat().st_mtime_ns for folder in set(first) - failed}

    (outputs / "mended").touch()
    code, again = run(outputs, deaths=False)
    print(again)
    assert code == 0, code
    begun = [line for line in again.splitlines() if " running " in line]
    assert len(begun) == deaths, begun
    assert states(outputs) == dict.fromkeys(first, "finished")
    for folder, end in ends.items():
        assert (outputs / "deaths" / folder / "summary.json").stat().st_mtime_ns == end, "it was run again"
    print(f"{sum('continues from its checkpoint' in line for line in begun)} of {deaths} went on from a checkpoint")

    with sqlite3.connect(outputs / "deaths/ledger.db") as ledger:
        counted = dict(ledger.execute("select state, count(*) from trials group by state").fetchall())
    assert counted == {"COMPLETE": TRIALS, "FAIL": deaths}, counted
    compare = [sys.executable, "scripts/compare.py", f"runs={outputs / 'deaths'}", f"out={outputs / 'compared'}"]
    subprocess.run(compare, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    rows = list(csv.DictReader(io.StringIO((outputs / "compared/comparison.csv").read_text())))
    assert {Path(row["folder"]).name for row in rows if row["kind"] == "run"} == set(first)
    print(f"the ledger, trials.json and the table agree on {TRIALS} trials; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1].removeprefix("outputs=")).absolute())
