"""Batches that make up an optimizer step train as one batch of all their examples does, wherever an epoch ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from genlab.checkpoint import read
from genlab.command import train as train_command
from genlab.command.train import Interrupted
from genlab.model.accumulation import Accumulation
from tiny_run import MLP, SignalAt, only_run, resume, same, train

# Gradient descent at rate 1 on a loss without noise or dropout: a step is the mean gradient itself.
DESCENT = (*MLP, "model.objective._target_=toy_objective.NoNoise", "~model.objective.p_mean", "~model.objective.p_std",
           "~model.objective.sigma_data", "model.condition_dropout=0", "model.optimizer._target_=torch.optim.SGD",
           "model.optimizer.lr=1.0", "~model.optimizer.betas", "~model.optimizer.fused",
           "model/schedule=constant")  # fmt: skip


class Gradients(Callback):
    """Of each batch alone on the weights that it met, and the move of the weights after it."""

    def __init__(self) -> None:
        self.alone: list[Tensor] = []
        self.moved: list[Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = flat(pl_module.parameters())
        with torch.enable_grad(), torch.random.fork_rng():
            loss = pl_module.losses(batch)["loss"]  # type: ignore[operator]
        self.alone.append(flat(torch.autograd.grad(loss, list(pl_module.parameters()), allow_unused=True)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        self.moved.append(self.before - flat(pl_module.parameters()))


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors if t is not None])


def gradients_of(monkeypatch: pytest.MonkeyPatch, *overrides: str, outputs: Path) -> tuple[Gradients, Path]:
    seen, build = Gradients(), train_command.build_trainer
    monkeypatch.setattr(
        train_command, "build_trainer", lambda c, m, callbacks, *rest: build(c, m, [*callbacks, seen], *rest)
    )
    return seen, train(*DESCENT, *overrides, outputs=outputs)


@pytest.mark.parametrize(
    ("every", "limits", "steps"),
    [
        (3, ("budget.value=104",), [3, 6, 9, 12, 13]),  # 13 batches, 5 an epoch
        (50, ("budget.value=48",), [6]),  # more than an epoch, and than the run
        (4, ("budget.value=10000", "trainer.max_epochs=2"), [4, 8, 10]),
        (4, ("budget=flops", "budget.value=1"), [2]),  # of a first batch the operations are not known before
    ],
    ids=["across epochs", "more than the run", "to the last epoch", "operations"],
)
def test_a_step_is_the_mean_gradient_of_its_batches(
    every: int, limits: tuple[str, ...], steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, run = gradients_of(monkeypatch, f"trainer.accumulate_grad_batches={every}", *limits, outputs=tmp_path)
    assert [number for number, move in enumerate(seen.moved, start=1) if move.any()] == steps
    for before, step in zip([0, *steps], steps, strict=False):
        expected = torch.stack(seen.alone[before:step]).mean(dim=0)
        torch.testing.assert_close(seen.moved[step - 1], expected, rtol=1e-4, atol=1e-6)
    last = read.newest(run)
    assert last.progress.examples == 8 * steps[-1]
    assert last.content["global_step"] == len(steps)
    assert json.loads((run / "summary.json").read_text())["examples"] == 8 * steps[-1]


@pytest.mark.parametrize("model", ["diffusion", pytest.param("gan", marks=pytest.mark.matrix)])
def test_a_run_stopped_within_a_step_goes_on_as_if_it_had_not_been(model: str, tmp_path: Path) -> None:
    """Three batches a step, the second step across the end of an epoch of five: asked to stop at the fourth, the fifth
    and the sixth batch, a run stops after the sixth."""
    of_gan = ("model=gan", "model.generator.channels=8", "model.discriminator.channels=8", "model.latent_dim=8")
    given = (*(MLP if model == "diffusion" else of_gan), "trainer.accumulate_grad_batches=3", "budget.value=96")
    straight = read.newest(train(*given, outputs=tmp_path / "straight"))
    for examples in (24, 32):
        outputs = tmp_path / str(examples)
        with pytest.raises(Interrupted, match="saved"):
            train(*given, SignalAt.override(examples), outputs=outputs)
        assert read.newest(only_run(outputs)).progress.examples == 48
        resume(only_run(outputs))
        last = read.newest(only_run(outputs))
        for part in ("state_dict", "ema", "optimizer_states", "global_step"):
            assert same(last.content[part], straight.content[part]), part
        assert last.progress.examples == straight.progress.examples == 96


def test_what_a_window_is() -> None:
    windows = Accumulation(every=3)
    told = []
    for number in range(1, 9):
        windows.begin_batch()
        if number == 8:
            windows.end_run()
        told.append((windows.size, windows.steps))
    assert told == [(1, False), (2, False), (3, True)] * 2 + [(1, False), (2, True)]
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([2.0, 4.0]) / 3  # of two batches, each a third
    windows.rescale([weight])
    torch.testing.assert_close(weight.grad, torch.tensor([1.0, 2.0]))
