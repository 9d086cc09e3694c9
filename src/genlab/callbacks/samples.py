"""Sample grids: the same noise all along a run, so that one can watch it turn into pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.milestones import Milestones
from genlab.data.base import to_uint8
from genlab.loggers import IsolatedLogger
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.seeding import RandomStream

FOLDER = "samples"


class SampleGrid(Callback):
    """Writes ``samples/examples=N.png`` into the run folder, and to the loggers that show pictures.

    With labels, column c shows class c (modulo the classes).
    """

    def __init__(self, times: int = 10, rows: int = 8, columns: int = 10, seed: int = 0):
        self.milestones = Milestones(times)
        self.rows, self.columns, self.seed = rows, columns, seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, GenerativeModel)
        self.milestones.start(pl_module.progress.fraction)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, GenerativeModel)
        if self.milestones.reached(pl_module.progress.fraction):
            self.show(trainer, pl_module)

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        with averaged_weights(trainer, model):
            images = sample_images(model, range(self.rows * self.columns), self.seed)
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / FOLDER / f"examples={model.progress.examples:012d}.png"
            save_grid(images, self.columns, path)
            for logger in trainer.loggers:
                if isinstance(logger, IsolatedLogger):
                    logger.show_image("samples", path, trainer.fit_loop.epoch_loop._batches_that_stepped)


def sample_images(model: GenerativeModel, indices: range, seed: int, label: int | None = None) -> Tensor:
    """The samples ``indices`` of a seed, (N, C, H, W) uint8, on the CPU; each of class ``label``, or i mod classes."""
    condition = None
    if model.num_classes is not None:
        wanted = [index % model.num_classes if label is None else label for index in indices]
        condition = {"label": torch.tensor(wanted, device=model.device)}
    with in_eval_mode(model):
        images = model.sample(len(indices), condition, RandomStream.for_samples(seed, indices, model.device))
    return to_uint8(images).cpu()


def save_grid(images: Tensor, columns: int, path: Path, smallest: int = 48) -> None:
    """Images (N, C, H, W) uint8 as one PNG, row by row. Small ones are enlarged, pixel by pixel, to ``smallest``."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    tiles = np.full((rows * columns, channels, height + 1, width + 1), 255, dtype=np.uint8)  # a line between tiles
    tiles[:count, :, :-1, :-1] = images.numpy()
    grid = tiles.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    picture = Image.fromarray(grid[..., 0] if channels == 1 else grid)
    scale = -(-smallest // width)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)
