"""Saves a run periodically, when it is asked to stop, and at its end."""

import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from genlab.callbacks.stop import stop_requested
from genlab.checkpoint import read
from genlab.checkpoint.write import expected_bytes
from genlab.data.base import DataModule
from genlab.files.atomic import check_room, prepare_folder, take_away, write_atomically
from genlab.logger.metrics_file import MetricsFile
from genlab.model.base import Model


class Checkpoints(Checkpoint):
    """Keeps the newest ``keep`` states of a run.

    States are named by the examples seen, and saved only right after an optimizer step, so that continuing from one
    is exact. Lightning's ModelCheckpoint counts optimizer steps, which differ between families.
    """

    def __init__(self, every_minutes: float = 10.0, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}.")
        self.every_minutes, self.keep = every_minutes, keep
        self._last_save = time.monotonic()
        self.saved_at = -1  # examples seen at the last save

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_save = time.monotonic()
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(datamodule, DataModule):
            _ = datamodule.fingerprint  # now, before a file can be overwritten

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if not pl_module.at_optimizer_step(batch_idx):
            return
        stopping = stop_requested(trainer)
        ending = trainer.should_stop or (trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs)
        if stopping or ending or pl_module.agreement.on(self, trainer):
            self.save(trainer, pl_module)
        if stopping:
            trainer.should_stop = True

    def proposal(self, trainer: Trainer) -> float:
        """1 if it is time to save, by this process's clock; else 0."""
        return float(time.monotonic() - self._last_save > 60 * self.every_minutes)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(datamodule, DataModule):
            checkpoint["data"] = datamodule.fingerprint
        if isinstance(datamodule, DataModule) and datamodule.tokenizer is not None:
            checkpoint["tokenizer"] = datamodule.tokenizer.fingerprint()
        metrics = next((logger for logger in trainer.loggers if isinstance(logger, MetricsFile)), None)
        if metrics is not None:
            checkpoint["metrics"] = metrics.unwritten(trainer)

    def save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        folder = Path(trainer.default_root_dir) / read.FOLDER
        path = folder / read.file_name(pl_module.progress.examples)
        if trainer.is_global_zero:
            prepare_folder(folder, folder.parent)
            check_room(folder, expected_bytes(pl_module))
        _mend_epoch_count(trainer)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            write_atomically(folder / read.NEWEST, lambda file: file.write(path.name.encode()))
            earlier = [old for old in read.saved(folder.parent) if old.name < path.name]
            for old in read.saved(folder.parent):  # one named as newer was damaged and skipped
                if old != path and old not in earlier[: self.keep - 1]:
                    take_away(old)
        self._last_save, self.saved_at = time.monotonic(), pl_module.progress.examples


@runtime_checkable
class NotesSteps(Protocol):
    """A callback that records something of each step, and must do so before the step is saved."""

    def note_step(self, trainer: Trainer, model: Model) -> None:
        """Record the step just made; a second call for the same step changes nothing."""
        ...


def save_before(trainer: Trainer, model: Model, again: bool = False) -> None:
    """Save the run, if it is saved at all, right after an optimizer step and before work that may fail or be killed.

    ``again``: also if that step is saved already, since more was logged since.
    """
    callback = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)  # type: ignore[attr-defined]
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(other, NotesSteps):  # it may run later in this step: too late if the run is killed now
            other.note_step(trainer, model)
    if callback is not None and (again or callback.saved_at != model.progress.examples):
        callback.save(trainer, model)


def _mend_epoch_count(trainer: Trainer) -> None:
    """Count the epoch that is running as started.

    Lightning does not when a run is continued from the last step of an epoch, and then loses its place when that run
    is continued once more.
    """
    epochs = trainer.fit_loop.epoch_progress
    for count in (epochs.total, epochs.current):
        count.ready = count.started = count.completed + 1  # type: ignore[attr-defined]


class NoCheckpoints(Checkpoint):
    """Keeps Lightning from adding a checkpoint callback of its own."""
