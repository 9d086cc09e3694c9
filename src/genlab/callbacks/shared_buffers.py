"""Copies a model's buffers, such as batch norm statistics, from rank 0 to all ranks."""

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import nn


class SharedBuffers(Callback):
    """After every step, copies the buffers of rank 0, which the checkpoint holds, to all ranks.

    DDP does that at the start of the next step, too late for an evaluation; and, as Lightning uses it for models that
    make their own steps, not at all: a GAN with batch norm would sample differently on each rank.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and isinstance(trainer.strategy, DDPStrategy):
            share_buffers(pl_module)


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Copy the buffers of rank 0 to all ranks: one message for each dtype."""
    buffers = list(module.buffers())
    for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):  # in the same order on all ranks
        alike = [buffer for buffer in buffers if buffer.dtype == dtype]
        flat = torch.cat([buffer.flatten() for buffer in alike])
        dist.broadcast(flat, 0)
        for buffer, part in zip(alike, flat.split([buffer.numel() for buffer in alike]), strict=True):
            buffer.copy_(part.view_as(buffer))
