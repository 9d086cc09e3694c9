"""Data parallelism (DDP): a copy of the model on each device, whose gradients are averaged."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


class DataParallel(DDPStrategy):
    """Lightning's, without a message before every forward pass with the first rank's buffers: SharedBuffers sends them
    after every step, in time for an evaluation."""

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        wrapped = super()._setup_model(model)
        wrapped.broadcast_buffers = False  # an argument would also leave out to send them once, at the start
        return wrapped


class OwnSteps(DataParallel):
    """For models that make their own optimizer steps, such as GANs: gradients are averaged right before an optimizer's
    step, those of its own parameters alone.

    Torch's averages at the end of every backward pass, and those of all networks, although a turn is one network's,
    after a walk through the graph for parameters without a gradient. A parameter has to have a gradient on all
    processes or on none, and steps have to be those of ``self.optimizers()``.
    """

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Has torch's DDP, in whose place this is, expect no gradients."""

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        def averaged() -> Any:
            result = closure()
            average_gradients(optimizer)
            return result

        return super().optimizer_step(optimizer, averaged, model, **kwargs)


@torch.no_grad()
def average_gradients(optimizer: Optimizer) -> None:
    """Replace the gradients of an optimizer's parameters by their means over processes: one message for each dtype."""
    slopes = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for dtype in dict.fromkeys(slope.dtype for slope in slopes):  # in the same order on all ranks
        alike = [slope for slope in slopes if slope.dtype == dtype]
        flat = torch.cat([slope.flatten() for slope in alike]).div_(dist.get_world_size())
        dist.all_reduce(flat)
        parts = flat.split([slope.numel() for slope in alike])
        torch._foreach_copy_(alike, [part.view(slope.shape) for part, slope in zip(parts, alike, strict=True)])
