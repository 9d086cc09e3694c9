"""Gradient accumulation: assigns batches to optimizer steps."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Accumulation:
    """Every optimizer step uses ``every`` batches, also across the end of an epoch.

    The one exception is the batch that ends the run (the budget or the limit of epochs): the optimizers step on it too,
    on the mean gradient of the batches there were. So ``every`` batches of n examples train as one batch of
    ``every`` * n does, and every counted example takes part in a step.

    Where only some predictions of a batch count, a step is on the mean over those of all its batches on all ranks,
    however they are spread: see :meth:`shared`.

    Checkpoints do not include it: runs are saved right after an optimizer step, where no gradient is pending.
    """

    def __init__(self, every: int = 1):
        self.every = every
        self.size = 1  # batches in the step so far, including the current one
        self.steps = True  # whether the optimizers step on the current batch
        self._counted: Tensor | None = None  # predictions that count, of the step's batches so far on this rank
        self._of = 0  # predictions of a batch

    def begin_batch(self) -> None:
        self.size = 1 if self.steps else self.size + 1
        self.steps = self.size >= self.every
        if self.size == 1:
            self._counted = None

    def shared(self, total: Tensor, counted: Tensor, of: int) -> Tensor:
        """The loss of a batch of which some predictions count: the gradients of a step, which :meth:`rescale`
        completes, are those of the mean over all that count in it.

        Args:
            total: the sum of the losses of those that count, a scalar
            counted: their number
            of: all predictions of the batch, the same for each batch of a step on each rank
        """
        self._counted = counted if self._counted is None else self._counted + counted
        self._of = of
        return total / of

    def end_run(self) -> None:
        """The current batch is the last one of the run."""
        self.steps = True

    def rescale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients are sums of shares of 1 / ``every``: where a step has fewer batches, make them a mean again; of the
        predictions that count, if only some do."""
        scale = self.every / self.size
        if self.steps and self._counted is not None:
            counted = self._counted.detach().clone()
            ranks = dist.get_world_size() if dist.is_initialized() else 1
            if ranks > 1:
                dist.all_reduce(counted)
            scale = self._of * self.every * ranks / max(1.0, float(counted))
        if self.steps and scale != 1:
            slopes = [p.grad for p in parameters if p.grad is not None]
            if slopes:
                torch._foreach_mul_(slopes, scale)
