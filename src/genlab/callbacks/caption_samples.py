"""Captions during training: of the same held-out pictures, always from the same random numbers."""

import torch
from pytorch_lightning import Trainer

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.periodic_samples import PeriodicSamples, samples_folder, shown_by
from genlab.data.image import to_float
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.sampling.captions import Captions, save_captioned
from genlab.sampling.draw import draws
from genlab.sampling.pictures import captions_of, write_captions


class CaptionSamples(PeriodicSamples):
    """Writes ``samples/examples=N.png`` into the run folder, the first held-out pictures with the captions that the
    model gives them, and to the loggers that show pictures; the captions alone are in ``captions-examples=N.txt``."""

    def __init__(self, times: int = 4, count: int = 6, columns: int = 3, seed: int = 0):
        """Raises ValueError if a number of pictures is below 1, unless ``times`` is 0."""
        if times and min(count, columns) < 1:
            raise ValueError(
                f"count={count} and columns={columns} must be at least 1. For no captions: callbacks.samples.times=0."
            )
        super().__init__(times)
        self.count, self.columns, self.seed = count, columns, seed

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        images = torch.from_numpy(trainer.datamodule.table("val").images[: self.count])  # type: ignore[attr-defined]
        with averaged_weights(trainer, model), in_eval_mode(model):
            (words,) = draws(model, range(len(images)), {model.key: to_float(images)}, self.seed, len(images))
        if not trainer.is_global_zero:
            return
        captions = Captions(model.shape).text_of(model, words)  # type: ignore[arg-type]
        path = samples_folder(trainer) / f"examples={model.progress.examples:012d}.png"
        save_captioned(images, captions, self.columns, path)
        write_captions(captions, captions_of(path))
        said = (
            f"after {model.progress.examples:,} examples: held-out pictures and their captions: {' | '.join(captions)}"
        )
        for logger, step in shown_by(trainer):
            logger.show_image("samples", path, said, model.progress.examples, step)
