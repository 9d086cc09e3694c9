"""What all processes of a run agree on after every batch, in one message."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from pytorch_lightning import Trainer


@runtime_checkable
class Proposes(Protocol):
    """A callback that needs a number which is the same on all processes: the largest that one of them proposes."""

    def proposal(self, trainer: Trainer) -> float:
        """This process's number, after the current batch."""
        ...


class Agreement:
    """The numbers of all callbacks that need one, exchanged when the first of them asks.

    They go from CPU to CPU (gloo) also where gradients go from GPU to GPU: no process waits for its GPU to know what
    the others decide.
    """

    def __init__(self) -> None:
        self._batch = -1
        self._numbers: dict[int, float] = {}
        self._group: Any = None

    def on(self, asker: Proposes, trainer: Trainer) -> float:
        """What is agreed for ``asker``, a callback of ``trainer``, after the current batch."""
        if trainer.world_size == 1:
            return asker.proposal(trainer)
        batch = trainer.fit_loop.epoch_loop.total_batch_idx
        if batch != self._batch:
            askers = [callback for callback in _callbacks(trainer) if isinstance(callback, Proposes)]
            numbers = self._largest([callback.proposal(trainer) for callback in askers], trainer)
            self._batch = batch
            self._numbers = {id(callback): number for callback, number in zip(askers, numbers, strict=True)}
        return self._numbers[id(asker)]

    def _largest(self, mine: list[float], trainer: Trainer) -> list[float]:
        if self._group is None:
            on_cpus = dist.get_backend() == "gloo"
            timeout = getattr(trainer.strategy, "_timeout", None)
            self._group = dist.group.WORLD if on_cpus else dist.new_group(backend="gloo", timeout=timeout)
        shared = torch.tensor(mine, dtype=torch.float64)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._group)
        return shared.tolist()  # type: ignore[no-any-return]


def _callbacks(trainer: Trainer) -> Iterable[Any]:
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]
