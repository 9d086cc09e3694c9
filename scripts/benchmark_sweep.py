"""What a sweep costs beyond its trials: the same tiny trainings as a sweep and by hand, one after the other.

    python scripts/benchmark_sweep.py [trials=6]

By hand is `python train.py ...` once for each. Prints the seconds of both, and those of the sweep in which no trial
ran.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TINY = ("trainer=cpu", "logger=[none]", "data=digits", "data.limit=40", "data.batch_size=8", "budget.value=104",
        "metrics=[]", "evaluation.num_samples=4", "callbacks.samples.times=0", "callbacks.evaluation.times=0",
        "model/network=mlp", "model.network.width=8", "model.network.depth=1", "model.sampler.num_steps=2")  # fmt: skip


def train(*words: str) -> float:
    """Seconds of one command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "train.py", *words], cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - began


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(*TINY, f"outputs={folder}/warm")
        by_hand, swept, idle = [], 0.0, 0.0
        for turn in range(2):  # in turn, since other programs come and go
            seeds = range(turn * trials, (turn + 1) * trials)
            by_hand += [train(*TINY, f"seed={seed}", f"outputs={folder}/hand") for seed in seeds]
            name = f"sweep{turn}"
            seconds = train(
                "-m", *TINY, f"seed=range({seeds.start},{seeds.stop})", f"outputs={folder}", f"sweep.name={name}"
            )
            ran = [
                trial["seconds"] for trial in json.loads((Path(folder) / name / "trials.json").read_text())["trials"]
            ]
            assert len(ran) == trials
            swept, idle = swept + seconds, idle + seconds - sum(ran)
    count = 2 * trials
    print(f"{count} trials  by hand {sum(by_hand):.1f} s  as a sweep {swept:.1f} s  "
          f"more: {(swept - sum(by_hand)) / count:+.2f} s a trial")  # fmt: skip
    print(f"of the sweep {idle:.1f} s without a trial: {idle / count:.2f} s a trial, its own start among them")


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["trials=6"])[0].removeprefix("trials=")))
