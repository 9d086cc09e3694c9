"""Ctrl-C and preemption: finish the step, save, and leave."""

import signal
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(Callback):
    """Turns SIGINT, SIGTERM and SIGUSR1 into a wish that is granted at the end of the step, outside the handler.

    A second Ctrl-C ends the process at once, without saving.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            self._restore()
            raise KeyboardInterrupt
        self.received = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def stop_requested(trainer: Trainer) -> bool:
    """Whether any rank was asked to stop: all ranks get the same answer."""
    stop = next((c for c in trainer.callbacks if isinstance(c, StopOnSignal)), None)  # type: ignore[attr-defined]
    asked = stop is not None and stop.received is not None
    if trainer.world_size > 1:
        return trainer.strategy.reduce_boolean_decision(asked, all=False)
    return asked
