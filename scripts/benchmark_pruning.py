"""Savings by pruning: a sweep whose trials all ran to their end, replayed with a pruner.

    python scripts/benchmark_pruning.py outputs/<sweep>                    # the pruner of sweep/pruner=asha
    python scripts/benchmark_pruning.py outputs/<sweep> --pruner hyperband --slots 4
    python scripts/benchmark_pruning.py outputs/<sweep> --keep curves.json # what is replayed, in one small file,
    python scripts/benchmark_pruning.py curves.json                        # and from it

The recorded trials begin in another order for each seed, as slots become free. At each value that a trial had in
training the ledger of a sweep asks the pruner, and gives up what it gives up. What that saves are seconds of training;
a trial's start and its evaluations are counted as if it had made all of them.
"""

import argparse
import heapq
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner

from genlab.config.build import build
from genlab.config.tree import resolved
from genlab.report.curves import Point, read_curves
from genlab.sweep.ledger import Ledger, Trial
from genlab.sweep.metric import Metric
from genlab.sweep.plan import compose_sweep
from genlab.sweep.space import folder_of


@dataclass(frozen=True)
class Recorded:
    """A trial that ran to its end."""

    overrides: list[str]
    elsewhere: float  # seconds of its start and its evaluations
    seconds: list[float]  # of training up to each value
    values: list[float]  # of the metric in training
    trained: float  # seconds of training, all of it
    final: float  # the metric at the end


@dataclass(frozen=True)
class Replay:
    whole: float  # seconds of all trials, had none been given up
    taken: float  # seconds of what was run
    finished: int
    best: Recorded | None  # of those that finished

    @property
    def saved(self) -> float:
        return 1 - self.taken / self.whole


def read_sweep(folder: Path) -> tuple[Metric, list[Recorded]]:
    told = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    metric = Metric(told["metric"], told["direction"])
    return metric, [_recorded(folder, metric, t) for t in told["trials"] if t["state"] == "finished"]


def _recorded(folder: Path, metric: Metric, trial: dict[str, Any]) -> Recorded:
    curves = read_curves(folder / trial["folder"])
    trained = max(points[-1].seconds for points in curves.values())
    measured: list[Point] = metric.pick(curves) or []  # type: ignore[arg-type, assignment]
    points = [point for point in measured if point.seconds < trained]  # the last is the evaluation at the end
    return Recorded(
        overrides=trial["overrides"],
        elsewhere=round(trial["seconds"] - trained, 2),
        seconds=[round(point.seconds, 4) for point in points],
        values=[round(point.value, 4) for point in points],
        trained=trained,
        final=trial["value"],
    )


def replay(metric: Metric, trials: Sequence[Recorded], pruner: BasePruner, seed: int, slots: int = 2) -> Replay:
    """The trials in an order that ``seed`` shuffles, ``slots`` at a time."""
    waiting = list(trials)
    random.Random(seed).shuffle(waiting)
    waiting.reverse()
    taken, ended = 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), None, metric, pruner)
        happening: list[tuple[float, int, int, Recorded, Trial]] = []  # when, and which value of which trial

        def begin(now: float) -> None:
            if waiting:
                recorded = waiting.pop()
                trial = ledger.claim(Trial(0, folder_of(recorded.overrides), recorded.overrides))
                assert trial is not None
                wait_for(0, now + recorded.elsewhere, recorded, trial)

        def wait_for(step: int, begun: float, recorded: Recorded, trial: Trial) -> None:
            until = [*recorded.seconds, recorded.trained][step]
            heapq.heappush(happening, (begun + until, trial.number, step, recorded, trial))

        for _ in range(slots):
            begin(0.0)
        while happening:
            now, _, step, recorded, trial = heapq.heappop(happening)
            spent = [*recorded.seconds, recorded.trained][step]
            if step == len(recorded.values):
                trial.state, trial.value = "finished", recorded.final
                ended.append(recorded)
            elif ledger.is_hopeless(trial, step + 1, recorded.values[step]):
                trial.state, trial.value = "pruned", recorded.values[step]
            else:
                wait_for(step + 1, now - spent, recorded, trial)
                continue
            ledger.end(trial, recorded.elsewhere + spent)
            taken += recorded.elsewhere + spent
            begin(now)
    whole = sum(trial.elsewhere + trial.trained for trial in trials)
    return Replay(whole, taken, len(ended), best_of(metric, ended))


def best_of(metric: Metric, trials: Sequence[Recorded]) -> Recorded | None:
    ranked = sorted(trials, key=lambda trial: trial.final, reverse=metric.direction == "higher")
    return ranked[0] if ranked else None


def make_pruner(name: str) -> BasePruner:
    """As ``sweep/pruner=name`` gives it. Raises ConfigError."""
    pruner: BasePruner = build(
        resolved(compose_sweep([f"sweep/pruner={name}"], None))["sweep"]["pruner"], BasePruner, ""
    )
    return pruner


def read_kept(file: Path) -> tuple[Metric, list[Recorded]]:
    told = json.loads(file.read_text(encoding="utf-8"))
    return Metric(told["metric"], told["direction"]), [Recorded(**trial) for trial in told["trials"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recorded", type=Path, help="a sweep's folder, or a file that --keep made")
    parser.add_argument("--pruner", default="asha")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="write what is replayed to this file")
    options = parser.parse_args()
    metric, trials = (read_sweep if options.recorded.is_dir() else read_kept)(options.recorded)
    if options.keep:
        content = {"metric": metric.name, "direction": metric.direction, "trials": [asdict(trial) for trial in trials]}
        options.keep.write_text(json.dumps(content).replace('{"overrides"', '\n{"overrides"') + "\n")
    best = best_of(metric, trials)
    assert best is not None
    print(f"{len(trials)} trials, best {metric.name} {best.final:.4g}: {' '.join(best.overrides)}")
    print("| seed | all to their end | with the pruner | saved | ran to their end | its best |")
    print("|---:|---:|---:|---:|---:|---|")
    for seed in range(options.seeds):
        made = replay(metric, trials, make_pruner(options.pruner), seed, options.slots)
        which = "the same" if made.best is best else "none" if made.best is None else f"another, {made.best.final:.4g}"
        print(f"| {seed} | {made.whole:.0f} s | {made.taken:.0f} s | {made.saved:.0%} | {made.finished} | {which} |")


if __name__ == "__main__":
    main()
