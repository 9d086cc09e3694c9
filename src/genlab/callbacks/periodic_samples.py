"""What callbacks share that show samples at points of a run: when, where, and to which loggers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.callbacks.cadence import Cadence
from genlab.callbacks.checkpoint import save_before
from genlab.files.atomic import prepare_folder
from genlab.logger.isolated import IsolatedLogger
from genlab.model.base import Model
from genlab.sampling.pictures import FOLDER


class PeriodicSamples(Callback):
    """Calls ``show`` at ``times`` points spread evenly over the budget, the last one its end."""

    def __init__(self, times: int):
        """Raises ValueError if it is below 0."""
        self.milestones = Cadence(times)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self.milestones.start(pl_module.progress.fraction)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if pl_module.at_optimizer_step(batch_idx) and self.milestones.reached(pl_module.progress.fraction):
            save_before(trainer, pl_module)
            self.show(trainer, pl_module)

    def show(self, trainer: Trainer, model: Any) -> None:
        """Draw samples, on every rank, and show them from the first one."""
        raise NotImplementedError


def samples_folder(trainer: Trainer) -> Path:
    """``samples/`` of the run, which is there."""
    folder = Path(trainer.default_root_dir) / FOLDER
    prepare_folder(folder, folder.parent)
    return folder


def shown_by(trainer: Trainer) -> Iterator[tuple[IsolatedLogger, int]]:
    """The loggers that show samples, and the step at which."""
    for logger in trainer.loggers:
        if isinstance(logger, IsolatedLogger):
            yield logger, trainer.fit_loop.epoch_loop._batches_that_stepped
