"""What a trainer costs beside the step: genlab's and plain Lightning's over a bare loop, in microseconds a step."""

import copy
import statistics
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

from benchmarks import peers
from benchmarks.beside import training_beside
from benchmarks.options import Options
from benchmarks.row import Row, Skipped, row
from benchmarks.timing import Measured
from genlab.data.digits import Digits

LIGHTNING = "Lightning: log, CSV, bar"
AGREED = "the same network and objective"


def rows(options: Options) -> Iterator[Row | Skipped]:
    """The same diffusion model, objective and optimizer on the same digits, under the same settings of torch. genlab's
    side has all that a run does by default, but for samples and evaluation: average weights, guards, budget, monitor,
    logging, checkpoints, a progress line. Lightning's logs one value, into a CSV file and a progress bar. The bare loop
    does nothing but step."""
    try:
        yield from over_a_bare_loop(options)
        yield from of_the_default(options)
    except peers.Missing as missing:
        yield Skipped("overhead", "trainer over a bare loop", str(missing))


def over_a_bare_loop(options: Options) -> Iterator[Row | Skipped]:
    """A small perceptron with eight examples a step, so that what is beside the step is seen."""
    network = ("model/network=mlp", "model.network.width=64", "model.network.depth=8")
    measured = _measured(options, network, batch=8, steps=options.size(80, 3), bare=True)
    bare = measured["bare loop"]
    over = Measured(
        {name: [spent - alone for spent, alone in zip(values, bare, strict=True)] for name, values in measured.items()}
    )
    over.by_kind = {name: kinds - measured.by_kind["bare loop"] for name, kinds in measured.by_kind.items()}
    alone = statistics.median(spent.cpu for spent in bare)
    yield row(
        "overhead",
        "trainer, a step over a bare loop",
        over,
        LIGHTNING,
        AGREED,
        unit="us",
        at_most=300,
        device=options.device,
        bare_loop_us=1e6 * alone,
    )
    yield row(
        "overhead",
        "trainer, a whole step",
        measured,
        LIGHTNING,
        AGREED,
        unit="us",
        floor=alone,
        device=options.device,
    )


def of_the_default(options: Options) -> Iterator[Row | Skipped]:
    """The default run's network, in batches of 64: what all guards together cost of its step."""
    batch = options.size(64, 4)
    measured = _measured(options, (), batch, steps=options.size(4, 2), bare=False)
    work = f"U-Net of digits, batch {batch}: a step with all guards"
    yield row("overhead", work, measured, LIGHTNING, AGREED, device=options.device)


def _measured(options: Options, network: tuple[str, ...], batch: int, steps: int, bare: bool) -> Measured:
    """Raises Missing."""
    peers.package("greenlet")  # before anything is trained
    table = Digits().load("train")
    images, labels = torch.from_numpy(table.images).float() / 127.5 - 1, torch.from_numpy(table.labels)
    choices = ("model=diffusion", "data=digits", "model/optimizer=adamw", "model.condition_dropout=0", *network)

    def sides(folder: Path, model: Any) -> dict[str, Callable[[], object]]:
        alone, plain = (Plain(model).to(options.device) for _ in range(2))
        beside = lightning(
            plain, DataLoader(TensorDataset(images, labels), batch, shuffle=True, drop_last=True), folder
        )
        return ({"bare loop": bare_loop(alone, images, labels, batch)} if bare else {}) | {LIGHTNING: beside}

    with tempfile.TemporaryDirectory() as folder:
        return training_beside(
            (*choices, f"data.batch_size={batch}"),
            partial(sides, Path(folder)),
            options.rounds,
            steps,
            options.device,
            apart=False,
        )


class Plain(pl.LightningModule):
    """The same training as a user of Lightning would write it."""

    def __init__(self, model: Any):
        super().__init__()
        self.network, self.objective = copy.deepcopy(model.network), model.objective
        self.make_optimizer = model.make_optimizer

    def loss(self, x: Tensor, label: Tensor) -> Tensor:
        return self.objective.loss(self.network, x, {"label": label}, 0.0)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(*batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return self.make_optimizer(self.parameters())


def bare_loop(plain: Plain, images: Tensor, labels: Tensor, batch: int) -> Callable[[], None]:
    optimizer: Any = plain.configure_optimizers()
    images, labels = images.to(plain.device), labels.to(plain.device)
    made, every = 0, len(images) // batch

    def step() -> None:
        nonlocal made
        rows = slice(made % every * batch, (made % every + 1) * batch)
        loss = plain.loss(images[rows], labels[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        made += 1

    return step


def lightning(plain: Plain, data: DataLoader, folder: Path) -> Callable[[], None]:
    """Steps of a fit that goes on whenever it is asked for one more. Raises Missing."""
    greenlet = peers.package("greenlet")
    here = greenlet.getcurrent()

    class GiveTurn(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            here.switch()

    def fit() -> None:
        trainer = pl.Trainer(
            accelerator="gpu" if plain.device.type == "cuda" else "cpu",
            max_epochs=-1,
            enable_model_summary=False,
            callbacks=[GiveTurn(), ModelCheckpoint(folder / "plain"), TQDMProgressBar()],
            logger=CSVLogger(folder / "plain"),
        )
        trainer.fit(plain, data)

    beside = greenlet.greenlet(fit)

    def step() -> None:
        nonlocal here
        here = greenlet.getcurrent()
        beside.switch()

    return step
