"""How long a user waits for the first step of the default run, and how much of a run is not training."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.options import Options
from benchmarks.row import Row, Skipped, alone

PROGRAM = Path(__file__).with_name("first_step.py")
DEFAULT = ("trainer=cpu", "logger=[none]")


def rows(options: Options) -> Iterator[Row | Skipped]:
    """In processes of their own, which end with their first step."""
    rounds = 1 if options.quick else min(3, options.rounds)
    moments: dict[str, list[dict[str, float]]] = {"cpu": [], "wall": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found = until_first_step(Path(folder))
        for clock in moments:
            moments[clock].append(found[clock])
    last = {clock: [found["stepped"] for found in all_found] for clock, all_found in moments.items()}
    facts = {
        f"cpu_until_{name}": sorted(found[name] for found in moments["cpu"])[rounds // 2]
        for name in ("fit", "step", "stepped")
    }
    yield alone(
        "startup",
        "default run, CPU until its first step is made",
        last["cpu"],
        "s",
        at_most=5,
        wall_seconds=sorted(last["wall"])[rounds // 2],
        **facts,
    )
    if options.run is None:
        yield Skipped(
            "startup",
            "default run, share that is not training",
            "it is read from a run that ended: python train.py, then --run outputs/...",
        )
        return
    summary = json.loads((options.run / "summary.json").read_text(encoding="utf-8"))
    share = 100 * (1 - summary["seconds"] / summary["wall_seconds"])
    yield alone(
        "startup",
        "default run, share that is not training",
        [share],
        "%",
        at_most=12,
        seconds=summary["seconds"],
        wall_seconds=summary["wall_seconds"],
    )


def until_first_step(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds until Lightning begins to fit, until the first step begins, and until it is made."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BEGAN": repr(time.time())}
    command = [sys.executable, "-P", str(PROGRAM), *DEFAULT, f"outputs={folder}"]
    ended = subprocess.run(command, capture_output=True, text=True, env=env)
    lines = [line for line in ended.stdout.splitlines() if line.startswith('{"cpu"')]
    assert lines, ended.stderr
    found: dict[str, dict[str, float]] = json.loads(lines[-1])
    return found
