"""Ctrl-C and preemption: finish the step, save, and exit."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from genlab.errors import StorageError
from genlab.model.base import Model

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """A signal ended the program where it was. Not an Exception: no ``except Exception`` on the way may keep it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def stopped_by(error: BaseException) -> Stopped | None:
    """The signal that caused ``error``: a library interrupted by :class:`Stopped` may raise an error of its own because
    of what it left half done. Storage errors are always reported as such."""
    met: BaseException | None = error
    seen: list[BaseException] = []  # a chain of causes may lead back to itself
    while met is not None and met not in seen and not isinstance(error, StorageError):
        if isinstance(met, Stopped):
            return met
        seen.append(met)
        met = met.__cause__ or met.__context__
    return None


class StopOnSignal(Callback):
    """Listens to SIGINT, SIGTERM and SIGUSR1, for as long as it is entered as a context.

    During training, a signal stops the run at the end of the step, outside the handler, on all ranks.
    At any other time, on a second Ctrl-C, and in :func:`done_unless_stopped`, it raises :class:`Stopped` at once.
    """

    def __init__(self) -> None:
        self.agreed: int | None = None  # the signal that all ranks stop for
        self._received: int | None = None
        self._training = False
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in SIGNALS:  # again: Lightning has put handlers of its own in their place
            signal.signal(number, self._handle)
        self._training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Model)
        self.agreed = int(pl_module.agreement.on(self, trainer)) or None

    def proposal(self, trainer: Trainer) -> float:
        """The signal that this process received; 0: none."""
        return self._received or 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False
        if self.agreed is None:
            self._agree(trainer)
            if self.agreed is not None:  # it came after the last step
                raise Stopped(self.agreed)

    def _agree(self, trainer: Trainer) -> None:
        received = self._received or 0
        if trainer.world_size > 1:
            shared = torch.tensor(received, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
            received = int(shared)
        self.agreed = received or None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._training = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        leave = not self._training or self._at_once or (self._received is not None and number == signal.SIGINT)
        self._received, self._at_once = number, False
        if leave:
            raise Stopped(number)


def done_unless_stopped(trainer: Trainer, work: Callable[[], Any]) -> bool:
    """Do ``work``, between two steps. False: a signal cut it short, and the run stops as it does after a step.

    Ranks can only stop together: with several of them the signal waits for the end of the work.
    """
    stop = _listener(trainer)
    if stop is None or trainer.world_size > 1:
        work()
        return True
    try:
        stop._at_once = True
        if stop._received is not None:
            raise Stopped(stop._received)
        work()
    except Stopped as stopped:
        stop.agreed = stopped.number
        return False
    finally:
        stop._at_once = False
    return True


def _listener(trainer: Trainer) -> StopOnSignal | None:
    return next((c for c in trainer.callbacks if isinstance(c, StopOnSignal)), None)  # type: ignore[attr-defined]


def stop_requested(trainer: Trainer) -> bool:
    """Whether any rank was asked to stop: the same answer on all of them."""
    stop = _listener(trainer)
    return stop is not None and stop.agreed is not None
