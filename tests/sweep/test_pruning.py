"""Giving up early: the learning curves of sixty real trials, replayed through a sweep's ledger and its pruner."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_pruning.py"
CURVES = Path(__file__).with_name("recorded_curves.json")  # docs/sweeps.md has the command that made it


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_pruning", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in (1, 2))])
def test_pruning_saves_time_and_finds_the_same_best(benchmark: ModuleType, seed: int) -> None:
    metric, trials = benchmark.read_kept(CURVES)
    assert len(trials) == 60
    made = benchmark.replay(metric, trials, benchmark.make_pruner("asha"), seed)
    assert made.best is benchmark.best_of(metric, trials)
    assert made.saved >= 0.4


def test_a_sweep_is_read_from_its_files(benchmark: ModuleType, tmp_path: Path) -> None:
    """What was measured at the end is no value in training, also where it has the same name."""
    (tmp_path / "a").mkdir()
    rows = ["step,progress/examples,progress/flops,progress/seconds,val/fid_x_8",
            "9,80,1e9,2.5,7", "19,160,2e9,5,6", "29,240,3e9,8,5"]  # fmt: skip
    (tmp_path / "a" / "metrics.csv").write_text("\n".join([*rows, ""]))
    trials = [{"folder": "a", "state": "finished", "overrides": ["seed=0"], "seconds": 12.0, "value": 5.0},
              {"folder": "b", "state": "failed", "overrides": ["seed=1"], "seconds": 1.0, "value": None}]  # fmt: skip
    (tmp_path / "trials.json").write_text(json.dumps({"metric": "fid", "direction": "lower", "trials": trials}))
    metric, recorded = benchmark.read_sweep(tmp_path)
    assert (metric.name, metric.direction) == ("fid", "lower")
    assert recorded == [benchmark.Recorded(["seed=0"], 4.0, [2.5, 5.0], [7.0, 6.0], 8.0, 5.0)]


def test_without_a_pruner_nothing_is_saved(benchmark: ModuleType) -> None:
    metric, trials = benchmark.read_kept(CURVES)
    made = benchmark.replay(metric, trials[:10], benchmark.make_pruner("none"), seed=0)
    assert (made.finished, made.best) == (10, benchmark.best_of(metric, trials[:10]))
    assert made.saved == pytest.approx(0, abs=1e-9)


def test_what_is_saved_is_the_training_that_was_not_done(benchmark: ModuleType) -> None:
    """Two trials, one after the other: at its first value the second is worse, and is given up there."""
    good, bad = (benchmark.Recorded([f"seed={n}"], 3.0, [10.0, 20.0], [value, value], 30.0, value)
                 for n, value in enumerate((1.0, 2.0)))  # fmt: skip
    seed = next(seed for seed in range(9) if _first(benchmark, [good, bad], seed) is good)
    made = benchmark.replay(benchmark.Metric("fid", "lower"), [good, bad], benchmark.make_pruner("asha"), seed, slots=1)
    assert (made.whole, made.taken, made.finished, made.best) == (66.0, 33.0 + 13.0, 1, good)


def _first(benchmark: ModuleType, trials: list, seed: int) -> object:
    """The one that a replay begins with."""
    order = list(trials)
    benchmark.random.Random(seed).shuffle(order)
    return order[0]
