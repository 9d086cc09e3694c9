"""Overhead of a sweep: the same tiny trainings as a sweep and by hand, one after the other.

    python scripts/benchmark_sweep.py [trials=6]

By hand is `python train.py ...` once for each. Prints the seconds of both, those of the sweep in which no trial
ran, and, since the machine may have other things to do, how much of a processor the sweep itself took.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TINY = ("trainer=cpu", "logger=[none]", "data=digits", "data.limit=40", "data.batch_size=8", "budget.value=104",
        "metrics=[]", "evaluation.num_samples=4", "callbacks.samples.times=0", "callbacks.evaluation.times=0",
        "model/network=mlp", "model.network.width=8", "model.network.depth=1", "model.sampler.num_steps=2")  # fmt: skip


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


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(*TINY, f"outputs={folder}/warm")
        by_hand = swept = idle = used = 0.0
        for turn in range(2):  # in turn, since other programs come and go
            seeds = range(turn * trials, (turn + 1) * trials)
            by_hand += sum(train(*TINY, f"seed={seed}", f"outputs={folder}/hand")[0] for seed in seeds)
            name, numbers = f"sweep{turn}", f"seed=range({seeds.start},{seeds.stop})"
            seconds, own = train("-m", *TINY, numbers, f"outputs={folder}", f"sweep.name={name}")
            ran = json.loads((Path(folder) / name / "trials.json").read_text())["trials"]
            assert len(ran) == trials
            swept, used = swept + seconds, used + own
            idle += seconds - sum(trial["seconds"] for trial in ran)
    count = 2 * trials
    more = (swept - by_hand) / count
    print(f"{count} trials  by hand {by_hand:.1f} s  as two sweeps {swept:.1f} s  {more:+.2f} s a trial")
    print(f"no trial ran for {idle / count:.2f} s a trial, the sweeps' own start among them")
    print(f"the sweeps themselves used {used / count:.2f} s of a processor a trial")


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["trials=6"])[0].removeprefix("trials=")))
