"""What a run's guards cost: training steps of genlab beside the same steps in plain Lightning.

    python scripts/benchmark_guards.py                       # the default U-Net on digits, one thread, 30 pairs
    python scripts/benchmark_guards.py --pairs 10 --steps 20

Both train the same network on the same objective, optimiser, batch size and data. genlab's side is its train command
with all that keeps a run safe, and the counts of examples, FLOPs and seconds; without what plain Lightning does not do
either (average weights, samples, evaluation). Pairs are interleaved, and take turns in going first. The ratio is that
of the time of a step; its interval is that of the median, by order statistics. Time of the CPU stands beside time, for
a machine that is busy with other things too.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import genlab  # noqa: F401  before torchvision, which it mends beside a CPU build of torch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from scipy.stats import binom
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from genlab import cli, experiment, run_folder
from genlab.data.digits import Digits
from genlab.experiment import quiet
from genlab.inference import load_run
from genlab.matmul import quick_matmul

WARM_UP = 5  # steps before the clock starts
CHOICES = ("model=diffusion", "data=digits", "logger=[none]", "callbacks=[no_samples]", "metrics=[]",
           "~callbacks.ema", "~callbacks.evaluation", "trainer=cpu")  # fmt: skip


class Stopwatch(pl.Callback):
    """Seconds and CPU seconds of a step, once the first ones are over."""

    def __init__(self, steps: int):
        self.steps, self.made = steps, 0
        self.seconds = self.cpu_seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.made += 1
        clocks = time.perf_counter(), time.process_time()
        if self.made == WARM_UP:
            self._start = clocks
        elif self.made == WARM_UP + self.steps:
            self.seconds, self.cpu_seconds = (
                (now - then) / self.steps for now, then in zip(clocks, self._start, strict=True)
            )
            trainer.should_stop = True


class Plain(pl.LightningModule):
    """The same training as a user of Lightning would write it."""

    def __init__(self, model: Any, objective: Any):
        super().__init__()
        self.network = model.make_network()
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
    parser.add_argument("--steps", type=int, default=40, help="of each of a pair")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, quiet():
        sides = prepared(Path(folder), options.steps, options.batch_size)
        taken: dict[str, list[Stopwatch]] = {name: [] for name in sides}
        for pair in range(options.pairs):
            for name in sorted(sides, reverse=bool(pair % 2)):
                taken[name].append(sides[name]())
            print(f"\rpair {pair + 1} of {options.pairs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for what in ("seconds", "cpu_seconds"):
        ours, plain = ([getattr(watch, what) for watch in taken[name]] for name in ("genlab", "plain"))
        ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
        low, high = interval_of_median(ratios)
        print(f"{what.replace('_', ' ')} of a step: genlab {1000 * statistics.median(ours):.2f} ms, plain Lightning "
              f"{1000 * statistics.median(plain):.2f} ms; ratio {statistics.median(ratios):.4f}, 95 % interval "
              f"{low:.4f} to {high:.4f}, {len(ratios)} pairs")  # fmt: skip


def prepared(folder: Path, steps: int, batch_size: int) -> dict[str, Callable[[], Stopwatch]]:
    """Functions that each train from the start and say how long a step took."""
    command = ["train", *CHOICES, f"data.batch_size={batch_size}", f"outputs={folder / 'runs'}"]
    watch = Stopwatch(steps)
    build_callbacks = experiment.build_callbacks
    experiment.build_callbacks = lambda *given: [watch, *build_callbacks(*given)]

    def guarded() -> Stopwatch:
        nonlocal watch
        watch = Stopwatch(steps)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.run(command)
        return watch

    guarded()  # once, for its folder: the plain side is made from what it trained
    run = next((folder / "runs").glob("*/*"))
    model: Any = load_run(OmegaConf.create(run_folder.read_config(run)), run)[0]
    data = digits()

    def plain() -> Stopwatch:
        own = Stopwatch(steps)
        loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=-1, enable_progress_bar=False,
            callbacks=[own, ModelCheckpoint(folder / "plain")], logger=CSVLogger(folder / "plain"),
            enable_model_summary=False, log_every_n_steps=50,
        )  # fmt: skip
        with quick_matmul(True):
            trainer.fit(Plain(model, model.objective), loader)
        return own

    plain()
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
