"""Text samples during training, always from the same random numbers."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from genlab.callbacks.cadence import Cadence
from genlab.callbacks.checkpoint import save_before
from genlab.callbacks.ema import averaged_weights
from genlab.files.atomic import prepare_folder
from genlab.logger.isolated import IsolatedLogger
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.sampling.pictures import FOLDER
from genlab.sampling.texts import write_texts
from genlab.seeding import RandomStream


class TextSamples(Callback):
    """Writes ``samples/examples=N.txt`` into the run folder, and to the loggers that show text."""

    def __init__(self, times: int = 10, count: int = 4, seed: int = 0):
        """Raises ValueError if ``count`` is below 1, unless ``times`` is 0."""
        if times and count < 1:
            raise ValueError(f"count={count} must be at least 1. For no texts: callbacks.samples.times=0.")
        self.milestones = Cadence(times)
        self.count, self.seed = count, seed

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
        with averaged_weights(trainer, model), in_eval_mode(model):
            stream = RandomStream.for_samples(self.seed, range(self.count), model.device)
            tokens: Tensor = model.sample(self.count, None, stream).cpu()
        if trainer.is_global_zero:
            tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
            texts = [tokenizer.decode(row) for row in tokens.tolist()]
            folder = Path(trainer.default_root_dir) / FOLDER
            prepare_folder(folder, folder.parent)
            write_texts(texts, folder / f"examples={model.progress.examples:012d}.txt")
            for logger in trainer.loggers:
                if isinstance(logger, IsolatedLogger):
                    step = trainer.fit_loop.epoch_loop._batches_that_stepped
                    logger.show_text("samples", texts, model.progress.examples, step)
