"""Text samples during training, always from the same random numbers."""

from pytorch_lightning import Trainer
from torch import Tensor

from genlab.callbacks.ema import averaged_weights
from genlab.callbacks.periodic_samples import PeriodicSamples, samples_folder, shown_by
from genlab.model.base import GenerativeModel, in_eval_mode
from genlab.sampling.texts import write_texts
from genlab.seeding import RandomStream


class TextSamples(PeriodicSamples):
    """Writes ``samples/examples=N.txt`` into the run folder, and to the loggers that show text."""

    def __init__(self, times: int = 10, count: int = 4, seed: int = 0):
        """Raises ValueError if ``count`` is below 1, unless ``times`` is 0."""
        if times and count < 1:
            raise ValueError(f"count={count} must be at least 1. For no texts: callbacks.samples.times=0.")
        super().__init__(times)
        self.count, self.seed = count, seed

    def show(self, trainer: Trainer, model: GenerativeModel) -> None:
        with averaged_weights(trainer, model), in_eval_mode(model):
            stream = RandomStream.for_samples(self.seed, range(self.count), model.device)
            tokens: Tensor = model.sample(self.count, None, stream).cpu()
        if trainer.is_global_zero:
            tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
            texts = [tokenizer.decode(row) for row in tokens.tolist()]
            write_texts(texts, samples_folder(trainer) / f"examples={model.progress.examples:012d}.txt")
            for logger, step in shown_by(trainer):
                logger.show_text("samples", texts, model.progress.examples, step)
