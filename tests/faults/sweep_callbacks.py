"""What makes a trial slow enough to be harmed, and one that a bad parameter breaks."""

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Slow(Callback):
    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        time.sleep(self.seconds)


class Bad(Callback):
    """Raises in the fifth step if ``value`` is a multiple of five, until there is a file ``mended``."""

    def __init__(self, value: int, mended: str):
        self.value, self.mended = value, Path(mended)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.value % 5 == 0 and batch_idx >= 5 and not self.mended.exists():
            raise ValueError(f"{self.value} is a bad parameter")
