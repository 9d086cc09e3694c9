"""Stops a run before an optimizer step whose gradient is not finite."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from genlab.checkpoint import read
from genlab.errors import NumericsError
from genlab.model.base import Model

_SHOWN = 8  # indices of a batch in a message


class FiniteGuard(Callback):
    """Looks at the gradient before every optimizer step and raises NumericsError, on all ranks, if it is not finite:
    weights, averages and optimizer state are then as the last step left them.

    Under a loss scaler (fp16) it checks nothing, since the scaler finds its scale by skipping such steps.
    """

    def __init__(self) -> None:
        self._indices: torch.Tensor | None = None  # of the current batch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        pl_module.sees_norm = lambda norm, optimizer: self._look(trainer, pl_module, optimizer, norm)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._indices = batch["index"]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        plugin = trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            return
        assert isinstance(pl_module, Model)
        if not pl_module.tells_norm:
            self._look(trainer, pl_module, optimizer)

    def _look(self, trainer: Trainer, pl_module: Model, optimizer: Optimizer, norm: torch.Tensor | None = None) -> None:
        """``norm``: of the gradient, where it is known; if that is finite, all is. Clipping leaves no gradient finite
        that was not."""
        if norm is not None and math.isfinite(norm.item()):
            return
        slopes = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if is_finite(slopes):
            return
        step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
        last = next(iter(read.saved(Path(trainer.default_root_dir))), None)
        raise NumericsError(
            f"the {_of_all_ranks(self._what(trainer))} at step {step}, after {pl_module.progress.examples:,} examples. "
            f"This step was not saved; the last good state: {last.name if last else 'none'}. "
            "Lower model.optimizer.lr, or set trainer.gradient_clip_val=1.0."
        )

    def _what(self, trainer: Trainer) -> str:
        """What is not finite on this rank, and in which batch; "" if it is on another rank."""
        assert isinstance(trainer.lightning_module, Model)
        said = trainer.lightning_module.latest()
        terms = {name: float(value) for name, value in said.items() if name.startswith("train/")}
        wrong = [f"{name.removeprefix('train/')}={value}" for name, value in terms.items() if not math.isfinite(value)]
        if not wrong and terms and dist.is_initialized() and dist.get_world_size() > 1:
            return ""
        assert self._indices is not None
        indices = self._indices.tolist()
        shown = ", ".join(map(str, indices[:_SHOWN])) + (f", ... ({len(indices)})" if len(indices) > _SHOWN else "")
        subject = f"loss is not finite ({', '.join(wrong)}" if wrong else "gradient is not finite (the loss is"
        return f"{subject}; batch of examples {shown})"


def is_finite(slopes: list[torch.Tensor]) -> bool:
    """The same answer on all ranks: gradients are either averaged over them, or sharded and checked together."""
    mine = [slope.to_local() if isinstance(slope, DTensor) else slope.detach() for slope in slopes]
    mine = [slope for slope in mine if slope.numel()]
    finite = _all_finite(mine, 2.0) or _all_finite(mine, float("inf"))  # squares overflow, but are six times as quick
    if any(isinstance(slope, DTensor) for slope in slopes):
        shared = torch.tensor(float(finite), device=slopes[0].device)
        dist.all_reduce(shared, dist.ReduceOp.MIN)
        return bool(shared)
    return finite


def _all_finite(slopes: list[torch.Tensor], order: float) -> bool:
    """Whether the norm of each is."""
    return not slopes or bool(torch.isfinite(torch.stack(torch._foreach_norm(slopes, order))).all())


def _of_all_ranks(what: str) -> str:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return what
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, what)
    named = [f"{text} on rank {rank}" for rank, text in enumerate(said) if text]
    return named[0] if named else "gradient is not finite"
