"""What a run logs of its speed, and the trace of its steps."""

import csv
import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genlab.callbacks import speed
from genlab.callbacks.speed import Speed, matmul_rate
from genlab.model.base import Model, Progress
from tiny_run import BARE, MLP, train


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Trained(Model):
    """A model whose clock and counts are told."""

    def __init__(self) -> None:
        super().__init__(0, SimpleNamespace())  # type: ignore[arg-type]
        self.told: dict[str, float] = {}

    def configure_model(self) -> None: ...

    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        return {}

    def log_dict(self, dictionary: Any, *_: Any, **__: Any) -> None:  # type: ignore[override]
        self.told = {name: float(value) for name, value in dictionary.items()}


def test_a_machine_that_is_busy_elsewhere_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes between any two looks at the clock: one product is timed all the same."""
    ticks = iter(range(100))
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    assert matmul_rate(torch.device("cpu"), torch.float32) > 0


def test_shares_are_of_the_time_and_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of 2 s, of which 0.5 s are waited, and 30 operations each, where 60 a second can be made."""
    clock = SimpleNamespace(perf_counter=lambda: model.step_began + 0.5)
    monkeypatch.setattr(speed, "time", clock)
    monkeypatch.setattr(speed, "matmul_rate", lambda device, dtype: 60.0)
    looks = SimpleNamespace(should_update_logs=False)
    trainer: Any = SimpleNamespace(_logger_connector=looks, world_size=2, precision="bf16-mixed")
    model, callback = Trained(), Speed()
    model.progress = Progress(seconds=7.0, flops=11.0)
    callback.on_train_start(trainer, model)
    for _ in range(2):
        callback.on_train_batch_start(trainer, model, None, 0)
        model.progress.seconds, model.progress.flops = model.progress.seconds + 2, model.progress.flops + 60
        assert model.told == {}
        looks.should_update_logs = model.progress.seconds == 11
        callback.on_train_batch_end(trainer, model, None, None, 0)
    assert model.told == pytest.approx({"speed/data_wait": 0.25, "speed/mfu": 30 / 2 / 60})


def test_a_rate_is_that_of_whole_products() -> None:
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32) < 1e14


def test_training_is_the_same_beside_it_and_beside_a_profiler(tmp_path: Path) -> None:
    short = (*BARE, *MLP, "trainer.log_every_n_steps=4", "budget.value=160")
    plain = train(*short, "callbacks.speed=null", outputs=tmp_path / "plain")
    watched = train(*short, "profile=true", outputs=tmp_path / "watched")
    losses = [[row["train/loss"] for row in rows(run)] for run in (plain, watched)]
    assert losses[0] == losses[1]
    logged = [row for row in rows(watched) if row.get("speed/mfu")]
    assert len(logged) > 2
    assert all(0 <= float(row["speed/data_wait"]) <= 1 and float(row["speed/mfu"]) > 0 for row in logged)
    assert not any("speed/mfu" in row for row in rows(plain))
    assert not list(plain.glob("profile*"))
    with gzip.open(watched / "profile.json.gz", "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "aten::addmm" in names
