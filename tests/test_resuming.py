"""What a run that goes on may change: what its training depends on only where that is said."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genlab import checkpoint
from genlab.errors import ConfigError
from genlab.experiment import Interrupted
from tiny_run import MLP, SignalAt, only_run, resume, train


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(Interrupted):
        train(*MLP, "model/schedule=constant", SignalAt.override(48), outputs=tmp_path)
    return only_run(tmp_path)


def group(run: Path) -> dict[str, Any]:
    return checkpoint.newest(run).content["optimizer_states"][0]["param_groups"][0]


def test_a_change_that_was_not_allowed_is_refused_and_named(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = sorted(stopped.rglob("*"))
    said = (r"was trained with other settings: data\.batch_size 8 -> 4, model\.optimizer\.lr 0\.002 -> 1e-05\. Leave "
            r"them as they were, start a new run, or go on with them: allow_changes=true\.")  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        resume(stopped, "model.optimizer.lr=1e-5", "data.batch_size=4", "budget.value=200")
    assert capsys.readouterr().out == ""
    assert sorted(stopped.rglob("*")) == before


def test_a_change_that_is_allowed_is_said_and_made(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = checkpoint.newest(stopped).state
    steps = checkpoint.newest(stopped).content["optimizer_states"][0]["state"][0]["step"]
    resume(stopped, "model.optimizer.lr=1e-30", "model.optimizer.weight_decay=0", allow_changes=True)
    assert "changed:    model.optimizer.lr 0.002 -> 1e-30\n" in capsys.readouterr().out
    after = checkpoint.newest(stopped)
    assert after.progress.examples == 104
    assert all(torch.equal(after.state[name], weights[name]) for name in weights)  # at that rate nothing moves
    assert group(stopped)["lr"] == group(stopped)["initial_lr"] == 1e-30
    assert after.content["optimizer_states"][0]["state"][0]["step"] == steps + 6  # the moments went on


def test_another_optimizer_starts_without_a_history(stopped: Path) -> None:
    typed = ("model.optimizer={_target_: torch.optim.SGD, _partial_: true, lr: 0.01, momentum: 0.9}",)
    with pytest.raises(ConfigError, match=r"model\.optimizer\._target_ torch\.optim\.AdamW -> torch\.optim\.SGD"):
        resume(stopped, *typed)
    resume(stopped, *typed, allow_changes=True)
    assert group(stopped)["momentum"] == 0.9
    assert set(checkpoint.newest(stopped).content["optimizer_states"][0]["state"][0]) == {"momentum_buffer"}


def test_what_training_does_not_depend_on_may_change(stopped: Path) -> None:
    resume(stopped, "budget.value=120", "evaluation.num_samples=3", "callbacks.samples.times=1",
           "trainer.log_every_n_steps=2", "data.num_workers=1", "metrics=[fid]")  # fmt: skip
    assert checkpoint.newest(stopped).progress.examples == 120


def test_the_moving_average_is_a_part_of_the_model(stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.ema\.half_life 500000 -> 10"):
        resume(stopped, "callbacks.ema.half_life=10")
