"""Where in a stretch of accumulated gradients a batch stands."""

from pytorch_lightning import Trainer


def at_optimizer_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the optimiser has stepped on this batch: only then is a state worth averaging, saving or stopping at."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
