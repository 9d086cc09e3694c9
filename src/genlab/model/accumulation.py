"""Gradient accumulation: assigns batches to optimizer steps."""

from collections.abc import Iterable

import torch
from torch import nn


class Accumulation:
    """Every optimizer step uses ``every`` batches, also across the end of an epoch.

    The one exception is the batch that ends the run (the budget or the limit of epochs): the optimizers step on it too,
    on the mean gradient of the batches there were. So ``every`` batches of n examples train as one batch of
    ``every`` * n does, and every counted example takes part in a step.

    Checkpoints do not include it: runs are saved right after an optimizer step, where no gradient is pending.
    """

    def __init__(self, every: int = 1):
        self.every = every
        self.size = 1  # batches in the step so far, including the current one
        self.steps = True  # whether the optimizers step on the current batch

    def begin_batch(self) -> None:
        self.size = 1 if self.steps else self.size + 1
        self.steps = self.size >= self.every

    def end_run(self) -> None:
        """The current batch is the last one of the run."""
        self.steps = True

    def rescale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients are sums of shares of 1 / ``every``: where a step has fewer batches, make them a mean again."""
        if self.steps and self.size < self.every:
            slopes = [p.grad for p in parameters if p.grad is not None]
            if slopes:
                torch._foreach_mul_(slopes, self.every / self.size)
