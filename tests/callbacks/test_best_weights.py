"""The best weights are those of the lowest held-out loss, and a run that is stopped chooses as one that is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import LightningModule, Trainer

from genlab.callbacks.checkpoint import Checkpoints
from genlab.callbacks.evaluation import validation_losses
from genlab.checkpoint import read
from genlab.command.train import Interrupted
from genlab.model.base import Model
from genlab.run.load import load_run
from genlab.run.run_folder import read_config
from tiny_run import MLP, Callback, SignalAt, only_run, resume, same, train

# every 40 examples, and at the end: after 5, 10 and 13 steps of 8
BEST = (*MLP, "callbacks.ema=null", "+callbacks.best={_target_: genlab.callbacks.best_weights.BestWeights, every: 40}")
RISING = "model.optimizer.lr=0.3"  # of a loss that does not only fall


class Losses(Callback):
    """Measures the held-out loss after each step, and keeps the weights."""

    seen: list[tuple[int, float, dict[str, torch.Tensor]]] = []  # noqa: RUF012

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        weights = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        self.seen.append((pl_module.progress.examples, validation_losses(trainer, pl_module)["loss"], weights))


def test_the_lowest_held_out_loss_is_kept_saved_and_sampled_with(tmp_path: Path) -> None:
    Losses.seen.clear()
    run = train(*BEST, RISING, "+callbacks.record={_target_: test_best_weights.Losses}", outputs=tmp_path)
    measured = [row for row in Losses.seen if row[0] in (40, 80, 104)]
    examples, loss, weights = min(measured, key=lambda row: row[1])
    assert len(measured) == 3
    content = read.newest(run).content
    assert content["best"] == {"loss": loss, "examples": examples}
    assert same(content["ema"], weights)
    model, kind = load_run(OmegaConf.create(read_config(run)), run)
    assert kind == "best"
    assert same({name: p.detach() for name, p in model.named_parameters()}, weights)


@pytest.mark.parametrize("at", [32, 40])
def test_a_run_that_was_stopped_chooses_the_same(at: int, tmp_path: Path) -> None:
    whole = train(*BEST, RISING, outputs=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(*BEST, RISING, SignalAt.override(at), outputs=tmp_path / "stopped")
    run = only_run(tmp_path / "stopped")
    resume(run, "callbacks.signal.examples=-1")
    expected, found = read.newest(whole).content, read.newest(run).content
    assert same(found["ema"], expected["ema"])
    assert found["best"] == expected["best"]
    assert same(found["state_dict"], expected["state_dict"])


def test_a_step_that_is_saved_for_its_grid_has_been_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while the grid is drawn goes on from there, and does not measure that step again."""
    saved: list[dict[str, Any]] = []
    whole = Checkpoints.save

    def save(self: Checkpoints, trainer: Trainer, model: LightningModule) -> None:
        whole(self, trainer, model)
        saved.append(read.newest(Path(trainer.default_root_dir)).content["best"])

    monkeypatch.setattr(Checkpoints, "save", save)
    train(*BEST, "callbacks.samples.times=2", "budget.value=80", outputs=tmp_path)
    assert saved[0]["examples"] == 40
