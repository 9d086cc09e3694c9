"""What a sweep costs: tiny trainings as a sweep and by hand, and many trials that do nothing.

By hand is ``python train.py ...`` once for each. Since the machine may have other things to do, how much of a processor
the sweep itself took stands beside.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import many_trials
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, alone, row
from benchmarks.timing import Measured, Spent

REPOSITORY = Path(__file__).parents[2]
TINY = (
    "trainer=cpu",
    "logger=[none]",
    "data=digits",
    "data.limit=40",
    "data.batch_size=8",
    "budget.value=104",
    "metrics=[]",
    "evaluation.num_samples=4",
    "callbacks.samples.times=0",
    "callbacks.evaluation.times=0",
    "model/network=mlp",
    "model.network.width=8",
    "model.network.depth=1",
    "model.sampler.num_steps=2",
)


def train(*words: str) -> tuple[float, float]:
    """Seconds of one command, and those of a processor that it used itself, without the processes it started."""
    began, used = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, "train.py", *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.02)
    assert process.returncode == 0
    return time.perf_counter() - began, used


def rows(options: Options) -> Iterator[Row | Skipped]:
    if not options.quick:  # a second for each process that is started
        yield from _beside_trials_by_hand(trials=6)
    for count in (4,) if options.quick else (20, 500):
        yield alone("sweep", f"looking after {count} trials, each", [many_trials.seconds_a_trial(count)], "s")


def _beside_trials_by_hand(trials: int) -> Iterator[Row | Skipped]:
    """Two sweeps of so many, in turn with as many commands. Both sides wait for processes: time of the wall's clock."""
    hand, swept, own = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        train(*TINY, f"outputs={folder}/warm")
        for turn in range(2):
            seeds = range(turn * trials, (turn + 1) * trials)
            by_hand = sum(train(*TINY, f"seed={seed}", f"outputs={folder}/hand")[0] for seed in seeds)
            name, numbers = f"sweep{turn}", f"seed=range({seeds.start},{seeds.stop})"
            seconds, used = train("-m", *TINY, numbers, f"outputs={folder}", f"sweep.name={name}")
            ran = json.loads((Path(folder) / name / "trials.json").read_text())["trials"]
            assert len(ran) == trials
            hand.append(Spent(by_hand, by_hand) / trials)
            swept.append(Spent(seconds, seconds) / trials)
            own.append(used / trials)
    yield row(
        "sweep",
        f"{2 * trials} short trainings, each",
        Measured({"genlab": swept, "by hand": hand}),
        "by hand",
        "the same trainings",
        unit="s",
    )
    yield alone("sweep", "the sweep's own part of it", own, "s")
