"""genlab as a user has it: built by its config, trained by its command, under the settings of its commands."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks.timing import Measured, Spent, clock, once
from genlab import cli
from genlab.command import train
from genlab.command.train import quiet
from genlab.config.tree import ConfigTree, resolved
from genlab.machine.quick_cpu import quick_cpu
from genlab.run.assemble import build_data, build_model

# Training alone: what evaluates and draws is measured by rows of its own.
TRAINS = ("logger=[none]", "metrics=[]", "callbacks.samples=null", "callbacks.evaluation=null", "budget.value=1e12")


@contextmanager
def settings(device: str) -> Iterator[None]:
    """Those that genlab's commands set for the whole process."""
    with quick_cpu(device == "cpu"):
        yield


class InTurn(pl.Callback):
    """Times a training's steps, and makes a step of each peer before each of them. Ends the training."""

    def __init__(
        self,
        peers: Callable[[pl.LightningModule], Mapping[str, Callable[[], Any]]],
        rounds: int,
        steps: int,
        device: str,
        warm_up: int = 5,
    ):
        """``peers``: from the model that is trained to what peers do in a step."""
        self.make_peers, self.rounds, self.steps, self.device, self.warm_up = peers, rounds, steps, device, warm_up
        self.begun = 0
        self.measured: Measured = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.peers = self.make_peers(pl_module)
        for name in ("genlab", *self.peers):
            self.measured[name] = [Spent(0.0, 0.0)] * self.rounds

    def on_train_batch_start(self, *_: Any) -> None:
        now = clock(self.device)
        counted = self.begun - self.warm_up  # steps whose end this is
        if 0 < counted <= self.rounds * self.steps:
            self.measured["genlab"][(counted - 1) // self.steps] += (now - self.began) / self.steps
        if counted < self.rounds * self.steps:
            for name, run in self.peers.items():
                spent = once(run, self.device)
                if counted >= 0:
                    self.measured[name][counted // self.steps] += spent / self.steps
        self.begun += 1
        self.began = clock(self.device)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = self.begun > self.warm_up + self.rounds * self.steps


def training_in_turns(
    overrides: tuple[str, ...],
    peers: Callable[[Any], Mapping[str, Callable[[], Any]]],
    rounds: int,
    steps: int,
    device: str = "cpu",
) -> Measured:
    """A training by genlab's command, with a step of each peer between its steps. -> seconds a step."""
    watch = InTurn(peers, rounds, steps, device)
    build_callbacks = train.build_callbacks
    train.build_callbacks = lambda *given: [watch, *build_callbacks(*given)]
    trainer = "trainer=cpu" if device == "cpu" else "trainer=gpu"
    try:
        with tempfile.TemporaryDirectory() as folder, silence():
            cli.run(["train", *TRAINS, trainer, f"outputs={Path(folder) / 'runs'}", *overrides])
    finally:
        train.build_callbacks = build_callbacks
    assert watch.begun > watch.warm_up + rounds * steps, "the training ended before the benchmark did"
    return watch.measured


@contextmanager
def silence() -> Iterator[None]:
    """Nothing on the terminal: a progress line is written, into nowhere."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), quiet():
        yield


def built(*overrides: str) -> Any:
    """A model as a config describes it, untrained, its networks made."""
    config = ConfigTree().compose(list(overrides))
    build_data(config)
    config.run_dir, config.run_id = "", ""
    model = build_model(resolved(config))
    torch.manual_seed(0)
    model.configure_model()
    return model
