"""Sample grids during training, always from the same noise."""

from pytorch_lightning import Trainer
from torch import Tensor

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.periodic_samples import PeriodicSamples, samples_folder, shown_by
from genlab.machine.memory import enough_memory
from genlab.model.base import GenerativeModel, Grows, HasLatent
from genlab.sampling.draw import asked_of, sample_images
from genlab.sampling.hints import held_out_hints, shown_hints
from genlab.sampling.latents import interpolations, reconstructions
from genlab.sampling.pictures import captions_of, save_grid, write_captions


class SampleGrid(PeriodicSamples):
    """Writes ``samples/examples=N.png`` into the run folder, and to the loggers that show pictures.

    With labels, column c shows class c (modulo the classes, those without a training image left out); with captions,
    held-out captions are used in turn and listed in ``captions-examples=N.txt``. Of a model with latents
    there are two more grids, of held-out images: ``reconstructions-examples=N.png``, rows of images and below each its
    reconstruction; and ``interpolations-examples=N.png``, rows of latents from one image's to another's. A controlled
    model is given held-out hints, which are in ``hints-examples=N.png``.
    """

    def __init__(self, times: int = 10, rows: int = 8, columns: int = 10, seed: int = 0, count: int | None = None):
        """``count``: samples, in as many rows as that takes. Raises ValueError if a number of them is below 1, unless
        ``times`` is 0."""
        if times and min(rows, columns, count or (1 if count is None else 0)) < 1:
            raise ValueError(
                f"rows={rows}, columns={columns} and count={count} must be at least 1. For no grid: "
                "callbacks.samples.times=0."
            )
        if count is not None:
            rows, columns = -(-count // max(1, columns)), min(count, columns)
        super().__init__(times)
        self.rows, self.columns, self.seed = rows, columns, seed
        self.drawn: tuple[int, Tensor] | None = None  # examples seen at the last grid, and its samples

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        remedy = f"callbacks.samples.rows={max(1, self.rows // 2)}"
        with averaged_weights(trainer, model), enough_memory("while samples were drawn", remedy):
            bits = trainer.datamodule.spec.bits  # type: ignore[attr-defined]
            hinted = held_out_hints(model, trainer.datamodule, range(self.rows * self.columns))  # type: ignore[attr-defined]
            grids = {"samples": sample_images(model, range(self.rows * self.columns), self.seed, hinted, bits)}
            if hinted:
                grids["hints"] = shown_hints(hinted)
            self.drawn = model.progress.examples, grids["samples"]
            if isinstance(model, HasLatent):
                table = trainer.datamodule.table("val")  # type: ignore[attr-defined]
                grids["reconstructions"] = reconstructions(model, table, max(1, self.rows // 2), self.columns)
                grids["interpolations"] = interpolations(model, table, self.rows, self.columns)
        asked = model.conditions.words(asked_of(model, range(self.rows * self.columns), hinted))
        if trainer.is_global_zero:
            folder = samples_folder(trainer)
            for name, images in grids.items():
                prefix = "" if name == "samples" else f"{name}-"
                file = f"{prefix}examples={model.progress.examples:012d}.png"
                path = folder / file
                save_grid(images, self.columns, path)
                if name == "samples" and asked:
                    write_captions(asked, captions_of(path))
                for logger, step in shown_by(trainer):
                    logger.show_image(name, path, self._caption(name, model, asked), model.progress.examples, step)

    def _caption(self, name: str, model: GenerativeModel, asked: list[str]) -> str:
        shown = {
            "samples": f"samples 0 to {self.rows * self.columns - 1} of seed {self.seed}",
            "hints": "the hints of these samples, of held-out images",
            "reconstructions": "held-out images, and below each its reconstruction",
            "interpolations": "each row: latents interpolated from one held-out image to another, decoded",
        }[name]
        if name == "samples" and model.conditions.is_label_alone:
            shown += f"; column c: class c (modulo {model.num_classes})"
        if name == "samples" and asked:
            shown += f", asked for: {' | '.join(asked)}"
        if name == "samples" and isinstance(model, Grows):
            shown += f", of {model.resolution}x{model.resolution} pixels"
        return f"after {model.progress.examples:,} examples: {shown}"
