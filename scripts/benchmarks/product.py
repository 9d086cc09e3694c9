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

from benchmarks.time_by_kind import Recorder, steps_for, time_by_kind
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
    """Times a training's steps, and makes a step of each peer before each of them; then, on a CPU, makes a few more to
    see where their time goes. Ends the training."""

    def __init__(
        self,
        peers: Callable[[pl.LightningModule], Mapping[str, Callable[[], Any]]],
        rounds: int,
        steps: int,
        device: str,
        peers_are_here: bool = False,
        warm_up: int = 5,
    ):
        """``peers``: from the model that is trained to what peers do in a step; ``peers_are_here``, in this process: it
        is seen where their time goes too."""
        self.make_peers, self.rounds, self.steps, self.device, self.warm_up = peers, rounds, steps, device, warm_up
        self.peers_are_here = peers_are_here
        self.begun = 0
        self.measured = Measured()
        self.recorder = Recorder()
        self.looked_at = 0  # steps; once the recorder runs

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
        elif self.device == "cpu":
            self._look(counted - self.rounds * self.steps)
        self.begun += 1
        self.began = clock(self.device)

    def _look(self, steps: int) -> None:
        """After ``steps`` that are not timed any more."""
        if steps == 0:
            self.looked_at = steps_for(self.measured["genlab"][-1].wall)
            self.recorder.start()
        elif steps == self.looked_at:
            self.measured.by_kind["genlab"] = self.recorder.stop(steps)
            if self.peers_are_here:
                self.measured.by_kind |= {name: time_by_kind(run) for name, run in self.peers.items()}

    @property
    def is_over(self) -> bool:
        return self.begun > self.warm_up + self.rounds * self.steps + self.looked_at

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = self.is_over


def training_in_turns(
    overrides: tuple[str, ...],
    peers: Callable[[Any], Mapping[str, Callable[[], Any]]],
    rounds: int,
    steps: int,
    device: str = "cpu",
    peers_are_here: bool = False,
) -> Measured:
    """A training by genlab's command, with a step of each peer between its steps. -> seconds a step."""
    watch = InTurn(peers, rounds, steps, device, peers_are_here)
    build_callbacks = train.build_callbacks
    train.build_callbacks = lambda *given: [watch, *build_callbacks(*given)]
    trainer = "trainer=cpu" if device == "cpu" else "trainer=gpu"
    try:
        with tempfile.TemporaryDirectory() as folder, silence():
            cli.run(["train", *TRAINS, trainer, f"outputs={Path(folder) / 'runs'}", *overrides])
    finally:
        train.build_callbacks = build_callbacks
    assert watch.is_over, "the training ended before the benchmark did"
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
