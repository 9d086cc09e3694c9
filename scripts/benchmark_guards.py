"""Overhead of a run's guards: training steps of genlab compared with the same steps in plain Lightning.

    python scripts/benchmark_guards.py                       # the default U-Net on digits, one thread, 30 pairs
    python scripts/benchmark_guards.py --pairs 10

Both train the same network on the same objective, optimizer, batch size and data. genlab's side is its train command
with all that keeps a run safe, and the counts of examples, FLOPs and seconds; without what plain Lightning does not do
either (average weights, samples, evaluation). The two sides of a pair, built afresh for each, make their steps in turn,
so that whatever else the machine does meets both alike. The ratio is that of the mean time of a step, logging included;
its interval is that of the median pair, by order statistics. Time of the CPU stands beside time.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import genlab  # noqa: F401  before torchvision, which it mends beside a CPU build of torch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
import torch
from greenlet import getcurrent, greenlet
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from scipy.stats import binom
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from genlab import cli
from genlab.command import train
from genlab.command.train import quiet
from genlab.data.digits import Digits
from genlab.machine.matmul import quick_matmul
from genlab.model.condition import told_to
from genlab.run import run_folder
from genlab.run.load import load_run

WARM_UP = 5  # steps before the clock starts
LOG_EVERY = 10  # five times as often as by default, so that a short training has its share of it
CHOICES = ("model=diffusion", "data=digits", "logger=[none]", "callbacks=[no_samples]", "metrics=[]", "~callbacks.ema",
           "~callbacks.evaluation", "trainer=cpu", f"trainer.log_every_n_steps={LOG_EVERY}")  # fmt: skip


class Stopwatch(pl.Callback):
    """Seconds and CPU seconds of a step, once the first ones are over. Before each it is another training's turn."""

    def __init__(self, steps: int, other: greenlet | None = None):
        self.steps, self.other = steps, other
        self.begun = 0  # steps
        self.seconds = self.cpu_seconds = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        if WARM_UP < self.begun <= WARM_UP + self.steps:
            self.seconds += (time.perf_counter() - self._began) / self.steps
            self.cpu_seconds += (time.process_time() - self._cpu_began) / self.steps
        self.begun += 1
        if self.other is not None:
            self.other.switch()
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = self.begun > WARM_UP + self.steps  # one more, whose start is the end of the last


class Plain(pl.LightningModule):
    """The same training as a user of Lightning would write it."""

    def __init__(self, model: Any, objective: Any):
        super().__init__()
        self.network = model.make_network(**told_to(model.make_network, model.conditions.kinds))
        self.objective, self.make_optimizer = objective, model.make_optimizer

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        x, label = batch
        label = label.masked_fill(torch.rand(len(label)) < 0.1, -1)
        loss = self.objective.loss(self.network, x, {"label": label}, 0.0)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20, help="of each of a pair")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, quiet():
        sides = prepared(Path(folder), options.batch_size)
        taken: dict[str, list[Stopwatch]] = {name: [] for name in sides}
        for pair in range(options.pairs):
            for name, watch in in_turn(sides, options.steps).items():
                taken[name].append(watch)
            print(f"\rpair {pair + 1} of {options.pairs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for what in ("seconds", "cpu_seconds"):
        ours, plain = ([getattr(watch, what) for watch in taken[name]] for name in ("genlab", "plain"))
        ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
        low, high = interval_of_median(ratios)
        print(f"{what.replace('_', ' ')} of a step: genlab {1000 * statistics.median(ours):.2f} ms, plain Lightning "
              f"{1000 * statistics.median(plain):.2f} ms; ratio {statistics.median(ratios):.4f}, 95 % interval "
              f"{low:.4f} to {high:.4f}, {len(ratios)} pairs")  # fmt: skip


def in_turn(sides: Mapping[str, Callable[[Stopwatch], None]], steps: int) -> dict[str, Stopwatch]:
    """A pair: on one thread, a step of genlab's, a step of plain Lightning's, and so on."""
    watches = {name: Stopwatch(steps) for name in sides}
    beside = greenlet(lambda: sides["plain"](watches["plain"]))
    watches["genlab"].other, watches["plain"].other = beside, getcurrent()
    sides["genlab"](watches["genlab"])
    watches["plain"].other = None
    while not beside.dead:
        beside.switch()
    assert all(watch.begun == WARM_UP + steps + 1 for watch in watches.values())
    return watches


def prepared(folder: Path, batch_size: int) -> dict[str, Callable[[Stopwatch], None]]:
    """Functions that each train from the start, with a watch that ends them."""
    command = ["train", *CHOICES, f"data.batch_size={batch_size}", f"outputs={folder / 'runs'}"]
    watching: list[pl.Callback] = []
    build_callbacks = train.build_callbacks
    train.build_callbacks = lambda *given: [*watching, *build_callbacks(*given)]

    def guarded(watch: Stopwatch) -> None:
        watching[:] = [watch]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.run(command)

    guarded(Stopwatch(steps=1))  # once, for its folder: the plain side is made from what it trained
    run = next((folder / "runs").glob("*/*"))
    model: Any = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]
    data = digits()

    def plain(watch: Stopwatch) -> None:
        loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=-1, enable_progress_bar=False,
            callbacks=[watch, ModelCheckpoint(folder / "plain")], logger=CSVLogger(folder / "plain"),
            enable_model_summary=False, log_every_n_steps=LOG_EVERY,
        )  # fmt: skip
        with quick_matmul(True):
            trainer.fit(Plain(model, model.objective), loader)

    return {"genlab": guarded, "plain": plain}


def digits() -> TensorDataset:
    """All training digits as tensors in memory: the quickest that a plain loader can have them."""
    table = Digits().load("train")
    return TensorDataset(torch.from_numpy(table.images).float() / 127.5 - 1, torch.from_numpy(table.labels))


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """95 %: between two of the sorted values, whatever they are distributed like."""
    rank = int(binom.ppf(0.025, len(values), 0.5))
    return values[max(0, rank - 1)], values[min(len(values) - 1, len(values) - rank)]


if __name__ == "__main__":
    main()
