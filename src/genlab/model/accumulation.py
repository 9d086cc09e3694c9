"""Gradient accumulation: which batches an optimizer step is made of."""

from collections.abc import Iterable

import torch
from torch import nn


class Accumulation:
    """Every optimizer step is made of ``every`` batches, also where an epoch ends between them.

    The one exception is the batch that ends the run (the budget or the limit of epochs): the optimizers step on it too,
    on the mean gradient of the batches there were. So ``every`` batches of n examples train as one batch of
    ``every`` * n does, and no example that is counted goes without a step.

    Nothing of it is in a checkpoint: runs are saved right after an optimizer step, where no gradient waits.
    """

    def __init__(self, every: int = 1):
        self.every = every
        self.size = 1  # batches in the step so far, the one at hand among them
        self.steps = True  # whether the optimizers step on the batch at hand

    def begin_batch(self) -> None:
        self.size = 1 if self.steps else self.size + 1
        self.steps = self.size >= self.every

    def end_run(self) -> None:
        """The batch at hand is the last one of the run."""
        self.steps = True

    def rescale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients are sums of shares of 1 / ``every``: where a step has fewer batches, make them a mean again."""
        if self.steps and self.size < self.every:
            slopes = [p.grad for p in parameters if p.grad is not None]
            if slopes:
                torch._foreach_mul_(slopes, self.every / self.size)
