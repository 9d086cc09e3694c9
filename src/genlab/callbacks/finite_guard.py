"""Stops a run before an optimizer step whose gradient is not finite."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass
class Look:
    """A gradient that was looked at, and what a message would say of it."""

    finite: "Answer"
    step: int
    examples: int
    indices: torch.Tensor  # of the batch
    terms: Mapping[str, Any]  # of the loss


class FiniteGuard(Callback):
    """Looks at the gradient before every optimizer step and raises NumericsError, on all ranks, if it is not finite:
    weights, averages and optimizer state are then as the last step left them.

    On a GPU the answer is read one step later, so that nobody waits for it: until then the GPU has the next step to do.
    There, fused optimizers and Muon leave out a step whose gradient is not finite; whatever the optimizer, the
    answer is read before anything is saved, sampled or evaluated, so that none of it has seen that step.

    Under a loss scaler (fp16) it checks nothing, since the scaler finds its scale by skipping such steps.
    """

    def __init__(self) -> None:
        self._indices: torch.Tensor | None = None  # of the current batch
        self._unread: Look | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        self._later = answers_later(pl_module.device)
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
        if not self._later and norm is not None and math.isfinite(norm.item()):
            return
        slopes = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not self._later:
            if not is_finite(slopes):
                self._stop(trainer, self._seen(trainer, pl_module, Answer(torch.tensor(False))))
            return
        self.settle(trainer)
        if slopes:
            finite = finite_on_device(slopes)
            leave_out(optimizer, slopes, finite)
            self._unread = self._seen(trainer, pl_module, Answer(finite))

    def _seen(self, trainer: Trainer, model: Model, finite: "Answer") -> Look:
        assert self._indices is not None
        step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
        # latest() asks Lightning for its numbers, which is slow: needed only where a logger has taken them already.
        terms = {name: kept.value for name, kept in model.unlogged.items()} if model.unlogged else model.latest()
        return Look(finite, step, model.progress.examples, self._indices, terms)

    def settle(self, trainer: Trainer) -> None:
        """Read the answer that nobody has read yet. Raises NumericsError."""
        look, self._unread = self._unread, None
        if look is not None and not look.finite.read():
            self._stop(trainer, look)

    def _stop(self, trainer: Trainer, look: Look) -> None:
        last = next(iter(read.saved(Path(trainer.default_root_dir))), None)
        raise NumericsError(
            f"the {_of_all_ranks(_what(look))} at step {look.step}, after {look.examples:,} examples. "
            f"This step was not saved; the last good state: {last.name if last else 'none'}. "
            "Lower model.optimizer.lr, or set trainer.gradient_clip_val=1.0."
        )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.settle(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.settle(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What fails may have failed over numbers that are not finite, which is then the cause to name."""
        if isinstance(exception, Exception) and not isinstance(exception, NumericsError) and trainer.world_size == 1:
            self.settle(trainer)
        self._unread = None


def settle(trainer: Trainer) -> None:
    """Read what the guard of a run has not read yet. Raises NumericsError."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FiniteGuard):
            callback.settle(trainer)


def answers_later(device: torch.device) -> bool:
    """Whether an answer comes later than its question, so that to wait for it costs time."""
    return device.type == "cuda"


class Answer:
    """A truth value, which comes from a GPU into pinned memory when all work before it is done."""

    def __init__(self, value: torch.Tensor):
        self._value, self._arrived = value, None
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)


def leave_out(optimizer: Optimizer, slopes: list[torch.Tensor], finite: torch.Tensor) -> None:
    """Have the optimizer's next step change nothing unless ``finite``, in the way that loss scalers do; of one that
    cannot, or of sharded gradients, nothing is asked."""
    if getattr(optimizer, "_step_supports_amp_scaling", False) or getattr(optimizer, "leaves_out_steps", False):
        sharded = any(isinstance(slope, DTensor) for slope in slopes)
        optimizer.found_inf = None if sharded else finite.logical_not().float()  # type: ignore[attr-defined]


def _what(look: Look) -> str:
    """What is not finite on this rank, and in which batch; "" if it is on another rank."""
    terms = {name: float(value) for name, value in look.terms.items() if name.startswith("train/")}
    wrong = [f"{name.removeprefix('train/')}={value}" for name, value in terms.items() if not math.isfinite(value)]
    if not wrong and terms and dist.is_initialized() and dist.get_world_size() > 1:
        return ""
    indices = look.indices.tolist()
    shown = ", ".join(map(str, indices[:_SHOWN])) + (f", ... ({len(indices)})" if len(indices) > _SHOWN else "")
    subject = f"loss is not finite ({', '.join(wrong)}" if wrong else "gradient is not finite (the loss is"
    return f"{subject}; batch of examples {shown})"


def is_finite(slopes: list[torch.Tensor]) -> bool:
    """The same answer on all ranks: gradients are either averaged over them, or sharded and checked together."""
    if slopes and all(type(slope) is torch.Tensor for slope in slopes):
        with torch.no_grad():  # if their sum is finite, all are
            total = torch.stack(torch._foreach_norm(slopes, 2.0)).sum().item()
        if math.isfinite(total):
            return True
    mine = [slope.to_local() if isinstance(slope, DTensor) else slope.detach() for slope in slopes]
    mine = [slope for slope in mine if slope.numel()]
    finite = _all_finite(mine, 2.0) or _all_finite(mine, float("inf"))  # squares overflow, but are six times as quick
    if any(isinstance(slope, DTensor) for slope in slopes):
        shared = torch.tensor(float(finite), device=slopes[0].device)
        dist.all_reduce(shared, dist.ReduceOp.MIN)
        return bool(shared)
    return finite


def finite_on_device(slopes: list[torch.Tensor]) -> torch.Tensor:
    """As :func:`is_finite`, a scalar of the device, for which this process does not wait."""
    mine = [slope.to_local() if isinstance(slope, DTensor) else slope.detach() for slope in slopes]
    largest = torch._foreach_norm([slope for slope in mine if slope.numel()], float("inf"))
    finite = torch.isfinite(torch.stack(largest)).all() if largest else torch.ones((), device=mine[0].device) > 0
    if any(isinstance(slope, DTensor) for slope in slopes):
        shared = finite.float()
        dist.all_reduce(shared, dist.ReduceOp.MIN)
        return shared > 0
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
