"""What a trainer costs beside the step: genlab's and plain Lightning's over a bare loop, in microseconds a step."""

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import peers, product
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Spent
from genlab.data.digits import Digits

BATCH = 8


def rows(options: Options) -> Iterator[Row | Skipped]:
    """The same diffusion model, objective and optimizer on the same digits. genlab's side has all that a run does by
    default, but for samples and evaluation: average weights, guards, budget, monitor, logging, checkpoints, a progress
    line. Lightning's logs one value, into a CSV file and a progress bar. The bare loop does nothing but step."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            make = partial(_peers, Path(folder), options)
            measured = product.training_in_turns(
                (
                    "model=diffusion", "data=digits", f"data.batch_size={BATCH}", "model/optimizer=adamw",
                    "model/network=mlp", "model.network.width=64", "model.network.depth=8",
                    "model.condition_dropout=0",
                ),
                make, options.rounds, options.size(80, 3), options.device,
            )  # fmt: skip
        except peers.Missing as missing:
            yield Skipped("overhead", "trainer over a bare loop", str(missing))
            return
    bare = measured["bare loop"]
    over = {name: [spent - alone for spent, alone in zip(values, bare, strict=True)] for name, values in measured.items()}
    yield row(
        "overhead", "trainer, a step over a bare loop", over, "Lightning: log, CSV, bar", "the same network and objective",
        unit="us", at_most=300, device=options.device, bare_loop_us=1e6 * _middle(bare).cpu,
    )  # fmt: skip
    yield row(
        "overhead", "trainer, a whole step", measured, "Lightning: log, CSV, bar", "the same network and objective",
        unit="us", floor=_middle(bare).cpu, device=options.device,
    )  # fmt: skip


def _middle(spent: Sequence[Spent]) -> Spent:
    return sorted(spent, key=lambda one: one.cpu)[len(spent) // 2]


def _peers(folder: Path, options: Options, model: Any) -> dict[str, Callable[[], object]]:
    table = Digits().load("train")
    images, labels = torch.from_numpy(table.images).float() / 127.5 - 1, torch.from_numpy(table.labels)
    plain = Plain(model, BATCH)
    return {
        "bare loop": product.untouched(bare_loop(Plain(model, BATCH).to(options.device), images, labels)),
        "Lightning: log, CSV, bar": product.untouched(
            lightning(plain, TensorDataset(images, labels), folder, options.device)
        ),
    }


class Plain(pl.LightningModule):
    """The same training as a user of Lightning would write it."""

    def __init__(self, model: Any, batch: int):
        super().__init__()
        self.network, self.objective = copy.deepcopy(model.network), model.objective
        self.make_optimizer, self.batch = model.make_optimizer, batch

    def loss(self, x: Tensor, label: Tensor) -> Tensor:
        return self.objective.loss(self.network, x, {"label": label}, 0.0)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(*batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


def bare_loop(plain: Plain, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer: Any = plain.configure_optimizers()
    images, labels = images.to(plain.device), labels.to(plain.device)
    made = 0

    def step() -> None:
        nonlocal made
        rows = slice(made % 100 * BATCH, (made % 100 + 1) * BATCH)
        loss = plain.loss(images[rows], labels[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        made += 1

    return step


def lightning(plain: Plain, data: TensorDataset, folder: Path, device: str) -> Callable[[], None]:
    """Steps of a fit that goes on whenever it is asked for one more. Raises Missing."""
    greenlet = peers.package("greenlet")
    here = greenlet.getcurrent()

    class GiveTurn(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            here.switch()

    def fit() -> None:
        trainer = pl.Trainer(
            accelerator="cpu" if device == "cpu" else "gpu", max_epochs=-1, enable_model_summary=False,
            callbacks=[GiveTurn(), ModelCheckpoint(folder / "plain"), TQDMProgressBar()],
            logger=CSVLogger(folder / "plain"),
        )  # fmt: skip
        trainer.fit(plain, DataLoader(data, BATCH, shuffle=True, drop_last=True))

    beside = greenlet.greenlet(fit)

    def step() -> None:
        nonlocal here
        here = greenlet.getcurrent()
        beside.switch()

    return step
