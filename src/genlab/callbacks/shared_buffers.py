"""Copies a model's buffers, such as batch norm statistics, from rank 0 to all ranks."""

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import nn


class SharedBuffers(Callback):
    """After every step, copies the buffers of rank 0, which the checkpoint holds, to all ranks.

    DDP's own way of doing that is turned off: it comes at the start of the next step, too late for an evaluation; and,
    as Lightning uses it for models that make their own steps, not at all: a GAN with batch norm would sample
    differently on each rank.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and isinstance(trainer.strategy, DDPStrategy):
            share_buffers(pl_module)


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Copy the buffers of rank 0 to all ranks: their bytes, in one message."""
    buffers = [buffer for buffer in module.buffers() if buffer.numel()]
    if not buffers:
        return
    told = torch.cat([buffer.flatten().view(torch.uint8) for buffer in buffers])
    dist.broadcast(told, 0)
    for buffer, part in zip(buffers, told.split([buffer.nbytes for buffer in buffers]), strict=True):
        buffer.copy_(part.clone().view(buffer.dtype).view_as(buffer))  # a clone begins where any type may
