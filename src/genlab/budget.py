"""Training budgets: a run ends after a number of examples, of floating-point operations, or of seconds.

A budget counts all three into ``model.progress``. Optimizer steps are not a unit, since a step of a GAN and a step
of a diffusion model are not comparable.
"""

import math
import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count, shape_wrapper

from genlab.errors import ConfigError
from genlab.model.activation_checkpointing import is_recomputing
from genlab.model.base import Model, Progress

Shape = tuple[int, ...]


def _attention(query: Shape, key: Shape, value: Shape, *rest: Any, out_shape: Any, **options: Any) -> int:
    """FLOPs of attention: queries times keys, and weights times values."""
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    grad: Shape, query: Shape, key: Shape, value: Shape, *rest: Any, out_shape: Any, **options: Any
) -> int:
    """Two products for each one of the forward pass. Kernels also recompute the scores, which torch's own table
    counts."""
    return 2 * sdpa_flop_count(query, key, value)


_ATEN = torch.ops.aten
_KERNELS = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention",
            "fused_attention_overrideable")  # fmt: skip
_FORMULAS = {
    **flop_registry,
    **{getattr(_ATEN, f"_scaled_dot_product_{kernel}"): shape_wrapper(_attention) for kernel in _KERNELS},
    **{
        getattr(_ATEN, f"_scaled_dot_product_{kernel}_backward"): shape_wrapper(_attention_backward)
        for kernel in _KERNELS
    },
}


class OperationCounter(TorchDispatchMode):
    """Floating-point operations of matrix products and convolutions, by their shapes.

    Two for each multiplication with its addition; a backward pass has twice those of its forward pass. Attention counts
    alike whichever kernel or plain products compute it here, so that a budget is the same on every machine: what a
    kernel recomputes is not counted, and what it skips is, so causal attention counts all pairs. What activation
    checkpointing recomputes is not counted either.

    Torch's FlopCounterMode also tells modules apart, with hooks that fail under double backward.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None and not is_recomputing():
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Budget(Callback):
    """Counts progress and stops the trainer when it is used up."""

    def __init__(self, value: float):
        if not 0 < value < math.inf:
            raise ConfigError(f"budget.value must be finite and above 0, got {value}.")
        self.value = value
        self._flops: dict[str, float] = {}  # of one batch on one rank, by kind of step and shape: measured on the first
        self._kind = ""  # of the step being made
        self._counter: OperationCounter | None = None
        self._counting = ExitStack()
        self._parts = 0.0  # of a step of a model that counts parts, on this rank

    @abstractmethod
    def used(self, progress: Progress) -> float:
        """How much of :attr:`value` is used up."""

    def finished(self, progress: Progress) -> bool:
        return self.used(progress) >= self.value

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, Model)
        pl_module.accumulation.begin_batch()
        self._kind = self._kind_of(pl_module, batch, batch_idx)
        if self.ends_with(trainer, pl_module, batch, self._kind):
            pl_module.accumulation.end_run()
            self._kind = self._kind_of(pl_module, batch, batch_idx)
        if pl_module.counts_parts:
            self._parts, pl_module.counting = 0.0, self.part
        elif self._kind not in self._flops:
            self._counter = _enter_counter(self._counting)

    @contextmanager
    def part(self, kind: str) -> Iterator[None]:
        """Adds the operations of what is done inside to those of the step. They are counted the first time; ``kind``
        says all that they depend on."""
        if kind not in self._flops:
            with ExitStack() as counting:
                counter = _enter_counter(counting)
                yield
            self._flops[kind] = float(counter.total)
        else:
            yield
        self._parts += self._flops[kind]

    def ends_with(self, trainer: Trainer, model: Model, batch: Mapping[str, Any], kind: str) -> bool:
        """Whether this batch is the run's last one, as far as can be predicted. The seconds of a batch, and operations
        that have not been counted yet, cannot be predicted: then the next batch is the last one. ``kind``: of its
        step."""
        if trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs:
            return True
        progress, ranks = model.progress, trainer.world_size
        after = Progress(
            progress.examples + _size(batch) * ranks,
            progress.flops + self._flops.get(kind, 0.0) * ranks,
            progress.seconds,
            progress.fraction,
        )
        return self.finished(after)

    def _kind_of(self, model: Model, batch: Mapping[str, Any], batch_idx: int) -> str:
        shape = "x".join(map(str, next(iter(batch.values())).shape))  # a run may go on with another batch size
        return f"{model.step_kind(batch_idx)} {shape}"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        if self._counter is not None:
            self._counting.close()
            self._flops[self._kind] = float(self._counter.total)
            self._counter = None
        progress = pl_module.progress
        progress.examples += _size(batch) * trainer.world_size
        if pl_module.counts_parts:
            operations = _over_ranks(trainer, self._parts)
            progress.flops += operations
            self._flops[self._kind] = operations / trainer.world_size  # a guess for the next one
        else:
            progress.flops += self._flops[self._kind] * trainer.world_size
        progress.seconds = self.agree(trainer, progress.seconds + time.perf_counter() - pl_module.step_began)
        progress.fraction = min(1.0, self.used(progress) / self.value)
        if trainer._logger_connector.should_update_logs:  # in the steps between, logging would cost most of all
            pl_module.log_dict({name: torch.tensor(n, dtype=torch.float64) for name, n in progress.logged().items()})
        if self.finished(progress) and pl_module.at_optimizer_step(batch_idx):
            trainer.should_stop = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._counting.close()

    def agree(self, trainer: Trainer, seconds: float) -> float:
        """The time that all ranks use. Only a budget of seconds needs them to agree."""
        return seconds

    def state_dict(self) -> dict[str, Any]:
        return {"flops": self._flops}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._flops = dict(state_dict["flops"])

    @property
    def state_key(self) -> str:
        return "Budget"  # a run may be continued under another budget


def _enter_counter(stack: ExitStack) -> OperationCounter:
    counter = OperationCounter()
    stack.enter_context(counter)
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
        # A frame that torch.compile meets under the counter is never compiled: this step it shall meet none.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    return counter


def _over_ranks(trainer: Trainer, operations: float) -> float:
    """The sum over all ranks, the same number on each."""
    if trainer.world_size == 1:
        return operations
    total = torch.tensor(operations, dtype=torch.float64, device=trainer.strategy.root_device)
    dist.all_reduce(total)
    return float(total)


def _size(batch: Mapping[str, Any]) -> int:
    return len(next(iter(batch.values())))


class Examples(Budget):
    """Training examples, over all devices."""

    def __init__(self, value: int):
        super().__init__(value)

    def used(self, progress: Progress) -> float:
        return progress.examples


class Flops(Budget):
    """Floating-point operations of training (forward, backward, optimizers; all networks), by their shapes."""

    def used(self, progress: Progress) -> float:
        return progress.flops


class Seconds(Budget):
    """Seconds of training on the clock of the first rank; evaluation, sample grids and saving do not count."""

    def used(self, progress: Progress) -> float:
        return progress.seconds

    def agree(self, trainer: Trainer, seconds: float) -> float:
        if trainer.world_size == 1:
            return seconds
        return _model_of(trainer).agreement.on(self, trainer)

    def proposal(self, trainer: Trainer) -> float:
        """Seconds so far; the first rank's is the largest of all."""
        model = _model_of(trainer)
        return model.progress.seconds + time.perf_counter() - model.step_began if trainer.is_global_zero else 0.0


def _model_of(trainer: Trainer) -> Model:
    model = trainer.lightning_module
    assert isinstance(model, Model)
    return model
