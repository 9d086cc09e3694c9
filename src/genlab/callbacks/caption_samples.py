"""Captions during training: of the same held-out pictures, always from the same random numbers."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.callbacks.cadence import Cadence
from genlab.callbacks.checkpoint import save_before
from genlab.callbacks.ema import averaged_weights
from genlab.data.image import to_float
from genlab.files.atomic import prepare_folder
from genlab.logger.isolated import IsolatedLogger
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.sampling.captions import Captions, save_captioned
from genlab.sampling.draw import draws
from genlab.sampling.pictures import FOLDER, captions_of, write_captions


class CaptionSamples(Callback):
    """Writes ``samples/examples=N.png`` into the run folder, the first held-out pictures with the captions that the
    model gives them, and to the loggers that show pictures; the captions alone are in ``captions-examples=N.txt``."""

    def __init__(self, times: int = 4, count: int = 6, columns: int = 3, seed: int = 0):
        """Raises ValueError if a number of pictures is below 1, unless ``times`` is 0."""
        if times and min(count, columns) < 1:
            raise ValueError(
                f"count={count} and columns={columns} must be at least 1. For no captions: callbacks.samples.times=0."
            )
        self.milestones = Cadence(times)
        self.count, self.columns, self.seed = count, columns, seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, GenerativeModel)
        self.milestones.start(pl_module.progress.fraction)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, GenerativeModel)
        if pl_module.at_optimizer_step(batch_idx) and self.milestones.reached(pl_module.progress.fraction):
            save_before(trainer, pl_module)
            self.show(trainer, pl_module)

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        images = torch.from_numpy(trainer.datamodule.table("val").images[: self.count])  # type: ignore[attr-defined]
        with averaged_weights(trainer, model), in_eval_mode(model):
            (words,) = draws(model, range(len(images)), {model.key: to_float(images)}, self.seed, len(images))
        if not trainer.is_global_zero:
            return
        captions = Captions(model.shape).text_of(model, words)  # type: ignore[arg-type]
        folder = Path(trainer.default_root_dir) / FOLDER
        prepare_folder(folder, folder.parent)
        path = folder / f"examples={model.progress.examples:012d}.png"
        save_captioned(images, captions, self.columns, path)
        write_captions(captions, captions_of(path))
        said = (
            f"after {model.progress.examples:,} examples: held-out pictures and their captions: {' | '.join(captions)}"
        )
        for logger in trainer.loggers:
            if isinstance(logger, IsolatedLogger):
                step = trainer.fit_loop.epoch_loop._batches_that_stepped
                logger.show_image("samples", path, said, model.progress.examples, step)
