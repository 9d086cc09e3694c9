"""Held-out images with hidden patches during training, and what the model fills in."""

import torch
from pytorch_lightning import Trainer

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.periodic_samples import PeriodicSamples, samples_folder, shown_by
from genlab.data.image import to_float, to_pixels
from genlab.model.base import FillsInImages, Model, in_eval_mode
from genlab.sampling.pictures import save_grid


class Reconstructions(PeriodicSamples):
    """Writes ``samples/examples=N.png`` into the run folder, and to the loggers that show pictures: the first held-out
    images, and beside each the image with hidden patches gray, and with what the model fills in there."""

    def __init__(self, times: int = 4, count: int = 16, columns: int = 4):
        """``columns``: images in a row of the grid, with the other two beside each. Raises ValueError if a number of
        pictures is below 1, unless ``times`` is 0."""
        if times and min(count, columns) < 1:
            raise ValueError(
                f"count={count} and columns={columns} must be at least 1. For no reconstructions: "
                "callbacks.samples.times=0."
            )
        super().__init__(times)
        self.count, self.columns = count, columns

    def show(self, trainer: Trainer, model: Model) -> None:
        assert isinstance(model, FillsInImages)
        images = to_float(torch.from_numpy(trainer.datamodule.table("val").images[: self.count]))  # type: ignore[attr-defined]
        images = images.to(model.device)
        with averaged_weights(trainer, model), in_eval_mode(model), torch.no_grad():
            masked, filled = model.fill_in(images, torch.arange(len(images), device=model.device))
        if not trainer.is_global_zero:
            return
        path = samples_folder(trainer) / f"examples={model.progress.examples:012d}.png"
        shown = torch.stack([images, masked, filled], dim=1).flatten(0, 1)
        bits = trainer.datamodule.spec.bits  # type: ignore[attr-defined]
        save_grid(to_pixels(shown, bits).cpu(), 3 * self.columns, path)
        said = (
            f"after {model.progress.examples:,} examples: held-out images, and beside each the image with hidden "
            "patches gray, and with what is predicted there"
        )
        for logger, step in shown_by(trainer):
            logger.show_image("samples", path, said, model.progress.examples, step)
